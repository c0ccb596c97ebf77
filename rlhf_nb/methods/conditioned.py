"""Reward conditioning with guidance, CFGRL (Frans et al., 2025, arXiv 2505.23458) on images: the U-Net learns
to denoise good images under one label, bad ones under another; `draw` asks for good, and for more of it.

The label is carried by the text's first token, which is the same for every prompt: moved one way for good,
the other way for bad, as it is for none. So a drawing that knows no labels gets none.
"""

import torch

from .. import diffusion, losses
from . import NotNegative, Numbers, Part, Positive, Share


class Knobs(Numbers):
    threshold: Share = 0.5  # an image is good from this reward on
    unlabelled: Part = 0.1  # chance of no label, as the source's
    token: Positive = 1.0  # deviation of the label's token; text states have about 1
    w: NotNegative = 1.5  # guidance by the label in `draw`: 0 none, 1 as learnt, more goes beyond it


def labelled(text, side, knobs):
    """Text states (B, L, D) with the label `side`: 1 good, -1 bad, 0 none; (B,) or a number."""
    way = torch.randn(text.shape[2], generator=torch.Generator().manual_seed(0)).to(text)
    side = torch.as_tensor(side).to(text).view(-1, 1, 1)
    return torch.cat([text[:, :1] + side * knobs.token * way, text[:, 1:]], 1)


def rows(samples, knobs):
    """Every image with its label, and without."""
    side = torch.where(samples.reward >= knobs.threshold, 1.0, -1.0)
    chance = torch.tensor([1 - knobs.unlabelled, knobs.unlabelled]).repeat_interleave(len(side))
    row = torch.arange(len(side)).repeat(2)
    return {"row": row, "side": torch.cat([side, torch.zeros_like(side)]), "chance": chance}


def loss(nets, batch, knobs):
    """The denoising error under text and label."""
    batch.text = labelled(batch.text, batch.side, knobs)
    error = losses.Noised(nets, batch).error_of("policy")
    return error, {"error": error}


def draw(pipe, prompts, knobs, *, unet, **options):
    """Images by none + w (good - none), under any guidance by text; options as in `diffusion.sample`."""

    def mix(_, given, named, none):
        text = labelled(named["encoder_hidden_states"], 1, knobs)
        good = unet.forward(*given, **named | {"encoder_hidden_states": text})[0]
        return (torch.lerp(none[0], good, knobs.w),)  # exact at 0 and 1

    with unet.register_forward_hook(mix, with_kwargs=True):
        return diffusion.sample(pipe, prompts, unet=unet, **options)
