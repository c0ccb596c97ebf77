"""A method of alignment is one module, with the few numbers that are its own and three functions of tensors.

    FROZEN   what the trainer keeps beside the policy: any of "reference", "old", "decoder", "reward"
    DRAWS    who draws a round's images, "policy" or "old"; without it those of stage `generate` serve
    RECORD   what is kept of the sampler's way beside "times" and "etas" (reverse-process methods):
             of "states" (S + 1), "log_probs" (S) and "predicted" (S), what the drawer predicted
    SHARED   True: the samples of a group have one timestep and one noise
    Knobs    the method's numbers, a pydantic model; notebooks pass them as one mapping `knobs`

    rows(samples, knobs) -> {"row": (M,) into the samples, "weight" | "advantage" | "group" | ...: (M,)}
        what a round trains on; with "chance" (M,) entries come in proportion to it, with "group" whole
        groups, with "low" and "high" (M,), of [0, 1), at timesteps of that part
    loss(nets, batch, knobs) -> ((B,) terms, already weighed, and {name: (B,)} to log)
        the trainer adds their mean over D_model to that over D_pre (batch.is_model tells which)
    after(nets, knobs, number)
        before round `number`, from 1: how "old" follows the policy; only where FROZEN names "old"
    etas(knobs, number, steps) -> (steps,)
        noise of the sampler's steps in round `number`; only where a way is recorded, and without it
        `knobs.eta` at all steps but the last

A knob `beta` says that the method takes pre-training pairs. A method that records the way draws and trains
without guidance, so that both see the same predictions. What trains nothing is in `drawing`.

`samples` is a batches.Samples, `batch` what batches.Batches.take returns. `nets.policy`, `nets.reference` and
`nets.old` are called as (x_t, t, text) -> noise_pred; `nets.decoder(latents)` -> images in [-1, 1] and
`nets.reward(images, prompt numbers)` -> (B,) have gradients; `nets.scheduler` is the forward process.
"""

import importlib
import pkgutil
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

# what holds where a method does not say
UNSAID = {"FROZEN": (), "DRAWS": None, "RECORD": (), "SHARED": False}
# what a knob may be
Positive, NotNegative, Natural = PositiveFloat, NonNegativeFloat, NonNegativeInt
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]  # a share, but not all
Count = Annotated[int, Field(ge=1)]


class Numbers(BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    """What a method's Knobs are: a few numbers, strict about names and types."""


def names():
    """The methods there are."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg)


def load(name):
    """The module of method `name`, one of `names()`, with all four of its capitals."""
    module = importlib.import_module(f".{name}", __name__)
    for fact, value in UNSAID.items():
        vars(module).setdefault(fact, value)
    return module
