"""Diffusion-KTO (Li et al., 2024, arXiv 2404.04465): good or bad, one image at a time and no pairs; how much
likelier than under the reference it becomes is judged by a sigmoid around the mean of its group.
"""

import torch
from pydantic import Field

from .. import losses
from . import NotNegative, Numbers, Positive, Share

FROZEN = ("reference",)


class Knobs(Numbers):
    beta_kto: Positive = 500.0  # theirs 1000; see dpo
    threshold: Share = 0.5  # an image is good from this reward on
    bad: NotNegative = 1.0  # weight of a bad image; theirs 1
    of: int = Field(4, ge=1, le=1000)  # images whose mean is kappa (theirs: the batch)


def rows(samples, knobs):
    """Every image, good (1) or bad (-1), in groups of `of` at random."""
    row = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    row = row[: len(row) // knobs.of * knobs.of]
    side = torch.where(samples.reward[row] >= knobs.threshold, 1.0, -1.0)
    return {"row": row, "side": side, "group": torch.arange(len(row)) // knobs.of}


def loss(nets, batch, knobs):
    """1 - sigmoid(y beta (d_ref - d - kappa)), d the error, y the side; kappa = max(0, the group's mean)."""
    noised = losses.Noised(nets, batch)
    gained = noised.error_of("reference") - noised.error_of("policy")
    kappa = gained.detach().view(-1, batch.unit).mean(1).clamp(min=0)
    kappa = kappa.repeat_interleave(batch.unit)
    logit = batch.side * knobs.beta_kto * (gained - kappa)
    terms = (1 - logit.sigmoid()) * torch.where(batch.side > 0, 1, knobs.bad)
    return terms, {"logit": logit.abs(), "right": (logit > 0).float(), "kappa": kappa}
