"""Adapters and whole U-Nets: what is trained, what is saved, and that stock diffusers reads it."""

import numpy as np
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
