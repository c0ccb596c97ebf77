"""Captioned images for the pre-training term, one by one: of the toy world, local files or a hub dataset."""

import glob
import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .files import ArtifactError
from .toy import world

# Which files there may be, their reader, and how a whole one ends: tarfile takes many a truncated tar for a
# whole one. In this order: img2dataset writes tables without pictures beside its tars.
KINDS = {
    "metadata.csv": ("imagefolder", b""),
    "*.tar": ("webdataset", bytes(512)),
    "*.parquet": ("parquet", b"PAR1"),
}
COLUMNS = {
    "caption": ("caption", "text", "prompt", "TEXT", "txt"),
    "score": ("aesthetic", "aesthetic_score", "AESTHETIC_SCORE"),
}
# What is meant as a place on this machine, even where nothing is there.
NO_HUB_NAME = re.compile(r"^[./~]|[*?[]|\.(tar|parquet)$")
ADVICE = "give an image folder with metadata.csv, .tar or .parquet files, or a hub dataset"


@dataclass
class CaptionedImages:
    """At most `n` pairs (image uint8 (H, W, 3), caption), the same at every iteration.

    `source` is "world" (drawn with `seed`, unscored), a local folder, file or glob, or a hub dataset. `size`
    scales the short side and crops the centre; what scores below `min_score` > 0 is skipped; `skipped` counts
    what the last iteration left out. Memory holds one image, or one row group of a parquet file. Raises
    ArtifactError if the source is missing or damaged, lacks a column, or gives no pair.
    """

    source: str
    n: int
    seed: int = 0
    size: int | None = None
    min_score: float = 0.0

    def __post_init__(self):
        self.source = str(self.source)
        self.skipped = Counter()
        self.files = [] if self.source == "world" else _files(self.source)
        next(self._rows(), None)  # so that what is wrong with the source is said before any training

    def __iter__(self):
        self.skipped, found = Counter(), 0
        for encoded, caption, score in self._rows():
            if self.min_score > 0 and not score >= self.min_score:  # no score, nan, is low
                self.skipped["low score"] += 1
            elif not caption:
                self.skipped["no caption"] += 1
            elif (image := _decoded(encoded, self.size)) is None:
                self.skipped["unreadable image"] += 1
            else:
                yield image, caption
                found += 1
                if found >= self.n:
                    return
        if not found:
            skipped = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items()) or "none"
            raise ArtifactError(f"{self.source} gives no captioned image (rows skipped: {skipped}): {ADVICE}")

    def _rows(self):
        """(image or encoded image, caption, score) of each row of the source."""
        if self.source == "world":
            for i in range(self.n):
                [image], [caption], _ = world.pairs(1, self.seed, i)
                yield image, caption, np.inf
        for kind, file in self.files:
            yield from _read(kind, file, self.min_score > 0)


def _files(source):
    """[(kind, file)] of the first of KINDS that `source` names here, sorted, or else [(hub name, None)].

    Raises ArtifactError where `source` is not there, or a file is truncated.
    """
    path = Path(source).expanduser()
    here = {path, *map(Path, glob.glob(str(path), recursive=True))}
    for pattern, (kind, end) in KINDS.items():
        named = path.rglob(pattern) if path.is_dir() else here
        files = sorted(file for file in named if file.match(pattern) and file.is_file())
        for file in files:
            with open(file, "rb") as stream:
                stream.seek(max(0, file.stat().st_size - 512))
                if not stream.read().endswith(end):
                    raise ArtifactError(f"{file} is truncated: restore it or leave it out")
        if files:
            return [(kind, file) for file in files]
    if path.exists() or NO_HUB_NAME.search(source):
        raise ArtifactError(f"there is no metadata.csv, .tar or .parquet file at {source}: {ADVICE}")
    return [(source, None)]


def _read(kind, file, scored):
    """(encoded image, caption, score or nan) of each row of a file or hub dataset. Raises ArtifactError."""
    name, columns = file or kind, None
    try:
        stream = _stream(kind, file)
        for row in stream:
            told = row.get("json") or {}
            if isinstance(told, str):
                told = json.loads(told)
            row = {**told, **row}
            columns = columns or _columns(row, stream.features, kind, name, scored)
            encoded, caption, score = map(row.get, columns)
            yield encoded, str(caption or "").strip(), float("nan" if score is None else score)
    except ArtifactError:
        raise
    except Exception as error:  # `datasets` passes on whatever its parsers raise
        cause = " ".join(str(error).split())
        raise ArtifactError(
            f"{name} cannot be read ({cause}): restore it, leave it out, or {ADVICE}"
        ) from error


def _columns(row, features, kind, name, scored):
    """Names of the image, caption and score columns; None where there is no score. Raises ArtifactError."""
    there = [c for c in row if kind != "webdataset" or row[c] is not None]
    pictures = [c for c, kept in features.items() if "Image(" in str(kept) or "binary" in str(kept)]
    found = []
    for what, names in {"image": pictures, **COLUMNS}.items():
        found.append(next((c for c in names if c in there), None))
        if found[-1] is None and (scored or what != "score"):
            raise ArtifactError(
                f"{name} has no {what} column (it has {', '.join(there)}): "
                f"name captions {' or '.join(COLUMNS['caption'])}, "
                f"scores {' or '.join(COLUMNS['score'])}, or set the least score to 0"
            )
    return found


def _stream(kind, file):
    """An `IterableDataset` of undecoded images; opening it prints nothing and writes nothing."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would report the reading of local files, too
    given = {"streaming": True, "cache_dir": "memory://"}  # a cache folder would fill with locks
    if file:
        given["data_files"] = [glob.escape(str(file.absolute()))]
    if kind == "webdataset":  # types inferred from the first five samples would refuse or truncate later ones
        pictures = dict.fromkeys(("jpg", "jpeg", "png", "webp"), datasets.Image())
        text = {"txt": datasets.Value("string"), "json": datasets.Json()}
        given["features"] = datasets.Features(pictures | text)
    splits = datasets.load_dataset(kind, **given)
    return splits.get("train", next(iter(splits.values()))).decode(False)


def _decoded(encoded, size):
    """The upright RGB picture, uint8 (H, W, 3), of an array, bytes or {bytes, path}; None if it is broken or
    missing.
    """
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if isinstance(encoded, np.ndarray):
                image = Image.fromarray(encoded)
            else:
                import datasets

                feature = datasets.Image(mode="RGB")
                image = feature.decode_example(feature.encode_example(encoded))
            return np.array(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS) if size else image)
        except Exception:  # Pillow's decoders raise nearly anything on damaged files
            return None
