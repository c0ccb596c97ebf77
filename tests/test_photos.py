"""The detector: its decisions by hand, both families in the stock format, and what is wrong with a folder."""

import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_owl

from rlhf_nb import hub, photos, prompts, reward
from rlhf_nb.toy import world

WANTS = [
    prompts.Attributes("cat", 2, "red", "in the sea"),
    prompts.Attributes("star"),
    prompts.Attributes("airplane", count=3),
    prompts.Attributes("flag", colour="blue"),
    prompts.Attributes("heart", background="on the moon"),
]
IMAGES = world.render(WANTS, 5, range(5))


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture(scope="module", params=["OwlViT", "Owlv2"])
def folder(request, tmp_path_factory):
    return tiny_owl(request.param, tmp_path_factory.mktemp(request.param))


def test_of_two_overlapping_boxes_the_surer_survives(monkeypatch):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])  # the first two share 0.8
    scores = torch.tensor([0.3, 0.9, 0.5])
    assert photos.survivors(boxes, scores).tolist() == [1, 2]
    assert photos.survivors(boxes[:0], scores[:0]).shape == (0,)
    # the middle one crowds both, but it is gone when the last is asked
    chain = torch.tensor([[0.0, 0, 10, 1], [3, 0, 13, 1], [6, 0, 16, 1]])
    assert photos.survivors(chain, torch.tensor([0.9, 0.8, 0.7])).tolist() == [0, 2]
    monkeypatch.setattr(photos, "OVERLAP", 0.85)
    assert photos.survivors(boxes, scores).tolist() == [1, 2, 0]


def test_crops_have_a_margin_and_stay_inside():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:50] = 255
    boxes = torch.tensor(
        [[30.0, 10, 50, 20], [-50, -50, 200, 200], [59.99, 39.99, 60.01, 40.01], [70, 50, 90, 60]]
    )
    tight, whole, corner, beyond = photos.crops(image, boxes, 24)
    assert tight[12, 12].min() > 250 and tight[0].max() < 128
    assert (tight > 128).mean() == pytest.approx(1 / 1.2**2, abs=0.01)
    assert whole.mean() == pytest.approx(image.mean(), abs=2)
    assert not corner.any() and not beyond.any()
    assert np.array_equal(photos.crops(IMAGES[0], torch.tensor([[0.0, 0, 64, 64]]), 64)[0], IMAGES[0])


def test_decisions_by_hand():
    want = WANTS[0]
    good = dict.fromkeys((*prompts.ATTRIBUTES, "all"), True) | {"number": 2}
    assert photos.shown(want, 2, ["red", "red"], "in the sea") == good
    half = {"colour": False, "all": False}  # half is not most
    assert photos.shown(want, 2, ["red", "blue"], "in the sea") == good | half
    wrong = {"count": False, "background": False, "all": False, "number": 3}
    assert photos.shown(want, 3, ["red", "blue", "red"], "in the city") == good | wrong
    none = dict.fromkeys(("object", "count", "colour", "all"), False) | {"number": 0}
    assert photos.shown(want, 0, [], "in the sea") == good | none
    assert photos.shown(WANTS[1], 4, [], "in the city") == good | {"number": 4}


def test_the_nearest_sentence_names_the_value_whatever_the_lengths():
    pictures, texts = torch.eye(9)[[3, 0]] + 0.1, torch.eye(9) * torch.arange(1, 10)[:, None]
    assert photos.closest(pictures, texts, "colour") == ["blue", "red"]
    assert photos.sentence(WANTS[2]) == "a photo of an airplane"
    assert photos.sentence(WANTS[0]) == "a photo of a red cat in the sea"


@pytest.mark.parametrize("attribute", ["colour", "background"])
def test_clip_names_what_renders_show(clip, attribute):
    truth = [world.scene(3, i, uniform=True) for i in range(60)]
    features = clip.images(world.render(truth, 3, range(60)))
    texts = photos.choices(clip, truth, attribute)
    named = [
        photos.closest(f[None], texts[t.object], attribute)[0] for f, t in zip(features, truth, strict=True)
    ]
    assert np.mean([n == getattr(t, attribute) for n, t in zip(named, truth, strict=True)]) > 0.8


def test_examine_in_any_batch(folder, clip, monkeypatch):
    monkeypatch.setattr(photos, "SURE", 0.5)
    detector = photos.Detector(str(folder), clip)
    answers = detector.examine(IMAGES, WANTS)
    monkeypatch.setattr(photos, "BATCH", 2)
    again = detector.examine(IMAGES, WANTS)
    assert set(answers) == {*prompts.ATTRIBUTES, "all", "number"}
    assert all(np.array_equal(answers[k], again[k]) and answers[k].shape == (5,) for k in answers)
    assert all(answers[k].dtype == bool for k in answers if k != "number")
    assert answers["number"].dtype.kind == "i" and answers["number"].min() > 0
    assert np.array_equal(answers["all"], np.logical_and.reduce([answers[a] for a in prompts.ATTRIBUTES]))
    assert answers["object"].all() and answers["all"][1]
    for a in ("count", "colour", "background"):
        assert all(answers[a][[getattr(w, a) is None for w in WANTS]])
    monkeypatch.setattr(photos, "SURE", 1.0)
    none = detector.examine(IMAGES, WANTS)
    assert not none["number"].any() and not none["object"].any() and not none["all"].any()
    assert none["count"].tolist() == [False, True, False, True, True]
    assert none["colour"].tolist() == [False, True, True, False, True]
    assert np.array_equal(none["background"], answers["background"])


def test_a_bad_folder_is_one_sentence(folder, clip, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    # missing, without weights, of another kind
    for name, words in (
        ("nowhere/at all", "no folder"),
        (str(tmp_path), "no weights"),
        (str(hub.ASSETS / "clip"), "cannot be loaded from"),
    ):
        with pytest.raises(hub.ModelError, match=words) as caught:
            photos.Detector(name, clip)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_folder_in_part_is_refused(folder, clip, tmp_path):
    """The library itself would load both, with random weights or with every noun unknown."""
    from safetensors.torch import load_file, save_file

    part = shutil.copytree(folder, tmp_path / "part")
    (part / "tokenizer.json").unlink()
    weights = load_file(folder / "model.safetensors")
    without = {k: v for k, v in weights.items() if "class_head" not in k}
    save_file(without, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(hub.ModelError, match=r"lacks \d+ weights"):
        photos.Detector(str(part), clip)
    shutil.copy(folder / "model.safetensors", part)
    with pytest.raises(hub.ModelError, match="lacks its vocabulary"):
        photos.Detector(str(part), clip)
