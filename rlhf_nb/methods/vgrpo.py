"""V-GRPO (2026, arXiv 2604.23380): GRPO with the self-normalised error of the clean latents in place of
- log p; the images of a prompt share timestep and noise, so that what these do cancels.
"""

from typing import Literal

from .. import losses
from . import Count, NotNegative, Positive, awm
from .awm import DRAWS, FROZEN, after, loss  # noqa: F401

SHARED = True


class Knobs(awm.Knobs):
    """Defaults of the paper's first stage, one step a round: no clip, no pull, no KL."""

    form: losses.Form = "self-normalised"
    clip: NotNegative = 0.0
    pull: NotNegative = 0.0
    kl: NotNegative = 0.0
    pairs: Count = 4
    shaping: Literal["tanh", "slas", "none"] = "tanh"  # of the advantage
    tanh_eta: Positive = 3.0  # the advantage saturates there
    slas_gamma: NotNegative = 0.5  # of the power 1 + gamma; no published value was found


def rows(samples, knobs):
    """Whole groups with different rewards, at `pairs` timesteps, with shaped advantages.

    "tanh": eta tanh(A / eta). "slas": sign(A) |A|^(1 + gamma) over its deviation in the batch (super-linear
    advantage shaping, arXiv 2605.10937).
    """
    advantage = losses.advantages(samples.reward, samples.group)
    if knobs.shaping == "tanh":
        advantage = knobs.tanh_eta * (advantage / knobs.tanh_eta).tanh()
    if knobs.shaping == "slas":
        advantage = losses.super_linear(advantage, knobs.slas_gamma)
    entries = losses.told_apart(samples, advantage=advantage, group=samples.group)
    return losses.strata(entries, knobs.pairs)
