"""Public scorers as rewards: their map to [0, 1], their gradient, and how they are named."""

import sys

import numpy as np
import pytest
import torch
from test_reward import PROMPTS, as_pixels, noise

from rlhf_nb import reward, scorers


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a module of a person's own, in the folder that Python is started in; returns how to name it."""
    monkeypatch.chdir(tmp_path)

    def of(text):
        (tmp_path / "mine.py").write_text(text)
        sys.modules.pop("mine", None)
        return "mine:made"

    yield of
    sys.modules.pop("mine", None)


def test_a_reward_runs_from_nothing_to_one_between_its_ends():
    score = scorers.Affine(lambda images, prompts: [-3.0, -1.0, 0.5, 9.0], low=-1.0, high=2.0)
    assert score(noise(), PROMPTS).tolist() == [0, 0, 0.5, 1]
    plain = scorers.Affine(lambda images, prompts: torch.tensor([0.25] * 4))
    assert plain(noise(), PROMPTS).tolist() == [0.25] * 4


def test_ends_are_quantiles_of_the_base_models_pictures():
    images = np.arange(101, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    one = scorers.each(lambda image, prompt: image.mean() / 10 + len(prompt))
    low, high = scorers.ends(one, images, ["five!"] * 101)
    assert (low, high) == pytest.approx((5.5, 14.5))
    found = scorers.Affine(one, low, high)(images, ["five!"] * 101)
    assert found.min() == 0 and found.max() == 1 and found[50] == pytest.approx(0.5)


def test_a_preference_scorers_folder_gets_a_spread_and_keeps_its_gradient(clip, tmp_path, mine):
    for part in (clip.model, clip.tokenizer, clip.processor):
        part.save_pretrained(tmp_path / "scorer")
    name = mine(f"""
from rlhf_nb import reward, scorers
def made(clip):
    return scorers.Affine(reward.scorer({str(tmp_path / "scorer")!r}, None, clip), low=0.2, high=0.9)
""")
    score, plain, images = scorers.named(name, clip), reward.scorer("similarity", None, clip), noise()
    assert np.allclose(score(images, PROMPTS), ((plain(images, PROMPTS) - 0.2) / 0.7).clip(0, 1), atol=1e-5)
    x = as_pixels(images)
    scores = score.of_pixels(x, score.clip.prompts(PROMPTS))
    assert np.allclose(scores.detach().clip(0, 1), score(images, PROMPTS), atol=1e-3)
    scores.sum().backward()
    assert x.grad.flatten(1).any(1).all()


def test_a_scorer_that_takes_a_picture_at_a_time(clip, mine):
    """As ImageReward and VQAScore do: what is asked is their own affair."""
    name = mine("""
from rlhf_nb import scorers
class Model:
    def __call__(self, images, texts):
        return [[images[0].mean() / 255 * (len(texts[0]) > 10)]]
def made(clip):
    model = Model()
    return scorers.Affine(scorers.each(lambda image, prompt: model([image], [prompt])[0][0]), high=0.8)
""")
    score, images = scorers.named(name, clip), noise()
    expected = images.mean((1, 2, 3)) / 255 / 0.8 * [1, 1, 1, 0]
    assert np.allclose(score(images, PROMPTS), expected.clip(0, 1), atol=1e-6)
    with pytest.raises(scorers.ScorerError, match="no gradient"):
        score.clip  # noqa: B018


@pytest.mark.parametrize("text", ["def other(clip): pass", "1 / 0", "made = 3", "def made(): pass"])
def test_a_scorer_that_cannot_be_made_is_one_sentence(clip, mine, text):
    with pytest.raises(scorers.ScorerError, match="'mine:made' cannot be made .* as module:function"):
        scorers.named(mine(text), clip)
    with pytest.raises(scorers.ScorerError, match="'nowhere:made' cannot be made"):
        scorers.named("nowhere:made", clip)
    with pytest.raises(scorers.ScorerError, match="'mine:' cannot be made"):
        scorers.named("mine:", clip)


@pytest.mark.parametrize("said", [[0.1], [[0.1]] * 4, [0.1, 0.2, 0.3, float("nan")], ["good"] * 4, None, 0.5])
def test_what_is_no_score_is_one_sentence(said):
    score = scorers.Affine(lambda images, prompts: said)
    with pytest.raises(scorers.ScorerError, match="it must return one finite number an image"):
        score(noise(), PROMPTS)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_ends_in_no_order_are_one_sentence(ends):
    with pytest.raises(scorers.ScorerError, match="two numbers in order"):
        scorers.Affine(lambda images, prompts: [], *ends)
