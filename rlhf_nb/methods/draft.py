"""Direct reward fine-tuning of the last step, DRaFT-1 (Clark et al., 2024, arXiv 2309.17400): - r(x_0), its
gradient through the decoder and the sampler's last step.

Nothing but `kl`, or an early stop, keeps a policy from what fools the reward.
"""

from typing import Literal

from .. import losses
from . import NotNegative, Numbers

FROZEN = ("reference", "decoder", "reward")
DRAWS = "policy"
RECORD = ("states",)


class Knobs(Numbers):
    eta: NotNegative = 0.0  # noise of the sampler on the way to the last step (the paper: none)
    utility: Literal["reward", "logit"] = "reward"  # what is to rise: a logit is steep where a reward nears 1
    kl: NotNegative = 0.0  # weight of the mean square distance from what the reference predicts


def rows(samples, knobs):
    """Every image."""
    return {"row": range(len(samples))}


def loss(nets, batch, knobs):
    """Minus the utility of the picture that the policy's last step leads to, on the way as it was drawn, and
    the distance from the reference at a time drawn at random.
    """
    x_t, time, then = batch.states[:, -2], batch.times[:, -2], batch.times[:, -1]
    noise_pred = nets.policy(x_t, time, batch.text)
    latents, _ = losses.reverse_step(nets.scheduler, noise_pred, x_t, time, then, 0.0)
    score = nets.reward(nets.decoder(latents), batch.prompt)
    terms = -(score.logit(eps=1e-6) if knobs.utility == "logit" else score)
    log = {"reward": score}
    if knobs.kl:
        noised = losses.Noised(nets, batch)
        policy, reference = noised.predicted("policy"), noised.predicted("reference")
        log["kl"] = losses.gap(policy, reference)
        terms = terms + knobs.kl * log["kl"]
    return terms, log
