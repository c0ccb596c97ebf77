"""DGPO (Luo et al., 2025, arXiv 2510.08425): Diffusion-DPO of whole groups, the good part against the bad
part. All images of a group share timestep and noise.
"""

import math

from pydantic import Field

from .. import losses
from . import Numbers

FROZEN = ("old", "reference")
DRAWS = "old"
RECORD = False
SHARED = True


class Knobs(Numbers):
    """Defaults of the authors' code."""

    beta_dgpo: float = Field(100.0, ge=0)  # beta of the group's margin; theirs: 10 to 100
    clip: float = Field(1e-3, gt=0)  # trust region of exp(d_old - d); theirs: 1e-5 to 1e-2
    kl: float = Field(1e-3, ge=0)  # pull to the reference
    lag: float = Field(0.3, ge=0, lt=1)  # most of the old policy that outlives a round
    rise: float = Field(0.001, ge=0)  # of the lag, a round
    pairs: int = Field(4, ge=1)  # of timestep and noise an image
    low: float = Field(0.4, ge=0, lt=1)  # share of the timesteps, the least noisy ones, that is left out


def rows(samples, knobs):
    """Whole groups with different rewards, at `pairs` timesteps; advantages unclipped, so that a group's sum
    to nothing.
    """
    advantage = losses.advantages(samples.reward, samples.group, most=math.inf)
    return losses.strata(losses.told_apart(samples, advantage=advantage), knobs.pairs, knobs.low)


def loss(nets, batch, knobs):
    """sigmoid(S) A d + KL, with d the error, S = beta times the group's mean of A (d - d_ref), held fixed.

    d has no gradient where exp(d_old - d) has left 1 +- clip to the side that A asks for.
    """
    noised = losses.Noised(nets, batch)
    policy, old = noised.predicted("policy"), noised.predicted("old")
    reference = noised.predicted("reference")
    error, away = noised.error(policy), losses.gap(policy, reference)
    rise = (batch.advantage * (error - noised.error(reference))).detach()
    margin = knobs.beta_dgpo * rise.view(-1, batch.unit).mean(1)
    margin = margin.repeat_interleave(batch.unit)
    ratio = (noised.error(old) - error).exp().detach()
    within = (ratio - 1) * batch.advantage.sign() <= knobs.clip
    terms = margin.sigmoid() * batch.advantage * error * within + knobs.kl * away
    return terms, {"ratio": ratio, "margin": margin, "reference": away}


def after(nets, knobs, number):
    """The old policy is a fast average."""
    nets.follow(min(knobs.lag, knobs.rise * number))
