"""Feynman-Kac steering (Singhal et al., 2025, arXiv 2501.06848): P particles of an image go down the sampler;
now and then those on the way to what the reward likes are copied in place of others.

At a check a particle's weight grows by exp(lam U), by the reward r of where one step to the end would lead:
U is the largest r so far ("max") or r less the last one ("diff"). Weights worth fewer than P / 2 equal ones
are used: P particles are drawn by them. The best at the end is the image. It costs P images by DDIM, eta 1.
"""

import numpy as np
import torch
from pydantic import Field

from ... import diffusion, rollout, seeds
from .. import Count, Natural, NotNegative, Numbers


class Knobs(Numbers):
    particles: Count = 4  # P (code: 4)
    lam: NotNegative = 6.0  # (code: 2, for rewards that deviate by 1; those in [0, 1] by a third)
    checks: Natural = 4  # evenly between the ends (code: after 20, 40, 60 and 80 % of the steps)
    potential: str = Field("max", pattern="^(max|diff)$")


def draw(pipe, prompts, knobs, *, score, steps, seed, indices=None, unet=None, guidance=1.0):
    """An image of each prompt; the particles of index i start from the noises P i to P i + P - 1."""
    indices, images = range(len(prompts)) if indices is None else indices, []
    checked = {steps * j // (knobs.checks + 1) - 1 for j in range(1, knobs.checks + 1)}
    how = {"etas": rollout.even(1.0, steps), "seed": seed, "guidance": guidance}
    for prompt, index in zip(prompts, indices, strict=True):
        asked, weights = [prompt] * knobs.particles, Weights(knobs)

        def choose(step, clean, asked=asked, weights=weights, index=index):
            if step not in checked:
                return torch.arange(len(clean))
            found = score(diffusion.decode(pipe.vae, clean), asked)
            return weights(torch.as_tensor(found), seeds.generator(seed + 2, index, step))

        how["indices"] = [knobs.particles * index + j for j in range(knobs.particles)]
        way = rollout.recorded(pipe, unet or pipe.unet, asked, choose=choose, **how)
        shown = diffusion.decode(pipe.vae, way["states"][:, -1])
        images.append(shown[np.argmax(score(shown, asked))])
    return np.stack(images)


class Weights:
    """The weights of one image's particles: called with rewards (P,), they say which go on, (P,)."""

    def __init__(self, knobs):
        self.knobs, self.reached, self.log = knobs, torch.zeros(knobs.particles), 0.0

    def __call__(self, found, g):
        most = torch.maximum(found, self.reached)
        gain, self.reached = (most, most) if self.knobs.potential == "max" else (found - self.reached, found)
        self.log = self.log + self.knobs.lam * gain
        chance = self.log.softmax(0)
        if 1 / chance.square().sum() >= len(found) / 2:
            return torch.arange(len(found))
        rows = chance.multinomial(len(found), replacement=True, generator=g)
        self.reached, self.log = self.reached[rows], 0.0
        return rows
