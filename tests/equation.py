"""Eq. 2's objective on any encoded images, for tests and the benchmark."""

import torch
from accelerate import Accelerator

from rlhf_nb import batches, config, diffusion, objective


def eq2(pipe, encoded, pre=None, *, unet=None, reward=None, batch=(3, 3), engine=None, knobs=None, **given):
    """An objective.Objective over `encoded` images, which weigh their `reward` (N,), 1 by default, and pairs
    `pre`.
    """
    knobs = {"power": 1.0, "rows_by": "uniform", "beta": 1.0} | (knobs or {})
    usual = {"model_batch": batch[0], "pre_batch": batch[1], "knobs": knobs, "drop": 0.0}
    reward = torch.ones(len(encoded)) if reward is None else reward
    material = batches.Material(
        samples=batches.Samples(encoded, reward=reward),
        pre=pre,
        prompts=[],
        empty=diffusion.encode_prompts(pipe, [""])[0][0],
    )
    engine = engine or Accelerator(cpu=not torch.cuda.is_available())
    chosen = config.settings("align", **(usual | given))
    return objective.Objective(chosen, pipe, unet or pipe.unet, material, engine)
