"""V-GRPO (2026, arXiv 2604.23380): GRPO with the self-normalised error of the clean latents in place of
- log p; the images of a prompt share timestep and noise, so that what these do cancels.
"""

from typing import Literal

from pydantic import Field

from .. import losses
from . import awm
from .awm import DRAWS, FROZEN, RECORD, after, loss  # noqa: F401

SHARED = True


class Knobs(awm.Knobs):
    """Defaults of the paper's first stage, one step a round: no clip, no pull, no KL."""

    form: losses.Form = "self-normalised"
    clip: float = Field(0.0, ge=0)
    pull: float = Field(0.0, ge=0)
    kl: float = Field(0.0, ge=0)
    pairs: int = Field(4, ge=1)
    shaping: Literal["tanh", "slas", "none"] = "tanh"  # of the advantage
    tanh_eta: float = Field(3.0, gt=0)  # the advantage saturates there
    slas_gamma: float = Field(0.5, ge=0)  # of the power 1 + gamma; no published value was found


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
    return losses.strata(losses.told_apart(samples, advantage=advantage), knobs.pairs)
