"""Mixing of the base and a tuned model at every step (DeRaDiff, 2026; MSDDA, arXiv 2604.14379): what predicts
is base + lam (tuned - base).

The mean of one step's Gaussian moves from the base's to the tuned model's, so lam sweeps the frontier between
drift and reward without training. It costs both models' passes.
"""

import torch

from ... import diffusion
from .. import NotNegative, Numbers


class Knobs(Numbers):
    lam: NotNegative = 0.5  # 0 is the base, 1 the tuned model, more goes beyond it


def draw(pipe, prompts, knobs, *, unet, **options):
    """Images by the pipeline's own U-Net and the tuned `unet`; options as in `diffusion.sample`."""

    def mix(_, given, named, tuned):
        base = pipe.unet.forward(*given, **named)[0]
        return (torch.lerp(base, tuned[0], knobs.lam),)  # exact at 0 and 1

    with unet.register_forward_hook(mix, with_kwargs=True):
        return diffusion.sample(pipe, prompts, unet=unet, **options)
