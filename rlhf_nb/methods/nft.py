"""DiffusionNFT (Zheng et al., 2025, arXiv 2509.16117): the policy is mixed with the old one into a better and
a worse one, which learn to predict good and bad images. Draws and trains without a likelihood.
"""

from typing import Literal

import torch

from .. import losses
from . import Count, NotNegative, Numbers, Part, Positive
from .awm import DRAWS, FROZEN, after  # noqa: F401


class Knobs(Numbers):
    """Defaults of the authors' code for GenEval and PickScore."""

    beta_nft: Positive = 1.0  # how far the better policy is mixed; smaller is faster, less stable
    form: losses.Form = "self-normalised"
    optimality: Literal["advantage", "reward"] = "advantage"  # r: 1/2 + A / 10, or the reward itself
    kl: NotNegative = 1e-4  # pull to the reference
    lag: Part = 0.5  # most of the old policy that outlives a round
    rise: NotNegative = 0.001  # of the lag, a round
    pairs: Count = 4  # of timestep and noise an image (theirs: every step of the sampler)


def rows(samples, knobs):
    """Every image (by advantage, of groups with different rewards) at `pairs` timesteps, with its r in
    [0, 1].
    """
    entries = {"row": torch.arange(len(samples)), "good": samples.reward}
    if knobs.optimality == "advantage":
        good = 0.5 + losses.advantages(samples.reward, samples.group) / 10
        entries = losses.told_apart(samples, good=good)
    return losses.strata(entries, knobs.pairs)


def loss(nets, batch, knobs):
    """5 / beta (r error of better + (1 - r) error of worse) + KL, 5 as the advantage's clip in their code."""
    noised, beta = losses.Noised(nets, batch), knobs.beta_nft
    policy, old = noised.predicted("policy"), noised.predicted("old")
    step = beta * (policy - old)
    better = noised.error(old + step, knobs.form)
    worse = noised.error(old - step, knobs.form)
    terms = 5 / beta * (batch.good * better + (1 - batch.good) * worse)
    log = {"better": better, "worse": worse, "old": losses.gap(policy, old)}
    if knobs.kl:
        log["reference"] = losses.gap(policy, noised.predicted("reference"))
        terms = terms + knobs.kl * log["reference"]
    return terms, log
