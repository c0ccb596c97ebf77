"""Denoising diffusion policy optimisation (Black et al., 2024, arXiv 2305.13301): every step of the sampler
is an action, whose probability rises or falls with the image's advantage A.

    SF   - A log p(x_next | x_t), for one update a round
    IS   max(-A ratio, -A ratio held within 1 +- clip), ratio = p(x_next | x_t) / p_drawer(x_next | x_t)
"""

from types import SimpleNamespace
from typing import Literal

import torch

from .. import losses
from . import Numbers, Positive

DRAWS = "policy"
RECORD = ("states", "log_probs")


class Knobs(Numbers):
    # The mean over C, H, W makes the clip depend on the latent's size: for 256 numbers PPO's 0.2 is 7e-4.
    clip: Positive = 7e-4
    eta: Positive = 1.0  # noise of the sampler, 1 is DDPM's (the paper)
    estimator: Literal["SF", "IS"] = "IS"  # score function, or importance sampling


def rows(samples, knobs):
    """Every noisy step of every image of a group with different rewards, with the image's advantage."""
    told = losses.told_apart(samples, advantage=losses.advantages(samples.reward, samples.group))
    place, step = (samples.etas[told["row"]] > 0).nonzero(as_tuple=True)
    return {"row": told["row"][place], "step": step, "advantage": told["advantage"][place]}


def again(nets, batch):
    """The policy at the recorded steps: what it predicts, its Gaussian, and `given`, from where it led where:
    `place` (x_t, time, then, eta) and x_next.
    """
    i, k = torch.arange(len(batch.step), device=batch.step.device), batch.step
    x_t, time, then = batch.states[i, k], batch.times[i, k], batch.times[i, k + 1]
    place = x_t, time, then, batch.etas[i, k].view(-1, 1, 1, 1)
    noise_pred = nets.policy(x_t, time, batch.text)
    gaussian = losses.reverse_step(nets.scheduler, noise_pred, *place)
    given = SimpleNamespace(place=place, x_next=batch.states[i, k + 1], at=(i, k))
    return noise_pred, *gaussian, given


def loss(nets, batch, knobs):
    """Either estimator's terms."""
    _, mean, deviation, given = again(nets, batch)
    log_prob = losses.log_prob(given.x_next, mean, deviation)
    ratio = (log_prob - batch.log_probs[given.at]).exp()
    if knobs.estimator == "SF":
        return -batch.advantage * log_prob, {"ratio": ratio}
    return losses.clipped(batch.advantage, ratio, knobs.clip), {"ratio": ratio}
