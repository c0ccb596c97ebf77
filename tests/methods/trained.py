"""One small training by a named method, alone or on several processes (`accelerate launch trained.py
FOLDER`).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel

from rlhf_nb import batches, config, diffusion, files, nets, objective, reward, train

OFFLINE = ("reward_weighted", "best_only", "dpo", "kto", "tgo", "conditioned")
ONLINE = ("reward_weighted_rounds", "awm", "nft", "vgrpo", "dgpo", "ddpo", "dpok", "grpo", "draft")
METHODS = (*OFFLINE, *ONLINE)
KNOBS = {
    "kto": {"of": 3},
    "grpo": {"window": 1, "stay": 1},
    **dict.fromkeys(("awm", "nft", "vgrpo", "dgpo"), {"pairs": 2}),
}
PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


def small(pipe):
    """`pipe` with a U-Net of few random weights: a checkpoint is written and read in no time."""
    torch.manual_seed(0)
    one_level = {"block_out_channels": (16,), "down_block_types": ("CrossAttnDownBlock2D",)}
    one_level |= {"up_block_types": ("CrossAttnUpBlock2D",)}
    unet = UNet2DConditionModel.from_config({**pipe.unet.config, **one_level})
    return diffusion.with_unet(pipe, unet.eval().requires_grad_(False))


def material(pipe, pre=True):
    """Random latents without deviation, their rewards, and pre-training pairs, under four prompts."""
    text, rows = diffusion.encode_prompts(pipe, PROMPTS * 2)

    def encoded(prompt, seed):
        mean = torch.randn(len(prompt), 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        return batches.Encoded(
            [{"mean": mean, "std": torch.zeros_like(mean), "text": text, "prompt": prompt}]
        )

    prompt = rows[[0, 0, 0, 1, 1]]
    samples = batches.Samples(
        encoded(prompt, 0), reward=torch.tensor([1.0, 0.5, 0.0, 0.2, 0.7]), prompt=prompt
    )
    empty = diffusion.encode_prompts(pipe, [""])[0][0]
    return batches.Material(samples, encoded(rows[:7], 1) if pre else None, PROMPTS, empty)


def settings(method, **given):
    """Four updates, in two rounds where the method draws."""
    rounds = {"rounds": {"count": 2, "prompts": 2, "images": 3, "steps": 3}}
    usual = {
        "method": method,
        "knobs": KNOBS.get(method, {}),
        "updates": 4,
        "model_batch": 6,
        "pre_batch": 2,
        "ema": 0.0,
        "seed": 3,
        "lr": 1e-3,
    }
    return config.settings("align", **(usual | (rounds if method in ONLINE else {}) | given))


def head(clip):
    """A reward of random weights: what it prefers does not matter here."""
    torch.manual_seed(0)
    return reward.Reward(clip, reward.Head(clip.width, 16).eval())


def rows(pipe, clip, unet, chosen, folder=None, engine=None):
    """The log rows of a training of `unet`, one a step, as it goes."""
    engine = engine or Accelerator(cpu=True)
    made = objective.Objective(chosen, pipe, unet, material(pipe), engine, head(clip), folder)
    plan = train.Plan(steps=chosen.updates, lr=chosen.lr, log_every=1, save_every=1, ema=chosen.ema)
    yield from train.loop(
        unet,
        made.micro_batches(),
        plan,
        folder=folder,
        engine=engine,
        summed=True,
        kept=made.nets.kept,
        blame=made.blame,
    )


def weights(unet):
    """{name: tensor} of a U-Net, copies."""
    return {name: p.detach().clone() for name, p in unet.named_parameters()}


def main(folder):
    """Train by every method and keep the weights."""
    engine = Accelerator(cpu=True)
    pipe, clip = small(diffusion.load("toy/pipeline")), reward.Clip("toy/clip")
    for method in METHODS:
        chosen = settings(method)
        unet = nets.trainable(pipe, chosen)
        log = list(rows(pipe, clip, unet, chosen, folder / method, engine))
        if engine.is_main_process:
            files.write_tensors(weights(unet), folder / f"{method}.safetensors")
            np.save(folder / f"{method}.npy", [row["loss"] for row in log])
        engine.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
