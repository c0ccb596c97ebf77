"""DGPO (Luo et al., 2025, arXiv 2510.08425): Diffusion-DPO of whole groups, the good part against the bad
part. All images of a group share timestep and noise.
"""

import math

from .. import losses
from . import Count, NotNegative, Numbers, Part, Positive
from .awm import DRAWS, FROZEN, after  # noqa: F401

SHARED = True


class Knobs(Numbers):
    """Defaults of the authors' code."""

    beta_dgpo: NotNegative = 100.0  # beta of the group's margin; theirs: 10 to 100
    clip: Positive = 1e-3  # trust region of exp(d_old - d); theirs: 1e-5 to 1e-2
    kl: NotNegative = 1e-3  # pull to the reference
    lag: Part = 0.3  # most of the old policy that outlives a round
    rise: NotNegative = 0.001  # of the lag, a round
    pairs: Count = 4  # of timestep and noise an image
    low: Part = 0.4  # share of the timesteps, the least noisy ones, that is left out


def rows(samples, knobs):
    """Whole groups with different rewards, at `pairs` timesteps; advantages unclipped, so that a group's sum
    to nothing.
    """
    advantage = losses.advantages(samples.reward, samples.group, most=math.inf)
    entries = losses.told_apart(samples, advantage=advantage, group=samples.group)
    return losses.strata(entries, knobs.pairs, knobs.low)


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
