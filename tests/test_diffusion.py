"""The shipped bundle through stock classes, sampling, encoding, and every bad folder in one sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_nb import diffusion, hub, reward

TOY = hub.ASSETS
PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


def test_stock_classes_load_the_bundle():
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel

    pipe = StableDiffusionPipeline.from_pretrained(TOY / "pipeline", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        "Two green stars in the sea.", num_inference_steps=3, generator=torch.Generator().manual_seed(0)
    ).images[0]
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
    assert (
        len(frames) == 5
        and np.abs(
            frames[-1].astype(int) - diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
        ).max()
        <= 2
    )


def test_prompts_are_encoded_once(pipe):
    table, rows = diffusion.encode_prompts(pipe, [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert len(table) == 2 and rows[0] == rows[2] != rows[1]


def test_unet_round_trip(pipe, tmp_path):
    diffusion.save_unet(pipe.unet, tmp_path / "unet")
    back = diffusion.load_unet(tmp_path / "unet", pipe)
    assert all(torch.equal(a, b) for a, b in zip(pipe.unet.parameters(), back.parameters(), strict=True))


def test_a_unet_of_another_model_is_refused(pipe, tmp_path):
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=12,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(tmp_path / "unet")
    with pytest.raises(hub.ModelError, match="cross_attention_dim 12"):
        diffusion.load_unet(tmp_path / "unet", pipe)


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ],
)
def test_truncated_weights_are_one_sentence(tmp_path, file):
    folder = tmp_path / "pipeline"
    shutil.copytree(TOY / "pipeline", folder)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(hub.ModelError, match="restore the folder"):
        diffusion.load(str(folder))


@pytest.mark.parametrize("part", ["unet", "tokenizer", "model_index.json"])
def test_missing_parts_are_named(tmp_path, part):
    folder = tmp_path / "pipeline"
    shutil.copytree(TOY / "pipeline", folder)
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    with pytest.raises(hub.ModelError, match=part):
        diffusion.load(str(folder))


def test_a_hub_name_that_cannot_be_had_is_one_sentence():
    with pytest.raises(hub.ModelError, match="nobody/nothing"):
        diffusion.load("nobody/nothing")


@pytest.mark.parametrize("part", ["clip", "pipeline/text_encoder", "pipeline/unet", "pipeline/vae"])
def test_a_model_that_lacks_a_weight_is_refused(tmp_path, part):
    """The libraries would leave it random, and everything would run."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(TOY / part.split("/")[0], tmp_path / "model")
    file = next((tmp_path / "model" / Path(part).relative_to(part.split("/")[0])).glob("*.safetensors"))
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(hub.ModelError, match="lacks 1 weights"):
        (reward.Clip if part == "clip" else diffusion.load)(str(tmp_path / "model"))
