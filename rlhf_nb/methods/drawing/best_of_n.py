"""Best of n: draw n images of a prompt and keep the one that the reward likes best. It costs n images."""

import numpy as np

from ... import diffusion
from .. import Count, Numbers


class Knobs(Numbers):
    n: Count = 4


def draw(pipe, prompts, knobs, *, score, indices=None, **options):
    """The best of the images n i to n i + n - 1 for each index i; options as in `diffusion.sample`."""
    indices = range(len(prompts)) if indices is None else indices
    places = [knobs.n * i + j for i in indices for j in range(knobs.n)]
    many = [prompt for prompt in prompts for _ in range(knobs.n)]
    images = diffusion.sample(pipe, many, indices=places, **options)
    best = np.asarray(score(images, many)).reshape(-1, knobs.n).argmax(1)
    return images[knobs.n * np.arange(len(prompts)) + best]
