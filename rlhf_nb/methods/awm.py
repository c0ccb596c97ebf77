"""Advantage-weighted matching (Xue et al., 2025, arXiv 2509.25050): the policy gradient with the denoising
error in place of - log p, so that the sampler does not matter and no step of it is kept.
"""

from .. import losses
from . import Count, NotNegative, Numbers, Part

FROZEN = ("old", "reference")
DRAWS = "old"  # the policy at the round's start, where it does not lag


class Knobs(Numbers):
    """Defaults of the authors' code for GenEval, but for `lag` (theirs, of an average of its own: 0.3)."""

    form: losses.Form = "huber"
    clip: NotNegative = 1.0  # of the ratio, 0 for none; nothing at one step a round
    pull: NotNegative = 1.0  # to the old policy; with `clip` 0 too, the old one is not asked
    kl: NotNegative = 1e-3  # pull to the reference
    lag: Part = 0.0  # most of the old policy that outlives a round
    rise: NotNegative = 0.001  # of the lag, a round
    pairs: Count = 6  # of timestep and noise an image


def rows(samples, knobs):
    """Every image of a group with different rewards, at `pairs` timesteps, with its advantage in [-1, 1]."""
    advantage = losses.advantages(samples.reward, samples.group) / 5
    return losses.strata(losses.told_apart(samples, advantage=advantage), knobs.pairs)


def loss(nets, batch, knobs):
    """max(-A ratio, -A clipped ratio) with ratio = exp(error of old - error of policy), plus both pulls."""
    noised = losses.Noised(nets, batch)
    policy = noised.predicted("policy")
    old = noised.predicted("old") if knobs.clip or knobs.pull else policy.detach()
    ratio = (noised.error(old, knobs.form) - noised.error(policy, knobs.form)).exp()
    terms = losses.clipped(batch.advantage, ratio, knobs.clip or float("inf"))
    log = {"ratio": ratio, "old": losses.gap(policy, old)}
    terms = terms + knobs.pull * log["old"]
    if knobs.kl:
        log["reference"] = losses.gap(policy, noised.predicted("reference"))
        terms = terms + knobs.kl * log["reference"]
    return terms, log


def after(nets, knobs, number):
    """The old policy is the policy, or an average of it that lags more and more."""
    nets.follow(min(knobs.lag, knobs.rise * number))
