"""Reward-weighted likelihood, Eq. 2 of arXiv 2302.12192: the mean of r^k times the denoising error over
images of the model, and beta times its mean over pre-training pairs.
"""

from typing import Literal

import torch
from pydantic import Field

from .. import losses
from . import NotNegative, Numbers


class Knobs(Numbers):
    beta: NotNegative = 0.06  # weight of the pre-training term
    power: float = Field(3.0, ge=0, le=100)  # k: an image weighs r^k (the paper: 1)
    baseline: float = Field(0.0, ge=0, le=100)  # share of the mean weight that is taken off every weight
    rows_by: Literal["weight", "uniform"] = "weight"  # images come by weight, or evenly and are weighed
    min_snr: NotNegative = 5.0  # gamma of Min-SNR weighting, 0 for none


def rows(samples, knobs):
    """Every image with its weight; by "weight" the expectation is that of "uniform", the variance smaller."""
    weight = losses.weights(samples.reward, knobs.power, knobs.baseline)
    row = torch.arange(len(samples))
    if knobs.rows_by == "uniform":
        return {"row": row, "weight": weight}
    chance = weight.abs()
    return {"row": row, "weight": weight.sign() * chance.mean(), "chance": chance}


def loss(nets, batch, knobs):
    """Eq. 2's terms; a bad picture (r = 0) adds nothing."""
    error = losses.denoising(
        nets.policy,
        nets.scheduler,
        batch.latents,
        batch.text,
        batch.timesteps,
        batch.noise,
        knobs.min_snr,
    )
    weight = torch.where(batch.is_model, batch.weight, knobs.beta)
    return weight * error, {"error": error}
