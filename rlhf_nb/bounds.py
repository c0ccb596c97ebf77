"""What a setting may be: types with bounds, beyond which a stage had nothing to measure or no memory."""

import os
from typing import Annotated, Literal, TypeVar

from pydantic import Field, Strict

T = TypeVar("T")
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of numbers takes
Natural = Annotated[int, Field(ge=0, le=10**7)]
Count = Annotated[int, Field(ge=1, le=10**7)]
Several = Annotated[int, Field(ge=2, le=10**7)]  # a spread or a comparison needs two
Few = Annotated[int, Field(ge=1, le=1000)]
FewOrNone = Annotated[int, Field(ge=0, le=1000)]
Rows = Annotated[int, Field(ge=1, le=2**16)]  # of a step
Renders = Annotated[int, Field(ge=4, le=10**7)]  # two halves, each with a spread
Size = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
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
