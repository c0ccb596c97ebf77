"""Pictures: one reader for every kind of file and colour; image folders, written whole and read lazily."""

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from . import config
from .files import ArtifactError, read_table, whole, write_text


def rgb(encoded, size=None):
    """The upright picture, uint8 (H, W, 3), in a file (a Path), its bytes, or an array.

    16 bits keep their upper byte, what is transparent shows white paper, and of a film there is the first
    frame. `size` scales the short side and crops the centre. Raises ArtifactError where there is no picture.
    """
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = _upright(encoded)
            return np.array(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS) if size else image)
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            name = str(encoded)[:500] if isinstance(encoded, Path) else "a picture"
            why = config.cause(error)
            if isinstance(error, UnidentifiedImageError):
                why = "it is in no known format"
            raise ArtifactError(f"{name} cannot be read ({why}): restore it or leave it out") from None


def _upright(encoded):
    """`rgb` as an Image."""
    if isinstance(encoded, np.ndarray):
        image = Image.fromarray(encoded)
    else:
        if isinstance(encoded, Path):
            if not encoded.is_file():  # a pipe would be waited for
                raise OSError("there is no such file")
            encoded = encoded.read_bytes()
        image = Image.open(io.BytesIO(encoded))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow would clip a 16-bit grey to white
        image = Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point numbers are no colours, 8 or 16 bits are")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def pixels(images):
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def save_pngs(folder, images, names):
    """uint8 images (B, H, W, 3) as PNG files in `folder` (a Path), each written whole or not at all."""
    for name, image in zip(names, images, strict=True):
        with whole(folder / name) as part:
            Image.fromarray(image).save(part, format="png", compress_level=1)


def save_rows(folder, names, rows):
    """The metadata.csv of the image folder `folder` (a Path): `rows` with a column file_name."""
    table = pd.DataFrame(rows).assign(file_name=names).set_index("file_name")
    write_text(folder / "metadata.csv", table.to_csv())


class ImageFolder:
    """A Hugging Face image folder read lazily: `rows` is its metadata, `folder[i:j]` uint8 (B, H, W, 3).

    `columns` are names of words that the metadata must have besides file_name and prompt. Raises
    ArtifactError for a folder without pictures, a picture that cannot be read, and two sizes.
    """

    def __init__(self, folder, columns=()):
        self.folder = Path(folder)
        words = dict.fromkeys(("file_name", "prompt", *columns), str)
        self.rows = read_table(self.folder / "metadata.csv", words)
        if self.rows.empty:
            raise ArtifactError(f"{self.folder / 'metadata.csv'} names no picture: give a folder with some")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        images = [rgb(self.folder / name) for name in self.rows.file_name.to_numpy()[which]]
        sizes = sorted({image.shape for image in images})
        if len(sizes) > 1:
            raise ArtifactError(f"images in {self.folder} have different sizes {sizes}: make them equal")
        return np.stack(images) if images else np.empty((0, 1, 1, 3), np.uint8)
