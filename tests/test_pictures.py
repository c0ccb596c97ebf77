"""Pictures: every kind of file becomes 8-bit RGB, what is none is one sentence, folders round-trip."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from conftest import save_images
from PIL import Image

from rlhf_nb import pictures
from rlhf_nb.files import ArtifactError

COLOUR = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def encoded(image, kind="PNG", **given):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **given)
    return stream.getvalue()


def png16(samples, kind):
    """A PNG of 16-bit samples (H, W, C), which Pillow does not write in colour; `kind` is its colour type."""
    height, width, _ = samples.shape

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def on_white(colour, alpha):
    share = alpha.astype(float)[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_sixteen_bits_keep_their_upper_byte(tmp_path):
    grey, colour = GREY.astype(np.uint16) * 257, COLOUR.astype(np.uint16) * 257
    of_grey = np.repeat(GREY[..., None], 3, 2)
    assert np.array_equal(pictures.rgb(encoded(grey)), of_grey)
    for order in ("<u2", ">u2"):  # TIFF of either byte order
        assert np.array_equal(pictures.rgb(encoded(Image.fromarray(grey.astype(order)), "TIFF")), of_grey)
    assert np.array_equal(pictures.rgb(encoded(grey.astype(np.int32), "TIFF")), of_grey)
    assert np.array_equal(pictures.rgb(b"P5 7 9 65535\n" + grey.astype(">u2").tobytes()), of_grey)
    assert np.array_equal(pictures.rgb(png16(colour, 2)), COLOUR)
    alpha = np.full((9, 7, 1), 0xFFFF, np.uint16)
    assert np.array_equal(pictures.rgb(png16(np.concatenate([colour, alpha], 2), 6)), COLOUR)
    assert np.array_equal(pictures.rgb(png16(np.concatenate([grey[..., None], alpha], 2), 4)), of_grey)


def test_what_is_transparent_shows_white_paper():
    alpha = np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8)
    seen = pictures.rgb(encoded(np.dstack([COLOUR, alpha])))
    assert np.abs(seen - on_white(COLOUR, alpha)).max() <= 1
    assert np.array_equal(pictures.rgb(encoded(np.dstack([COLOUR, alpha | 255]))), COLOUR)
    clear = np.zeros((9, 7), np.uint8)
    assert (pictures.rgb(encoded(np.dstack([COLOUR, clear]), "WEBP", lossless=True)) == 255).all()
    assert (pictures.rgb(encoded(np.dstack([GREY, clear]))) == 255).all()
    palette = Image.fromarray(GREY).convert("P")
    assert (pictures.rgb(encoded(palette, transparency=bytes(256))) == 255).all()
    assert np.array_equal(pictures.rgb(encoded(palette))[..., 0], GREY)
    black = Image.fromarray(np.zeros((9, 7, 3), np.uint8))
    assert (pictures.rgb(encoded(black, transparency=(0, 0, 0))) == 255).all()


def test_other_colours_films_and_turned_pictures():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    assert np.array_equal(pictures.rgb(encoded(COLOUR, exif=exif)), np.rot90(COLOUR, -1))
    red = Image.new("CMYK", (7, 9), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        assert np.abs(pictures.rgb(encoded(red, kind)).astype(int) - (255, 0, 0)).max() <= 3
    first, second = (Image.new("RGB", (7, 9), colour) for colour in ("blue", "red"))
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        film = encoded(first, kind, save_all=True, append_images=[second])
        assert np.abs(pictures.rgb(film)[0, 0].astype(int) - (0, 0, 255)).max() <= 3
    for mode in ("1", "L", "YCbCr"):
        image = Image.fromarray(COLOUR).convert(mode)
        seen = pictures.rgb(encoded(image, "TIFF"))
        assert seen.shape == (9, 7, 3) and np.abs(seen.astype(int) - image.convert("RGB")).max() <= 1
    assert np.array_equal(pictures.rgb(COLOUR), COLOUR)


def test_what_is_no_picture_is_one_sentence(tmp_path, monkeypatch):
    good = encoded(COLOUR)
    bad = {
        "cut": good[:60],
        "empty": b"",
        "page": b"<!DOCTYPE html><html>404</html>",
        "rubbish": b"\x89PNG\r\n\x1a\nrubbish",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "floats": encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    }
    for name, content in bad.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "locked.jpg").symlink_to("/proc/self/mem")  # can be opened, cannot be read, even by root
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # a warning above, an error above twice that
    (tmp_path / "bomb.jpg").write_bytes(good)
    for path in [*tmp_path.iterdir(), tmp_path / "missing.jpg"]:
        with pytest.raises(ArtifactError, match=f"{path.name} cannot be read .*: restore it or leave it out"):
            pictures.rgb(path)


def test_a_folder_round_trips_and_a_bad_picture_is_named(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    save_images(tmp_path, images, {"prompt": ["a", "1984", "c"], "use": ["label", "test", "label"]})
    folder = pictures.ImageFolder(tmp_path, ("use",))
    assert np.array_equal(folder[:], images) and np.array_equal(folder[np.array([2, 0])], images[[2, 0]])
    assert len(folder[[]]) == 0 and folder.rows.prompt.tolist() == ["a", "1984", "c"]
    with pytest.raises(ArtifactError, match=r"no column 'split' \(it has .*use"):
        pictures.ImageFolder(tmp_path, ("split",))
    pictures.save_pngs(tmp_path, images[:1, :4], ["000001.png"])
    with pytest.raises(ArtifactError, match="different sizes"):
        folder[:]
    (tmp_path / "000001.png").write_bytes(encoded(images[1])[:60])
    with pytest.raises(ArtifactError, match="000001.png cannot be read"):
        folder[:]
    (tmp_path / "metadata.csv").write_text("file_name,prompt\n")
    with pytest.raises(ArtifactError, match="names no picture"):
        pictures.ImageFolder(tmp_path)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(ArtifactError, match="cannot be written"):
        pictures.save_pngs(tmp_path / "file", COLOUR[None], ["a.png"])
