"""The shipped bundle through stock classes, sampling, encoding, and every bad folder in one sentence."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_nb import config, diffusion, hub, nets, reward

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


SCHEDULERS = {  # as folders of Stable Diffusion v1 set them
    "PNDM": {"skip_prk_steps": True, "set_alpha_to_one": False},
    "DDIM": {"clip_sample": False, "set_alpha_to_one": False},
    "DDPM": {"variance_type": "learned_range", "clip_sample": True, "thresholding": True},
    "LMSDiscrete": {"use_karras_sigmas": True},
    "EulerDiscrete": {"timestep_spacing": "trailing", "interpolation_type": "linear"},
    "EulerAncestralDiscrete": {"timestep_spacing": "linspace"},
    "HeunDiscrete": {"use_exponential_sigmas": True},
    "KDPM2Discrete": {},
    "LCM": {"original_inference_steps": 50, "timestep_scaling": 10.0},
    "TCD": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "DPMSolverSDE": {"noise_sampler_seed": 1},  # of a library that is not installed
    "DPMSolverSinglestep": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    "DPMSolverMultistep": {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    "UniPCMultistep": {"solver_type": "bh2", "predict_x0": True, "disable_corrector": []},
    "DEISMultistep": {"algorithm_type": "deis", "solver_type": "logrho"},
    "SASolver": {"predictor_order": 2, "prediction_type": "v_prediction"},
    "FlowMatchEulerDiscrete": {"shift": 3.0},
}


def scheduled(folder, kind, **config):
    """Give a copy of the shipped pipeline another scheduler."""
    shutil.copytree(TOY / "pipeline", folder)
    for file, changes in (
        ("scheduler/scheduler_config.json", {"_class_name": kind, **config}),
        ("model_index.json", {"scheduler": ["diffusers", kind]}),
    ):
        known = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps(known))
    return str(folder)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_folders_sampler_gives_way_to_ours(tmp_path, kind):
    """Whatever a folder draws with, here one seed draws one picture, and training can noise by it."""
    pipe = diffusion.load(scheduled(tmp_path / "pipeline", f"{kind}Scheduler", **SCHEDULERS[kind]))
    one, two = (diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=3, seed=3) for _ in "ab")
    assert np.array_equal(one, two) and one.std() > 10
    ours = pipe.scheduler.config
    assert (ours.algorithm_type, ours.solver_type) == ("dpmsolver++", "midpoint")
    diffusion.forward_process(pipe.scheduler).add_noise(torch.ones(1), torch.ones(1), torch.tensor([999]))


BROKEN = {
    "spacing": {"timestep_spacing": "even"},
    "two spacings": {"use_karras_sigmas": True, "use_beta_sigmas": True},
    "prediction": {"prediction_type": "sample"},
    "no prediction": {"prediction_type": None},
    "words": {"beta_start": "small"},
    "NaN": {"beta_end": float("nan")},
    "few times": {"num_train_timesteps": 10},
    "no schedule": {"beta_schedule": "round"},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_schedule_is_one_sentence(tmp_path, kind):
    folder = scheduled(tmp_path / "pipeline", "DDIMScheduler", **BROKEN[kind])
    with pytest.raises(hub.ModelError, match=re.escape(folder)) as caught:
        diffusion.load(folder)
    assert "\n" not in str(caught.value)


def test_more_steps_than_times_are_one_sentence(pipe, tmp_path):
    with pytest.raises(config.ConfigError, match="no 1000 different times"):
        diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=1000, seed=3)
    options = {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}
    crowded = diffusion.load(scheduled(tmp_path / "pipeline", "DPMSolverMultistepScheduler", **options))
    with pytest.raises(config.ConfigError, match="no 20 different times"):
        diffusion.sample(crowded, PROMPTS, guidance=2.0, steps=20, seed=3)


def test_unet_round_trip(pipe, tmp_path):
    diffusion.save_unet(pipe.unet, tmp_path / "unet")
    back = diffusion.load_unet(tmp_path / "unet", pipe)
    assert all(torch.equal(a, b) for a, b in zip(pipe.unet.parameters(), back.parameters(), strict=True))


def test_a_tuned_unet_that_is_not_finite_is_refused(pipe, tmp_path):
    from safetensors.torch import load_file, save_file

    for settings in (config.settings("align"), config.settings("align", lora=2)):
        folder = tmp_path / str(settings.lora)
        diffusion.save_unet(nets.trainable(pipe, settings), folder)
        [file] = folder.glob("*.safetensors")
        weights = load_file(file)
        next(iter(weights.values())).fill_(torch.nan)
        save_file(weights, file, {"format": "pt"})
        with pytest.raises(hub.ModelError, match="not finite"):
            diffusion.load_unet(folder, pipe)


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
