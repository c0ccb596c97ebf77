"""Rewards of every kind: one signature, their gradient, what is kept of them, the loss of the learnt one."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_images

from rlhf_nb import files, hub, pictures, reward
from rlhf_nb.feedback.store import TooFewLabels

PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture(scope="module")
def head(clip):
    torch.manual_seed(0)
    return reward.Reward(clip, reward.Head(clip.width, 16))


def noise(size=64):
    """Blurred noise as uint8 images (4, size, size, 3)."""
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(x, size, mode="bilinear")
    return (255 * x).byte().permute(0, 2, 3, 1).numpy()


def as_pixels(images):
    """uint8 images (B, H, W, 3) as floats (B, 3, H, W) in [-1, 1] that want a gradient."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).requires_grad_()


def test_pixels_have_the_features_of_their_image(clip):
    images = noise()
    assert torch.allclose(clip.pixels(as_pixels(images)), clip.images(images), atol=1e-4)


def test_pixels_of_another_size_are_resized_as_the_processor_does(clip):
    images = noise(160)
    assert torch.cosine_similarity(clip.pixels(as_pixels(images)), clip.images(images)).min() > 0.999


@pytest.mark.parametrize("name", ["learnt", "similarity"])
def test_a_score_of_pixels_is_that_of_the_image_and_has_a_gradient(clip, head, tmp_path, name):
    head.save(tmp_path, {})
    score, images = reward.scorer(name, tmp_path, clip), noise()
    x = as_pixels(images)
    scores = score.of_pixels(x, clip.prompts(PROMPTS))
    assert scores.shape == (4,)
    assert np.allclose(scores.detach(), score(images, PROMPTS), atol=1e-4)
    scores.sum().backward()
    assert x.grad.isfinite().all() and x.grad.flatten(1).any(1).all()
    assert all(p.grad is None for p in (*clip.model.parameters(), *score.model.parameters()))


def test_a_head_is_saved_and_scores_the_same(clip, head, tmp_path):
    images = noise()
    head.save(tmp_path, {"note": "test"})
    scores = head(images, PROMPTS)
    assert scores.shape == (4,) and (0 <= scores).all() and (scores <= 1).all()
    assert np.array_equal(scores, reward.load(tmp_path, clip)(images, PROMPTS))
    assert files.read_json(tmp_path / "card.json") == {"note": "test", "width": clip.width, "hidden": 16}


