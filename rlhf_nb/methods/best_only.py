"""Fine-tuning on the best images alone, RAFT (Dong et al., 2023, arXiv 2304.06767): of every prompt the image
that the reward likes best, with weight 1.
"""

import torch

from .. import losses
from . import Count, Numbers


class Knobs(Numbers):
    best: Count = 1  # images of a prompt that are kept, as the source's


def rows(samples, knobs):
    """The best images of each prompt; of equal ones the first."""
    order = samples.reward.argsort(descending=True, stable=True)
    order = order[samples.prompt[order].argsort(stable=True)]  # the best first
    parts = order.split(samples.prompt.bincount().tolist())
    return {"row": torch.cat([part[: knobs.best] for part in parts])}


def loss(nets, batch, knobs):
    """The denoising error."""
    error = losses.Noised(nets, batch).error_of("policy")
    return error, {"error": error}
