"""Denoising diffusion policy optimisation (Black et al., 2024, arXiv 2305.13301): every step of the sampler
is an action; its probability under the policy rises or falls with the image's advantage, within a clip.
"""

import torch
from pydantic import Field

from .. import losses
from . import Numbers

FROZEN = ()
DRAWS = "policy"
RECORD = True
SHARED = False


class Knobs(Numbers):
    clip: float = Field(
        7e-4, gt=0
    )  # of the ratio; the mean over C, H, W makes it depend on the latent's size
    eta: float = Field(1.0, gt=0)  # noise of the sampler, 1 is DDPM's


def rows(samples, knobs):
    """Every step of every image but the last, whose deviation is next to none."""
    count, steps = samples.log_probs.shape
    advantage = losses.advantages(samples.reward, samples.group)
    step = torch.arange(steps - 1).repeat(count)
    row = torch.arange(count).repeat_interleave(steps - 1)
    return {"row": row, "step": step, "advantage": advantage[row], "log_prob": samples.log_probs[row, step]}


def loss(nets, batch, knobs):
    """max(-A ratio, -A clipped ratio), with the ratio of the step's density under the policy and under its
    drawer.
    """
    place = torch.arange(len(batch.step), device=batch.step.device), batch.step
    x_t, x_next = batch.states[place], batch.states[place[0], batch.step + 1]
    time, then = batch.times[place], batch.times[place[0], batch.step + 1]
    noise_pred = nets.policy(x_t, time, batch.text)
    log_prob = losses.log_prob(
        x_next, *losses.reverse_step(nets.scheduler, noise_pred, x_t, time, then, knobs.eta)
    )
    ratio = (log_prob - batch.log_prob).exp()
    clipped = ratio.clamp(1 - knobs.clip, 1 + knobs.clip)
    terms = torch.maximum(-batch.advantage * ratio, -batch.advantage * clipped)
    return terms, {"ratio": ratio}
