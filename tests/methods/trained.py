"""One small training by a named method, alone or on several processes (`accelerate launch trained.py
FOLDER`).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from rlhf_nb import batches, config, diffusion, files, nets, objective, reward, train

ONLINE = ("reward_weighted_rounds", "ddpo", "draft")
METHODS = ("reward_weighted", *ONLINE)
PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


def material(pipe, pre=True):
    """Random latents without deviation, their rewards, and pre-training pairs, under four prompts."""
    text, rows = diffusion.encode_prompts(pipe, PROMPTS * 2)

    def encoded(count, seed):
        mean = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        return batches.Encoded(
            [{"mean": mean, "std": torch.zeros_like(mean), "text": text, "prompt": rows[:count]}]
        )

    samples = batches.Samples(encoded(5, 0), reward=torch.tensor([1.0, 0.5, 0.0, 0.2, 0.7]))
    empty = diffusion.encode_prompts(pipe, [""])[0][0]
    return batches.Material(samples, encoded(7, 1) if pre else None, PROMPTS, empty)


def settings(method, **given):
    """Four updates, in two rounds where the method draws."""
    rounds = {"rounds": {"count": 2, "prompts": 2, "images": 3, "steps": 3}}
    usual = {
        "method": method,
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
    pipe, clip = diffusion.load("toy/pipeline"), reward.Clip("toy/clip")
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
