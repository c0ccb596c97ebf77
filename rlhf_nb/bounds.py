"""What a setting may be: types with bounds, beyond which a stage had nothing to measure or no memory."""

import os
from typing import Annotated, Literal, TypeVar

from pydantic import Field, Strict

T = TypeVar("T")


def between(kind, low, high):
    """The type of numbers of a kind from `low` to `high`, both ends among them."""
    return Annotated[kind, Field(ge=low, le=high)]


Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of numbers takes
Natural = between(int, 0, 10**7)
Count = between(int, 1, 10**7)
Several = between(int, 2, 10**7)  # a spread or a comparison needs two
Few = between(int, 1, 1000)
FewOrNone = between(int, 0, 1000)
Rows = between(int, 1, 2**16)  # of a step
Renders = between(int, 4, 10**7)  # two halves, each with a spread
Size = between(float, 0, 1e6)
Positive = Annotated[float, Field(gt=0, le=1e6)]
Guidance = between(float, 0, 100)
Share = between(float, 0, 1)
Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]  # of a level: its channels are normed by eight
Place = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f]*$")]  # a path or a name
Listed = Annotated[tuple[T, ...], Strict(False)]  # one after the other, or none: YAML has lists only
Some = Annotated[tuple[T, ...], Strict(False), Field(min_length=1)]
Split = Literal["validation", "seen", "heldout", "unseen", "ood"]
Extra = Literal["checkpointing", "compile", "tensorboard"]
Arm = Literal[*"none reward given labels eye oracle shuffled constant random similarity".split()]


def fit(numbers, of):
    """Raise ValueError where so many numbers in single precision do not fit into this machine's memory."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    need = 4 * numbers / 2**30
    if need > have:
        raise ValueError(f"{of} need {need:,.0f} GB of memory and this machine has {have:,.0f}: give fewer")
