"""DPOK (Fan et al., 2023, arXiv 2305.16381): the policy gradient of the sampler's steps, less a divergence
from the reference model: - A ratio, held within 1 +- clip, + kl KL.

The advantage is over the group's mean and the batch's deviation, in place of a learnt value of every state.
The clip is the code's: nothing beyond it has a gradient, be it for better or worse.
"""

from typing import Literal

from .. import losses
from . import NotNegative, Numbers, Positive
from .ddpo import DRAWS, RECORD, again, rows  # noqa: F401

FROZEN = ("reference",)


class Knobs(Numbers):
    clip: Positive = 7e-4  # as DDPO's
    eta: Positive = 1.0  # noise of the sampler
    kl: NotNegative = 1e-3  # weight of the divergence over that of the reward (code: 0.01 / 10)
    form: Literal["prediction", "step"] = "prediction"  # of the divergence, the code's or the paper's


def divergence(nets, noise_pred, mean, deviation, given, text, form):
    """From the reference at the steps taken, per dimension, (B,).

    "prediction": mean square of what both predict; "step": of their Gaussians, (mean - mean_ref)^2 / 2 s^2.
    """
    reference = nets.reference(*given.place[:2], text)
    if form == "prediction":
        return losses.gap(noise_pred, reference)
    other, _ = losses.reverse_step(nets.scheduler, reference, *given.place)
    return losses.gap(mean / deviation, other / deviation) / 2


def loss(nets, batch, knobs):
    """- A clipped ratio + kl KL."""
    noise_pred, mean, deviation, given = again(nets, batch)
    log_prob = losses.log_prob(given.x_next, mean, deviation)
    ratio = (log_prob - batch.log_probs[given.at]).exp()
    kl = divergence(nets, noise_pred, mean, deviation, given, batch.text, knobs.form)
    held = ratio.clamp(1 - knobs.clip, 1 + knobs.clip)
    return -batch.advantage * held + knobs.kl * kl, {"ratio": ratio, "kl": kl}
