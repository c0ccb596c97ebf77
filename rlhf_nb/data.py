"""Captioned images for the pre-training term, one at a time: from the toy world, local files or a hub dataset."""

import glob
import json
import os
import warnings
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from . import world
from .runs import ArtifactError

# In this order: img2dataset writes tables without pictures beside its tars.
KINDS = {"metadata.csv": "imagefolder", "*.tar": "webdataset", "*.parquet": "parquet"}
ENDS = {"webdataset": bytes(512), "parquet": b"PAR1"}  # of a whole file: tarfile takes many a truncated tar for a whole one
CAPTIONS = ("caption", "text", "prompt", "TEXT", "txt")
SCORES = ("aesthetic", "aesthetic_score", "AESTHETIC_SCORE")
ADVICE = "give an image folder with metadata.csv, .tar or .parquet files, or a hub dataset"


class Pairs:
    """At most `n` pairs (image uint8 (H, W, 3), caption), the same at every iteration; `skipped` counts what the last one left out.

    `source` is "world" (drawn with `seed`, unscored), a local folder, file or glob, or a hub dataset. `size` scales the short side and
    crops the centre; what scores below `min_score` > 0 is skipped. Memory holds one image, or one row group of a parquet file.
    Raises ArtifactError if the source is missing or damaged, lacks a column, or gives no pair.
    """

    def __init__(self, source, n, seed=0, size=None, min_score=0.0):
        self.source, self.n, self.seed, self.size, self.min_score, self.skipped = str(source), n, seed, size, min_score, Counter()
        self.files = [] if self.source == "world" else _files(self.source)
        for kind, name in self.files[:1]:
            next(_rows(kind, name, min_score > 0), None)  # so that what is wrong with the source is said before any training

    def __iter__(self):
        self.skipped, found = Counter(), 0
        drawn = (world.pairs(1, self.seed, i) for i in range(self.n if self.source == "world" else 0))
        read = chain.from_iterable(_rows(kind, name, self.min_score > 0) for kind, name in self.files)
        for encoded, caption, score in chain(((images[0], captions[0], np.inf) for images, captions, _ in drawn), read):
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


def _files(source):
    """[(kind, file)] of the first of KINDS that `source` names on this machine, sorted, or else [(None, hub name)]. Raises ArtifactError."""
    path = Path(source).expanduser()
    here = [path] if path.exists() else [Path(file) for file in glob.glob(str(path), recursive=True)]
    for pattern, kind in KINDS.items():
        if files := sorted(file for file in (path.rglob(pattern) if path.is_dir() else here) if file.match(pattern) and file.is_file()):
            for file in files:
                with open(file, "rb") as stream:
                    stream.seek(-min(512, file.stat().st_size), os.SEEK_END)
                    if not stream.read().endswith(ENDS.get(kind, b"")):
                        raise ArtifactError(f"{file} is truncated: restore it or leave it out")
            return [(kind, file) for file in files]
    if here or path.is_absolute() or source.startswith(".") or path.suffix in (".tar", ".parquet") or glob.has_magic(source):
        raise ArtifactError(f"there is no metadata.csv, .tar or .parquet file at {source}: {ADVICE}")
    return [(None, source)]


def _rows(kind, name, scored):
    """(encoded image, caption, score or nan) of each row of a file or hub dataset. Raises ArtifactError."""
    try:
        stream, columns = _stream(kind, name), None
        for row in stream:
            told = json.loads(row["json"]) if isinstance(row.get("json"), str) else row.get("json")
            row = {**(told if isinstance(told, dict) else {}), **row}
            if not columns:
                there = [c for c in row if kind != "webdataset" or row[c] is not None]
                pictures = [c for c, kept in stream.features.items() if "Image(" in str(kept) or "binary" in str(kept)]
                columns = [next((c for c in names if c in there), None) for names in (pictures, CAPTIONS, SCORES)]
                if None in columns[:2 + scored]:
                    raise ArtifactError(f"{name} has no {('image', 'caption', 'score')[columns.index(None)]} column (it has {', '.join(there)}): name "
                                        f"captions {' or '.join(CAPTIONS)}, scores {' or '.join(SCORES)}, or set the least score to 0")
            encoded, caption, score = map(row.get, columns)
            yield encoded, str(caption or "").strip(), float("nan" if score is None else score)
    except ArtifactError:
        raise
    except Exception as error:  # `datasets` passes on whatever its parsers raise
        raise ArtifactError(f"{name} cannot be read ({' '.join(str(error).split())}): restore it, leave it out, or {ADVICE}") from error


def _stream(kind, name):
    """An `IterableDataset` of undecoded images; opening it prints nothing and writes nothing."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False      # it would report the reading of local files, too
    given = {"streaming": True, "cache_dir": "memory://"}  # a cache folder would fill with locks
    if kind is None:
        splits = datasets.load_dataset(name, **given)
        return (splits["train"] if "train" in splits else next(iter(splits.values()))).decode(False)
    if kind == "webdataset":  # types inferred from the first five samples would refuse or truncate later ones
        pictures = dict.fromkeys(("jpg", "jpeg", "png", "webp"), datasets.Image())
        given["features"] = datasets.Features({**pictures, "txt": datasets.Value("string"), "json": datasets.Json()})
    return datasets.load_dataset(kind, data_files=[glob.escape(str(name.absolute()))], split="train", **given).decode(False)


def _decoded(encoded, size):
    """The upright RGB picture, uint8 (H, W, 3), of an array, bytes or {bytes, path}; None if it is broken or missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if isinstance(encoded, np.ndarray):
                image = Image.fromarray(encoded)
            else:
                from datasets import Image as Feature

                image = Feature(mode="RGB").decode_example(Feature().encode_example(encoded))
            return np.array(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS) if size else image)
        except Exception:  # Pillow's decoders raise nearly anything on damaged files
            return None
