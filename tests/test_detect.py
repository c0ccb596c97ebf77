"""The detector: its decisions by hand, both families through the stock format, and every bad folder in one sentence."""

import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_owl

from rlhf_nb import config, detect, diffusion, prompts, reward, world

WANTS = [prompts.Attributes("cat", 2, "red", "in the sea"), prompts.Attributes("star"), prompts.Attributes("airplane", count=3),
         prompts.Attributes("flag", colour="blue"), prompts.Attributes("heart", background="on the moon")]
IMAGES = world.render(WANTS, 5, range(5))


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture(scope="module", params=["OwlViT", "Owlv2"])
def folder(request, tmp_path_factory):
    return tiny_owl(request.param, tmp_path_factory.mktemp(request.param))


def test_of_two_overlapping_boxes_the_surer_survives():
    boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])  # the first two share 0.8
    scores = torch.tensor([0.3, 0.9, 0.5])
    assert detect.survivors(boxes, scores, 0.5).tolist() == [1, 2]
    assert detect.survivors(boxes, scores, 0.85).tolist() == [1, 2, 0]
    assert detect.survivors(boxes[:0], scores[:0], 0.5).shape == (0,)
    chain = torch.tensor([[0., 0, 10, 1], [3, 0, 13, 1], [6, 0, 16, 1]])  # the middle one crowds both, but it is gone when the last is asked
    assert detect.survivors(chain, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_crops_have_a_margin_and_stay_inside():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:50] = 255
    boxes = torch.tensor([[30., 10, 50, 20], [-50, -50, 200, 200], [59.99, 39.99, 60.01, 40.01], [70, 50, 90, 60]])
    tight, whole, corner, beyond = detect.crops(image, boxes, 24)
    assert tight[12, 12].min() > 250 and tight[0].max() < 128 and (tight > 128).mean() == pytest.approx(1 / 1.2 ** 2, abs=0.01)
    assert whole.mean() == pytest.approx(image.mean(), abs=2) and not corner.any() and not beyond.any()
    assert np.array_equal(detect.crops(IMAGES[0], torch.tensor([[0., 0, 64, 64]]), 64)[0], IMAGES[0])


def test_decisions_by_hand():
    want = WANTS[0]
    good = {"object": True, "count": True, "colour": True, "background": True}
    assert detect.shown(want, 2, ["red", "red"], "in the sea") == good
    assert detect.shown(want, 2, ["red", "blue"], "in the sea") == good | {"colour": False}  # half is not most
    assert detect.shown(want, 3, ["red", "blue", "red"], "in the city") == good | {"count": False, "background": False}
    assert detect.shown(want, 0, [], "in the sea") == {"object": False, "count": False, "colour": False, "background": True}
    assert detect.shown(WANTS[1], 4, [], "in the city") == good
    pictures, texts = torch.eye(9)[[3, 0]] + 0.1, torch.eye(9) * torch.arange(1, 10)[:, None]  # lengths must not matter
    assert detect.closest(pictures, texts, "colour") == ["blue", "red"]
    assert detect.sentence(WANTS[2]) == "a photo of an airplane" and detect.sentence(want) == "a photo of a red cat in the sea"


@pytest.mark.parametrize("attribute", detect.VALUES)
def test_clip_names_what_renders_show(clip, attribute):
    truth = [world.scene(3, i, uniform=True) for i in range(60)]
    features, texts = clip.images(world.render(truth, 3, range(60))), detect.choices(clip, [t.object for t in truth], attribute)
    named = [detect.closest(f[None], texts[t.object], attribute)[0] for f, t in zip(features, truth, strict=True)]
    assert np.mean([n == getattr(t, attribute) for n, t in zip(named, truth, strict=True)]) > 0.8


def test_examine_in_any_batch(folder, clip):
    detector = detect.Detector(str(folder), clip, threshold=0.5)
    one, all_ = (detector.examine(IMAGES, WANTS, batch=b) for b in (2, 5))
    assert set(one) == {*prompts.ATTRIBUTES, "all", "number"} and all(np.array_equal(one[k], all_[k]) and one[k].shape == (5,) for k in one)
    assert all(one[k].dtype == bool for k in one if k != "number") and one["number"].dtype.kind == "i" and one["number"].min() > 0
    assert np.array_equal(one["all"], np.logical_and.reduce([one[a] for a in prompts.ATTRIBUTES])) and one["object"].all() and one["all"][1]
    assert all(one[a][i] for i, w in enumerate(WANTS) for a in ("count", "colour", "background") if getattr(w, a) is None)
    none = detect.Detector(str(folder), clip, threshold=1.0).examine(IMAGES, WANTS)
    assert not none["number"].any() and not none["object"].any() and not none["all"].any() and none["count"].tolist() == [False, True, False, True, True]
    assert np.array_equal(none["background"], one["background"]) and none["colour"].tolist() == [False, True, True, False, True]


def test_a_bad_folder_is_one_sentence(folder, clip, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for name in ("nowhere/at all", str(tmp_path), str(config.ASSETS / "toy/clip")):  # missing, without weights, of another kind
        with pytest.raises(diffusion.ModelError, match="cannot be loaded from") as caught:
            detect.Detector(name, clip)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_folder_in_part_is_refused(folder, clip, tmp_path):
    """The library itself would load both, with random weights or with every noun unknown."""
    from safetensors.torch import load_file, save_file

    part = shutil.copytree(folder, tmp_path / "part")
    (part / "tokenizer.json").unlink()
    save_file({k: v for k, v in load_file(folder / "model.safetensors").items() if "class_head" not in k}, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(diffusion.ModelError, match=r"lacks \d+ weights"):
        detect.Detector(str(part), clip)
    shutil.copy(folder / "model.safetensors", part)
    with pytest.raises(diffusion.ModelError, match="lacks its vocabulary"):
        detect.Detector(str(part), clip)
