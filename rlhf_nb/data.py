"""Captioned pictures, one by one: of the toy world, local files or a hub dataset."""

import ast
import contextlib
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import config, pictures, sources
from .files import ArtifactError
from .toy import world

COLUMNS = {
    "image": ("image", "img", "picture", *sources.SUFFIXES),
    "caption": (
        "caption text prompt txt captions texts prompts sentence sentences raw description alt_text"
    ).split(),
    "score": ("aesthetic", "aesthetic_score"),
}
LOOKED_AT = 100  # rows, until one has what is needed


@dataclass
class CaptionedImages:
    """At most `n` pairs (image uint8 (H, W, 3), caption), the same at every iteration.

    `source` is "world" (drawn with `seed`, unscored), a local folder, file or glob, or a hub dataset. `size`
    scales the short side and crops the centre; what scores below `min_score` > 0 is skipped; `skipped` counts
    what the last iteration left out, `first` names an example of each. Memory holds one image, or one row
    group of a parquet file. Raises ArtifactError if the source is missing or damaged, lacks a column, or
    gives no pair.
    """

    source: str
    n: int | None = None
    seed: int = 0
    size: int | None = None
    min_score: float = 0.0

    def __post_init__(self):
        self.source = str(self.source)
        self.skipped, self.first = Counter(), {}
        self.files = [] if self.source == "world" else sources.find(self.source)
        self._look()  # so that what is wrong with the source is said before any training

    def __iter__(self):
        for _, caption, image in self.named():
            yield image, caption

    def named(self):
        """(name of the picture in its source, caption, image) of each pair."""
        self.skipped, self.first, found = Counter(), {}, 0
        for name, row in self._rows():
            why, pair = self._pair(row)
            if why:
                self.skipped[why] += 1
                self.first.setdefault(why, name)
                continue
            yield name, *pair
            found += 1
            if found == self.n:
                return
        if not found:
            self._nothing()

    def left_out(self):
        """What the last iteration skipped, in words."""
        return ", ".join(f"{n} x {why}, as {self.first[why]}" for why, n in self.skipped.items())

    def _pair(self, row):
        """(None, (caption, image)) of a row, or (why it is skipped, None)."""
        if self.min_score > 0 and not _score(row) >= self.min_score:  # no score, nan, is low
            return "low score", None
        caption = next(filter(None, (_words(row[column]) for column in _columns(row, "caption"))), "")
        if not caption:
            return "no caption", None
        try:
            return None, (caption, pictures.rgb(_picture(row), self.size))
        except ArtifactError:
            return "unreadable image", None

    def _rows(self):
        """(name of the picture, row) of each row of the source; a row is {column: value}."""
        if self.source == "world":
            for i in range(self.n):
                [image], [caption], _ = world.pairs(1, self.seed, i)
                yield f"scene {i}", {"image": image, "caption": caption, "aesthetic": np.inf}
        for read, file, folder in self.files:
            try:
                for name, row in read(file):
                    yield (folder / name).as_posix(), row
            except sources.failures() as error:
                raise ArtifactError(
                    f"{file} cannot be read ({config.cause(error)}): restore it, leave it out, or "
                    f"{sources.ADVICE}"
                ) from error

    def _look(self):
        """Raise ArtifactError where the first rows have no picture, caption or score."""
        needed, there = ("image", "caption", *["score"] * (self.min_score > 0)), {}
        for _, row in itertools.islice(self._rows(), LOOKED_AT):
            there |= {column: value for column, value in row.items() if there.get(column) is None}
            has = {what: _columns(there, what) for what in needed} | {"image": _picture(there) is not None}
            lacking = [what for what in needed if not has[what]]
            if not lacking:
                return
        if not there:
            self._nothing()
        raise ArtifactError(
            f"{self.source} has no {lacking[0]} column (it has {', '.join(there)}): name captions "
            f"{' or '.join(COLUMNS['caption'][:3])}, files {' or '.join(sources.FILES[:3])}, scores "
            f"{' or '.join(COLUMNS['score'])}, or set the least score to 0"
        )

    def _nothing(self):
        raise ArtifactError(
            f"{self.source} gives no captioned image (rows skipped: {self.left_out() or 'none'}): "
            f"{sources.ADVICE}"
        )


def _columns(row, what):
    return sources.columns(row, COLUMNS[what])


def _picture(row):
    """The picture in a row: an array, bytes or a Path; None if there is none."""
    best, words = _columns(row, "image"), _columns(row, "caption")
    values = [row[column] for column in dict.fromkeys([*best, *row]) if column not in words]
    kinds = ((bytes, np.ndarray), Path)
    return next((value for kind in kinds for value in values if isinstance(value, kind)), None)


def _words(value):
    """The caption in a cell: text, bytes of it, or the first that says something in a list or an object."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    if isinstance(value, str) and value.startswith("["):  # a list as a CSV has it
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = ast.literal_eval(value)
    if isinstance(value, dict):
        value = [value[column] for column in dict.fromkeys([*_columns(value, "caption"), *value])]
        value = [one for one in value if not isinstance(one, (int, float))]
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_words, value)), "")
    return "" if value is None or value != value else str(value).strip()


def _score(row):
    """NaN where there is none."""
    try:
        return float(row[_columns(row, "score")[0]])
    except (IndexError, TypeError, ValueError):
        return math.nan
