"""Diffusion-DPO (Wallace et al., 2023, arXiv 2311.12908): of two images of one prompt the better one's error
is to fall below the reference's, the worse one's to rise. A pair shares timestep and noise.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field

from .. import losses
from . import NotNegative, Numbers, Positive

FROZEN = ("reference",)
SHARED = True


class Knobs(Numbers):
    beta_dpo: Positive = 500.0  # theirs 5000; the error is a mean, so the size of latents matters
    clearest: float = Field(0.5, ge=0.01, le=1)  # share of the pairs that is used, those of the widest gap
    anchor: NotNegative = 0.0  # weight of the better one's error itself, against a blow-up of both


def rows(samples, knobs):
    """Pairs of images of one prompt, the better one first; equal ones make no pair."""
    by_prompt = samples.prompt.argsort(stable=True).split(samples.prompt.bincount().tolist())
    first, second = torch.cat([torch.combinations(rows) for rows in by_prompt]).T
    gap = samples.reward[first] - samples.reward[second]
    better, worse = torch.where(gap > 0, first, second), torch.where(gap > 0, second, first)
    used = gap.abs().argsort(descending=True, stable=True)[: math.ceil((gap != 0).sum() * knobs.clearest)]
    pair = torch.arange(len(used)).repeat_interleave(2)
    return {"row": torch.stack([better[used], worse[used]], 1).flatten(), "group": pair}


def loss(nets, batch, knobs):
    """-log sigmoid(-beta / 2 ((d - d_ref) of the better - (d - d_ref) of the worse)), d the error."""
    noised = losses.Noised(nets, batch)
    error = noised.error_of("policy")
    gained = (error - noised.error_of("reference")).view(-1, 2)
    logit = -knobs.beta_dpo / 2 * (gained[:, 0] - gained[:, 1])
    terms = -F.logsigmoid(logit) + knobs.anchor * error.view(-1, 2)[:, 0]
    log = {"logit": logit.abs(), "right": (logit > 0).float()}
    log |= {"better": gained[:, 0], "worse": gained[:, 1]}
    log = {name: value.repeat_interleave(2) for name, value in log.items()}
    return terms.repeat_interleave(2), log
