"""Adapters and whole U-Nets: what is trained, what is saved, and that stock diffusers reads it."""

import re

import numpy as np
import pytest
import torch
from test_objective import PROMPTS, tuned

from rlhf_nb import config, diffusion, hub, nets


def drawn_alike(pipe, stock, unet):
    """The stock pipeline draws what ours does with `unet`, which is not what the base model draws."""
    from diffusers import DPMSolverMultistepScheduler

    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    noise = torch.stack([diffusion.noise_of(pipe, 3, i) for i in range(4)])
    options = {"guidance_scale": 2.0, "num_inference_steps": 4, "output_type": "np"}
    theirs = stock(PROMPTS, latents=noise, **options).images * 255
    plain = diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
    ours = diffusion.sample(pipe, PROMPTS, unet=unet, guidance=2.0, steps=4, seed=3)
    assert np.abs(theirs - ours).max() <= 2 and np.abs(plain.astype(int) - ours).max() > 2


WRONG = ["nothing", "", "q", "0", "norm1", "mid_block", "*"]


@pytest.mark.parametrize("target", WRONG)
def test_a_layer_that_takes_no_adapter_is_one_sentence(pipe, target):
    """Beside a right one, too, where the library would leave it out in silence."""
    settings = config.settings("align", lora=2, lora_targets=["to_q", target])
    with pytest.raises(config.ConfigError, match=rf"{re.escape(repr(target))}.*it has conv.*to_out\.0, to_q"):
        nets.trainable(pipe, settings)


@pytest.mark.parametrize("target", ["conv1", "net.0.proj", "attn2.to_out.0"])
def test_any_layer_of_numbers_takes_adapters(pipe, target):
    unet = nets.trainable(pipe, config.settings("align", lora=2, lora_targets=[target]))
    assert {
        n.partition(".lora")[0].endswith(target) for n, p in unet.named_parameters() if p.requires_grad
    } == {True}


def test_adapters_load_in_stock_diffusers(pipe, tmp_path):
    """LoRA: only adapters learn, and the stock pipeline with load_lora_weights draws what ours does."""
    from diffusers import StableDiffusionPipeline

    before = {
        n: p.clone() for n, p in nets.trainable(pipe, config.settings("align", lora=4)).named_parameters()
    }
    unet, _ = tuned(pipe, lora=4, steps=8)
    changed = {n for n, p in unet.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all("lora" in n for n in changed)
    diffusion.save_unet(unet, tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(hub.place("toy/pipeline"), safety_checker=None)
    stock.load_lora_weights(tmp_path)
    drawn_alike(pipe, stock, diffusion.load_unet(tmp_path, pipe))


def test_whole_models_load_in_stock_diffusers(pipe, tmp_path):
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    unet, _ = tuned(pipe)
    diffusion.save_unet(unet, tmp_path)
    theirs = UNet2DConditionModel.from_pretrained(tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(
        hub.place("toy/pipeline"), safety_checker=None, unet=theirs
    )
    drawn_alike(pipe, stock, diffusion.load_unet(tmp_path, pipe))
