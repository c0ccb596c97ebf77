"""Group-relative policy optimisation of the sampler's steps: DDPO's clipped ratio (Flow-GRPO, Liu et al.,
2025, arXiv 2505.05470; DanceGRPO, 2505.07818), in a window of steps that are noisy while all others are not
(MixGRPO, 2507.21802), with a ratio that is fair to every step (GRPO-Guard, 2510.22319).

The guarded ratio exp(- mean(z (eps - eps_old))), z the noise drawn, has mean 1 and a gradient of one size at
all steps; the plain one has both only near the drawer, and the last noisy steps outweigh all others.
"""

from .. import losses
from . import Count, Natural, NotNegative, Numbers, Positive
from .ddpo import DRAWS, again, rows  # noqa: F401
from .dpok import divergence

FROZEN = ("reference",)
RECORD = ("states", "predicted")


class Knobs(Numbers):
    clip: Positive = 7e-4  # as DDPO's
    eta: Positive = 0.7  # noise of the sampler in the window (MixGRPO)
    window: Natural = 4  # noisy steps, the only ones trained on (MixGRPO); 0: all but the last
    stay: Count = 4  # rounds after which the window moves on by a step (MixGRPO: 25)
    guarded: bool = True  # GRPO-Guard's ratio
    kl: NotNegative = 0.0  # weight of the divergence of steps (Flow-GRPO: 0.04)


def etas(knobs, number, steps):
    """Noise in the window, which goes from the noisiest steps to the last but one, and begins again."""
    width = min(knobs.window or steps, steps - 1)
    start = number // knobs.stay % (steps - width)
    return [knobs.eta if start <= k < start + width else 0.0 for k in range(steps)]


def loss(nets, batch, knobs):
    """max(-A ratio, -A clipped ratio) + kl KL."""
    noise_pred, mean, deviation, given = again(nets, batch)
    predicted = batch.predicted[given.at]
    former, _ = losses.reverse_step(nets.scheduler, predicted, *given.place)
    if knobs.guarded:
        z = (given.x_next - former) / deviation
        ratio = (-(z * (noise_pred - predicted)).mean((1, 2, 3))).exp()
    else:
        gaussians = (mean, deviation), (former, deviation)
        log_prob, before = (losses.log_prob(given.x_next, *of) for of in gaussians)
        ratio = (log_prob - before).exp()
    terms, log = losses.clipped(batch.advantage, ratio, knobs.clip), {"ratio": ratio}
    if knobs.kl:
        taken = noise_pred, mean, deviation, given, batch.text
        log["kl"] = divergence(nets, *taken, "step")
        terms = terms + knobs.kl * log["kl"]
    return terms, log
