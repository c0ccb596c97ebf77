"""Files that are whole or absent: text and tensors; one reader for JSON, one for tables.

PyTorch is loaded where tensors are: what only starts notebooks would wait seconds for it.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from . import config

GONE = ".gone"  # ends the name of a folder that is being removed
LAX = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)  # a CSV has no types of its own


class ArtifactError(config.UserError, RuntimeError):
    """An artifact is missing, half-written or damaged; the message names it and what to do."""


def digest(path):
    """SHA-256 of a file, or of a folder's files and their names. Raises ArtifactError as `reading` does."""
    path, sha = Path(path), hashlib.sha256()
    with reading(path):
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            if path.is_dir():
                sha.update(file.relative_to(path).as_posix().encode() + b"\0")
            with open(file, "rb") as stream:
                sha.update(hashlib.file_digest(stream, "sha256").digest())
    return sha.hexdigest()


def json_digest(value):
    """SHA-256 of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def intact(path, known):
    """Whether a file is there, can be read and has the digest `known`."""
    with contextlib.suppress(OSError, ArtifactError):
        return path.is_file() and digest(path) == known
    return False


def weights_digest(*models):
    """SHA-256 of the weights of torch modules, wherever they were loaded from."""
    digests = "".join(tensors_digest(model.state_dict()) for model in models)
    return hashlib.sha256(digests.encode()).hexdigest()


@contextlib.contextmanager
def reading(path):
    """Raise ArtifactError where what is at `path` cannot be listed or opened."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror or config.cause(error)}): unlock it or make it again"
        ) from None


@contextlib.contextmanager
def writing(path, *errors):
    """Raise ArtifactError where `path` cannot be written: a full or read-only disk, a folder in its place.

    errors: what a library raises beside OSError.
    """
    try:
        yield
    except (OSError, *errors) as error:
        reason = getattr(error, "strerror", None) or config.cause(error)
        raise ArtifactError(
            f"{path} cannot be written ({reason}): make room or unlock it, then start again, it goes on from "
            "what is there"
        ) from None


@contextlib.contextmanager
def whole(path, *errors):
    """Where to write a file that is then put at `path`, whole or not at all; its folder is made.

    Raises ArtifactError as `writing` does.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with writing(path, *errors):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_text(path, text):
    """A text file, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path, value):
    """A JSON file, whole or not at all; what JSON does not know is written as a number."""
    write_text(path, json.dumps(value, indent=1, default=float) + "\n")


def tensors_digest(tensors):
    """SHA-256 of {name: tensor}: names, types, shapes and values."""
    import torch

    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return sha.hexdigest()


def write_tensors(tensors, path, about=None):
    """A safetensors file of {name: tensor}, whole or not at all; its header has their digest."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
    with whole(path, SafetensorError) as part:
        save_file(tensors, part, {"digest": tensors_digest(tensors)} | (about or {}))


def read_tensors(path):
    """{name: tensor} of a safetensors file, mapped from disk. Raises ArtifactError where it is none."""
    from safetensors.torch import load_file

    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise FileNotFoundError("there is no such file")
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: no file can be opened any more
        raise ArtifactError(f"{path} cannot be read ({config.cause(error)}): make it again") from None


def cached_tensors(path):
    """({name: tensor}, {name: words of the header}) of a file that `write_tensors` wrote.

    None where it is missing or no more what was written, and so is to be made again.
    """
    try:
        tensors = read_tensors(path)
    except ArtifactError:  # cut by a full disk or a copy
        return None
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
    return (tensors, about) if about.get("digest") == tensors_digest(tensors) else None


def put(source, target):
    """Put a file at `target` too: a picture of an image folder by a link where the disk can, else by a copy.

    Pictures are never written into, so a link is as good as a copy.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".png" and (source.parent / "metadata.csv").exists():
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def remove(folder):
    """Remove a folder, under a name that ends in `GONE`: killed in the middle, it leaves no half of it."""
    gone = folder.with_suffix(GONE)
    if folder != gone:
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@functools.cache
def _adapter(kind):
    return TypeAdapter(kind, config=LAX)


def typed(kind, value, what, remedy):
    """`value` as the type `kind`, any that pydantic knows; of a list the lines of a table are counted.

    Raises ArtifactError, which says `what` it is of.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        wrong = error.errors()[0]
        row = f", row {wrong['loc'][0] + 2}," if isinstance(value, list) and wrong["loc"] else ""
        must = wrong["msg"].replace("Input should", "must")
        raise ArtifactError(f"{what}{row} {must}, not {config.shown(wrong['input'])}: {remedy}") from None


def read_json(path, *keys, remedy="make it again", **kinds):
    """The object in a JSON file, which must have `keys`, and those of `kinds`, name=type.

    One that may be None may be missing. Raises ArtifactError with the remedy where another is.
    """
    try:
        found = json.loads(config.contents(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {remedy}") from None
    except (OSError, ValueError, RecursionError):
        raise ArtifactError(f"{path} is damaged: {remedy}") from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object: {remedy}")
    kinds = dict.fromkeys(keys, Any) | kinds
    found = {key: None for key, kind in kinds.items() if NoneType in get_args(kind)} | found
    if lacking := kinds.keys() - found.keys():
        raise ArtifactError(f"{path} has no {', '.join(sorted(lacking))}: {remedy}")
    return found | {key: typed(kind, found[key], f"{path}, {key!r}", remedy) for key, kind in kinds.items()}


def read_table(path, columns=(), remedy="make it again or give another file"):
    """A CSV as a DataFrame. `columns` are names it must have, or {name: type}, any type that pydantic knows.

    A float may be missing, nothing else may that is not `| None`. Other columns are as pandas infers them.
    Raises ArtifactError naming the first column that is missing or holds something else.
    """
    try:
        content = config.contents(path)
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        # an empty cell and a float's own word are missing; "None" may be a prompt
        how = {"keep_default_na": False, "na_values": ["", "nan", "NaN"], "low_memory": False}
        rows = pd.read_csv(io.BytesIO(content), encoding=encoding, **how)
        if not isinstance(rows.index, pd.RangeIndex):
            raise ValueError("its rows are longer than its header")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as CSV ({config.cause(error)}): {remedy}") from None
    for column in columns:
        if column not in rows:
            there = config.shown(", ".join(map(str, rows)))
            raise ArtifactError(f"{path} has no column {column!r} (it has {there}): add it, or {remedy}")
    for column, kind in columns.items() if isinstance(columns, dict) else ():
        cells = rows[column].astype(object).where(rows[column].notna(), None).tolist()
        values = typed(
            list[kind | None if kind is float else kind], cells, f"{path}, column {column!r}", remedy
        )
        some = any(value is not None for value in values)
        rows[column] = pd.Series(values, rows.index, dtype=None if some else rows[column].dtype)
    rows.attrs["path"] = str(path)  # for those who find something wrong with it later
    return rows
