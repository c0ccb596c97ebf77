"""Files that are whole or absent: text, tensors and image folders; one reader for JSON, one for tables."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from . import config


class ArtifactError(config.UserError, RuntimeError):
    """An artifact is missing, half-written or damaged; the message names it and what to do."""


def digest(path):
    """SHA-256 of a file, or of a folder's files and their names."""
    path, sha = Path(path), hashlib.sha256()
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in inside:
        if path.is_dir():
            sha.update(file.relative_to(path).as_posix().encode() + b"\0")
        with open(file, "rb") as stream:
            sha.update(hashlib.file_digest(stream, "sha256").digest())
    return sha.hexdigest()


def weights_digest(*models):
    """SHA-256 of the weights of torch modules, wherever they were loaded from."""
    sha = hashlib.sha256()
    for model in models:
        for name, value in sorted(model.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().float().cpu().contiguous().numpy())
    return sha.hexdigest()


def write_text(path, text):
    """A text file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def write_tensors(tensors, path, about=None):
    """A safetensors file of {name: tensor}, whole or not at all. Raises ArtifactError on a full disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    part = path.with_suffix(f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, part, about)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise ArtifactError(
            f"{path} cannot be written ({error}): make room and start again, it goes on from what is there"
        ) from None


def read_json(path, *keys, remedy="make it again"):
    """The object in a JSON file, which must have `keys`.

    Raises ArtifactError with the remedy where it has not.
    """
    try:
        found = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {remedy}") from None
    except (OSError, ValueError):
        raise ArtifactError(f"{path} is damaged: {remedy}") from None
    lacking = [key for key in keys if not isinstance(found, dict) or key not in found]
    if lacking:
        raise ArtifactError(f"{path} has no {', '.join(lacking)}: {remedy}")
    return found


def read_table(path, columns=(), remedy="make it again or give another file"):
    """A CSV as a DataFrame. `columns` are names it must have, or {name: type} with str, float, int or bool.

    A float may be missing, nothing else may. Other columns are as pandas infers them. Raises ArtifactError
    naming the first column that is missing or holds something else.
    """
    path = Path(path)
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise ArtifactError(f"{path} cannot be read as CSV ({cause}): {remedy}") from None
    for column in columns:
        if column not in rows:
            there = ", ".join(map(str, rows))
            raise ArtifactError(f"{path} has no column {column!r} (it has {there}): add it, or {remedy}")
    for column, kind in columns.items() if isinstance(columns, dict) else ():
        try:
            empty = rows[column].isna()
            if empty.any() and kind is not float:
                raise ValueError(f"row {int(empty.idxmax()) + 2} is empty")
            rows[column] = rows[column].astype(kind)
        except ValueError as error:
            raise ArtifactError(
                f"{path}, column {column!r} must hold {kind.__name__} values ({error}): {remedy}"
            ) from None
    return rows


def save_pngs(folder, images, names):
    """uint8 images (B, H, W, 3) as PNG files, each written whole or not at all."""
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        part = folder / f"{name}.part"
        try:
            Image.fromarray(image).save(part, format="png", compress_level=1)
            part.replace(folder / name)
        except OSError as error:
            raise ArtifactError(
                f"{folder / name} cannot be written ({error.strerror}): make room and run again, what was "
                "drawn so far is kept"
            ) from None


def save_rows(folder, names, rows):
    """The image folder's metadata.csv: `rows` with a column file_name."""
    table = pd.DataFrame(rows).assign(file_name=names).set_index("file_name")
    write_text(Path(folder) / "metadata.csv", table.to_csv())


class ImageFolder:
    """A Hugging Face image folder read lazily: `rows` is its metadata, `folder[i:j]` uint8 (B, H, W, 3)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.rows = read_table(self.folder / "metadata.csv", ("file_name", "prompt"))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        from PIL import Image

        images = []
        for name in self.rows.file_name.to_numpy()[which]:
            try:
                with Image.open(self.folder / name) as image:
                    images.append(np.asarray(image.convert("RGB")))
            except OSError as error:
                raise ArtifactError(
                    f"image {self.folder / name} cannot be read ({error}): restore it or drop its row from "
                    "metadata.csv"
                ) from None
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            shapes = sorted(sizes)
            raise ArtifactError(f"images in {self.folder} have different sizes {shapes}: make them equal")
        return np.stack(images)
