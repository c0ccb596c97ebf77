"""The shipped bundle through stock classes, sampling, encoding, and every bad folder in one sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_images

from rlhf_nb import config, diffusion, judge, reward, runs

TOY = config.ASSETS / "toy"
PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


def test_stock_classes_load_the_bundle():
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    pipe = StableDiffusionPipeline.from_pretrained(TOY / "pipeline", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("Two green stars in the sea.", num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64) and np.asarray(image).std() > 10
    assert CLIPModel.from_pretrained(TOY / "clip").config.projection_dim == 96
    assert sum(p.stat().st_size for p in TOY.rglob("*") if p.is_file()) <= 40e6
    assert not [p for p in TOY.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_a_sample_does_not_depend_on_its_batch(pipe):
    one = diffusion.sample(pipe, PROMPTS, guidance=3.0, steps=4, seed=7, batch=4)
    two = diffusion.sample(pipe, PROMPTS[2:], guidance=3.0, steps=4, seed=7, indices=[2, 3], batch=1)
    assert np.abs(one[2:].astype(int) - two).max() <= 2  # rounding of batched convolutions
    assert not np.array_equal(one, diffusion.sample(pipe, PROMPTS, guidance=3.0, steps=4, seed=8))


def test_sampling_equals_the_stock_pipeline(pipe):
    noise = torch.stack([diffusion.noise_of(pipe, 3, i) for i in range(4)])
    stock = pipe(PROMPTS, guidance_scale=2.0, num_inference_steps=4, latents=noise, output_type="np").images
    ours = diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
    assert np.abs(stock * 255 - ours).max() <= 2


def test_trajectory_ends_where_sampling_does(pipe):
    frames = diffusion.trajectory(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
    assert len(frames) == 5 and np.abs(frames[-1].astype(int) - diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)).max() <= 2


def test_prompts_are_encoded_once(pipe):
    table, rows = diffusion.encode_prompts(pipe, [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert len(table) == 2 and rows[0] == rows[2] != rows[1]


def test_unet_round_trip(pipe, tmp_path):
    diffusion.save_unet(pipe.unet, tmp_path / "unet")
    back = diffusion.load_unet(tmp_path / "unet", pipe)
    assert all(torch.equal(a, b) for a, b in zip(pipe.unet.parameters(), back.parameters(), strict=True))


def test_a_unet_of_another_model_is_refused(pipe, tmp_path):
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=2, cross_attention_dim=12, layers_per_block=1,
                         down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")
                         ).save_pretrained(tmp_path / "unet")
    with pytest.raises(diffusion.ModelError, match="cross_attention_dim 12"):
        diffusion.load_unet(tmp_path / "unet", pipe)


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_truncated_weights_are_one_sentence(tmp_path, file):
    folder = tmp_path / "pipeline"
    shutil.copytree(TOY / "pipeline", folder)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(diffusion.ModelError, match="restore the folder"):
        diffusion.load(str(folder))


@pytest.mark.parametrize("part", ["unet", "tokenizer", "model_index.json"])
def test_missing_parts_are_named(tmp_path, part):
    folder = tmp_path / "pipeline"
    shutil.copytree(TOY / "pipeline", folder)
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    with pytest.raises(diffusion.ModelError, match=part):
        diffusion.load(str(folder))


def test_a_hub_name_that_cannot_be_had_is_one_sentence():
    with pytest.raises(diffusion.ModelError, match="nobody/nothing"):
        diffusion.load("nobody/nothing")


def test_damaged_judge_and_reward(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(diffusion.ModelError, match="judge"):
        judge.load(str(tmp_path))
    with pytest.raises(diffusion.ModelError, match="04_reward"):
        reward.load(tmp_path, reward.Clip("toy/clip"))


@pytest.mark.parametrize("part", ["clip", "pipeline/text_encoder", "pipeline/unet", "pipeline/vae"])
def test_a_model_that_lacks_a_weight_is_refused(tmp_path, part):
    """The libraries would leave it random, and everything would run."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(TOY / part.split("/")[0], tmp_path / "model")
    file = next((tmp_path / "model" / Path(part).relative_to(part.split("/")[0])).glob("*.safetensors"))
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(diffusion.ModelError, match="lacks 1 weights"):
        (reward.Clip if part == "clip" else diffusion.load)(str(tmp_path / "model"))


def test_reward_saves_and_scores_the_same(tmp_path):
    clip = reward.Clip("toy/clip")
    torch.manual_seed(0)
    ours = reward.Reward(clip, reward.Head(clip.width).eval())
    images = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    ours.save(tmp_path, {"note": "test"})
    for score in (ours, reward.load(tmp_path, clip), reward.similarity(clip)):
        values = score(images, PROMPTS)
        assert values.shape == (4,) and (0 <= values).all() and (values <= 1).all()
    assert np.array_equal(ours(images, PROMPTS), reward.load(tmp_path, clip)(images, PROMPTS))


def test_head_is_a_layer_on_the_concatenation():
    torch.manual_seed(0)
    head = reward.Head(6, 16)
    torch.manual_seed(0)
    whole = torch.nn.Linear(12, 16)
    image, text = torch.randn(3, 6), torch.randn(3, 5, 6)
    both = torch.cat((image[:, None].expand(-1, 5, -1), text), -1)
    assert torch.allclose(head(image, text), head.out(whole(both).relu()).sigmoid().squeeze(-1), atol=1e-6)


def test_features_are_kept_by_content(tmp_path):
    clip = reward.Clip("toy/clip")
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    save_images(tmp_path / "a", images, {"prompt": ["x"] * 5})
    first = clip.folder(runs.Images(tmp_path / "a"), tmp_path / "cache")
    assert torch.equal(first, clip.images(images)) and torch.equal(first, clip.folder(runs.Images(tmp_path / "a"), tmp_path / "cache"))
    save_images(tmp_path / "a", images[::-1], {"prompt": ["x"] * 5})
    assert torch.equal(clip.folder(runs.Images(tmp_path / "a"), tmp_path / "cache"), clip.images(images[::-1]))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_one_signature_for_every_reward(tmp_path):
    """A preference scorer is a folder of CLIP's architecture; it must agree with the stock model's own similarity."""
    from transformers import CLIPModel

    clip = reward.Clip("toy/clip")
    reward.Reward(clip, reward.Head(clip.width, 8).eval()).save(tmp_path / "ours", {})
    with torch.no_grad():
        clip.model.text_projection.weight.mul_(-1)  # a scorer with a mind of its own
    clip.model.save_pretrained(tmp_path / "scorer")
    clip.tokenizer.save_pretrained(tmp_path / "scorer")
    clip.processor.save_pretrained(tmp_path / "scorer")
    images = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    shipped = reward.Clip("toy/clip")
    learnt, same, other = (reward.scorer(n, tmp_path / "ours", shipped)(images, PROMPTS) for n in ("learnt", "similarity", str(tmp_path / "scorer")))
    assert learnt.shape == same.shape == other.shape == (4,) and np.allclose(same, 1 - other, atol=1e-5)
    stock = CLIPModel.from_pretrained(tmp_path / "scorer").eval()
    inputs = clip.tokenizer(PROMPTS, padding=True, return_tensors="pt") | {"pixel_values": clip.processor(list(images), return_tensors="pt").pixel_values}
    with torch.no_grad():
        cosine = (stock(**inputs).logits_per_image / stock.logit_scale.exp()).diagonal()
    assert np.allclose(other, 0.5 + 0.5 * cosine.numpy(), atol=1e-4)