def test_a_head_that_is_missing_damaged_or_of_another_clip_is_one_sentence(clip, head, tmp_path):
    wrong = "cannot be loaded .*: run notebook 04_reward again with this CLIP"
    with pytest.raises(hub.ModelError, match=wrong):
        reward.load(tmp_path, clip)
    head.save(tmp_path, {})
    files.write_tensors(reward.Head(clip.width + 1, 16).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(hub.ModelError, match=wrong):
        reward.load(tmp_path, clip)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(hub.ModelError, match=wrong):
        reward.load(tmp_path, clip)


def test_a_head_is_a_layer_on_the_concatenation():
    torch.manual_seed(0)
    head = reward.Head(6, 16)
    torch.manual_seed(0)
    whole = torch.nn.Linear(12, 16)
    image, text = torch.randn(3, 6), torch.randn(3, 5, 6)
    both = torch.cat((image[:, None].expand(-1, 5, -1), text), -1)
    assert torch.allclose(head(image, text), head.out(whole(both).relu()).sigmoid().squeeze(-1), atol=1e-6)


def test_features_are_kept_by_content(clip, tmp_path):
    images, cache = noise(), tmp_path / "cache"
    save_images(tmp_path / "a", images, {"prompt": PROMPTS})
    first = clip.folder(pictures.ImageFolder(tmp_path / "a"), cache)
    assert torch.equal(first, clip.images(images))
    assert torch.equal(first, clip.folder(pictures.ImageFolder(tmp_path / "a"), cache))
    save_images(tmp_path / "a", images[::-1], {"prompt": PROMPTS})
    assert torch.equal(clip.folder(pictures.ImageFolder(tmp_path / "a"), cache), clip.images(images[::-1]))
    assert len(list(cache.iterdir())) == 2


def test_a_preference_scorer_is_a_folder_of_clips_architecture(clip, tmp_path):
    """It must agree with the stock model's own similarity."""
    from transformers import CLIPModel

    images, other = noise(), reward.Clip("toy/clip")
    other.model.text_projection.weight.data.mul_(-1)  # a scorer with a mind of its own
    for part in (other.model, other.tokenizer, other.processor):
        part.save_pretrained(tmp_path)
    score = reward.scorer(str(tmp_path), None, clip)
    assert np.allclose(score(images, PROMPTS), 1 - reward.scorer("similarity", None, clip)(images, PROMPTS))
    stock = CLIPModel.from_pretrained(tmp_path).eval()
    inputs = clip.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    inputs |= {"pixel_values": clip.processor(list(images), return_tensors="pt").pixel_values}
    with torch.no_grad():
        cosine = (stock(**inputs).logits_per_image / stock.logit_scale.exp()).diagonal()
    assert np.allclose(score(images, PROMPTS), 0.5 + 0.5 * cosine.numpy(), atol=1e-4)


def labels(*groups):
    """Labelled rows of (use, split, how many prompts, their labels), one picture a label."""
    said = [
        (f"{split} {k}", use, split, "count", float(label), float(label))
        for use, split, prompts, given in groups
        for k in range(prompts)
        for label in given
    ]
    return pd.DataFrame(said, columns=["prompt", "use", "split", "category", "label", "truth"])


LEARN, TEST = ("label", "seen", 12, (1, 0)), ("test", "heldout", 2, (1, 0))
FEW = {
    "only labelled prompts": ([LEARN], "0 labelled images of new prompts to test on"),
    "only test prompts": ([TEST], "0 labelled images to learn from"),
    "all good": ([("label", "seen", 12, (1,)), TEST], "11 labelled images to learn from .11 good."),
    "all bad": ([("label", "seen", 12, (0,)), TEST], "11 labelled images to learn from .0 good."),
    "one prompt": ([("label", "seen", 1, (1, 0)), TEST], "0 labelled images to learn from"),
    "few": ([("label", "seen", 4, (1, 0)), TEST], "6 labelled images to learn from"),
    "nothing aside": (
        [("label", "seen", 5, (1, 0)), ("test", "seen", 5, (1, 0)), TEST],
        "0 labelled images to cal",
    ),
    "no new prompts": ([LEARN, ("test", "seen", 2, (1, 0))], "0 labelled images of new prompts"),
    "all good ones to test on": ([LEARN, ("test", "ood", 9, (1,))], "9 labelled images of new .*9 good"),
}


@pytest.mark.parametrize("groups, message", FEW.values(), ids=FEW)
def test_too_few_or_one_sided_labels_are_one_sentence(groups, message):
    with pytest.raises(TooFewLabels, match=f"{message}.*notebook 03_feedback"):
        reward.parted(labels(*groups), 0)


def test_labels_are_parted_by_prompt():
    rows = labels(LEARN, TEST)
    learn, check, test = reward.parted(rows, 0)
    assert [len(part) for part in (learn, check, test)] == [22, 2, 4]
    assert sorted([*learn.index, *check.index, *test.index]) == rows.index.tolist()
    assert not set(learn.prompt) & set(check.prompt)


def test_labels_are_read_whole_and_for_their_own_images(tmp_path):
    rows = labels(LEARN, TEST)
    save_images(tmp_path, np.zeros((len(rows), 8, 8, 3), np.uint8), rows)
    images, path = pictures.ImageFolder(tmp_path), tmp_path / "labels.csv"
    rows.assign(label=rows.label.where(rows.index > 2)).to_csv(path, index=False)
    assert reward.labelled(path, images).index.tolist() == [*range(3, len(rows))]
    for wrong in (
        rows[:-1],
        rows[::-1],
        rows.drop(columns="use"),
        rows.assign(label="good"),
        rows.assign(label=2.0),
    ):
        wrong.to_csv(path, index=False)
        with pytest.raises(files.ArtifactError, match="labels.csv.*run notebook 03_feedback again"):
            reward.labelled(path, images)


class Dot(torch.nn.Module):
    """A head with one weight."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, image, text):
        return self.scale * torch.einsum("bd,bnd->bn", image, text)


def test_the_reward_pays_for_every_label_and_for_the_sentences_of_good_images():
    g, model = torch.Generator().manual_seed(0), Dot()
    image, texts = torch.randn(4, 8, generator=g), torch.randn(5, 8, generator=g)
    candidates = torch.tensor([[0, 1, 2], [1, 3, 4], [2, 0, 4], [3, 1, 0]])
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    options = {"lam": 0.5, "temperature": 2.0, "batch": 4, "seed": 0}
    loss, log = reward.reward_loss(image, texts, candidates, labels, **options)(model, 0)
    scores = model(image, texts[candidates])
    mse = (scores[:, 0] - labels).square().mean()
    pc = -(scores[labels > 0.5] / 2.0).log_softmax(1)[:, 0].mean()
    assert torch.allclose(log["mse"], mse) and torch.allclose(log["pc"], pc)
    assert torch.allclose(loss, mse + 0.5 * pc, atol=1e-6)
