"""Captioned images: every format gives the same pairs, what is skipped is counted, what is wrong is said."""

import io
import json
import os
import subprocess
import sys
import tarfile
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rlhf_nb import data
from rlhf_nb.files import ArtifactError
from rlhf_nb.toy import world


def png(image, **given):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **given)
    return stream.getvalue()


IMAGES = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
ROWS = [(png(image), f"picture {i}", float(i)) for i, image in enumerate(IMAGES)]


def folder(path, rows, caption="caption", score="aesthetic"):
    path.mkdir(parents=True, exist_ok=True)
    for i, (image, *_) in enumerate(rows):
        (path / f"{i:03d}.png").write_bytes(image)
    pd.DataFrame(
        [(f"{i:03d}.png", *row[1:]) for i, row in enumerate(rows)], columns=["file_name", caption, score]
    ).to_csv(path / "metadata.csv", index=False)
    return path


def parquet(
    path,
    rows,
    caption="TEXT",
    score="AESTHETIC_SCORE",
    image="image",
    packed=lambda image: {"bytes": image, "path": None},
):
    path.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        some = rows[len(rows) // 2 :] if shard else rows[: len(rows) // 2]
        pq.write_table(
            pa.table(
                {
                    caption: [r[1] for r in some],
                    image: [packed(r[0]) for r in some],
                    score: [r[2] for r in some],
                }
            ),
            path / f"part-{shard}.parquet",
            row_group_size=4,
        )
    return path


def sample(shard, key, files):
    for suffix, content in files.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))


def tar(path, rows, shards=2):
    path.mkdir(parents=True, exist_ok=True)
    each = -(-len(rows) // shards)
    for s in range(shards):
        with tarfile.open(path / f"{s:05d}.tar", "w") as shard:
            for i, (image, caption, score) in list(enumerate(rows))[s * each : (s + 1) * each]:
                told = {
                    "caption": caption,
                    "AESTHETIC_SCORE": int(score) if score % 1 == 0 else score,
                    **({"note": [1]} if i == 7 else {}),
                }
                sample(
                    shard,
                    f"{i:09d}",
                    {"png": image, "txt": (caption or "").encode(), "json": json.dumps(told).encode()},
                )
        pd.DataFrame({"caption": ["as img2dataset writes it"]}).to_parquet(path / f"{s:05d}.parquet")
    return path


FORMATS = (folder, parquet, tar)


def assert_same(pairs, images, captions):
    pairs = list(pairs)
    assert [caption for _, caption in pairs] == list(captions)
    for (image, _), expected in zip(pairs, images, strict=True):
        assert image.dtype == np.uint8 and np.array_equal(image, expected)


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_gives_the_same_pairs_twice(make, tmp_path):
    pairs = data.CaptionedImages(make(tmp_path / "odd [1] name", ROWS), 100)
    for _ in range(2):
        assert_same(pairs, IMAGES, [row[1] for row in ROWS])
    assert not pairs.skipped
    assert len(list(data.CaptionedImages(tmp_path / "odd [1] name", 5))) == 5


def test_files_globs_and_plain_bytes(tmp_path):
    parquet(tmp_path, ROWS, caption="text", image="jpg", packed=lambda image: image)
    assert_same(
        data.CaptionedImages(tmp_path / "part-1.parquet", 100), IMAGES[6:], [row[1] for row in ROWS[6:]]
    )
    assert_same(data.CaptionedImages(tmp_path / "part-*.parquet", 100), IMAGES, [row[1] for row in ROWS])
    assert_same(
        data.CaptionedImages(folder(tmp_path / "own", ROWS, caption="prompt") / "metadata.csv", 2),
        IMAGES[:2],
        ["picture 0", "picture 1"],
    )
    parquet(tmp_path, ROWS, packed=lambda image: {"bytes": image})
    assert_same(data.CaptionedImages(tmp_path, 100), IMAGES, [row[1] for row in ROWS])


@pytest.mark.parametrize("make", FORMATS)
def test_what_is_skipped_is_counted(make, tmp_path):
    rows = [*ROWS, (ROWS[0][0], "no score", float("nan")), (ROWS[0][0], "between", 9.5)]
    rows[10] = (rows[10][0][:90], "truncated", 10.0)
    rows[11] = (rows[11][0], "" if make is tar else None, 11.0)
    pairs = data.CaptionedImages(make(tmp_path, rows), 100, min_score=9.25)
    for _ in range(2):
        assert_same(pairs, IMAGES[:1], ["between"])
        assert pairs.skipped == {"low score": 11, "unreadable image": 1, "no caption": 1}
    with pytest.raises(ArtifactError, match=r"no captioned image \(rows skipped: 14 x low score, as "):
        list(data.CaptionedImages(tmp_path, 100, min_score=20))


def test_missing_pictures_bombs_and_rubbish_are_counted(tmp_path, monkeypatch, recwarn):
    rows = [
        *ROWS[:3],
        (b"", "empty", 0),
        (b"\x89PNG\r\n\x1a\nrubbish", "rubbish", 0),
        (png(np.zeros((90, 90, 3), np.uint8)), "bomb", 0),
    ]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # a warning above, an error above twice that
    (folder(tmp_path, rows) / "001.png").unlink()
    pairs = data.CaptionedImages(tmp_path, 100)
    assert_same(pairs, IMAGES[[0, 2]], ["picture 0", "picture 2"])
    assert pairs.skipped == {"unreadable image": 4} and not [
        w for w in recwarn if w.category is not ResourceWarning
    ]  # of `datasets`


def test_all_colour_modes_become_rgb(tmp_path, recwarn):
    colour = Image.fromarray(IMAGES[0])
    palette = Image.fromarray(IMAGES[0][..., 0]).convert("P")
    modes = [png(np.asarray(colour.convert(mode))) for mode in ("RGBA", "L", "LA", "1")]
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=bytes(range(16)))
    pairs = list(
        data.CaptionedImages(
            parquet(tmp_path, [(image, "c", 1.0) for image in (*modes, stream.getvalue())]), 9
        )
    )
    assert [image.shape for image, _ in pairs] == [(16, 16, 3)] * 5 and not [
        w for w in recwarn if w.category is not ResourceWarning
    ]  # of `datasets`
    assert np.array_equal(pairs[0][0], IMAGES[0])
    assert np.array_equal(pairs[1][0], np.asarray(colour.convert("L").convert("RGB")))


def test_size_scales_the_short_side_and_crops_the_centre(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    same, tall = IMAGES[0], wide.transpose(1, 0, 2)
    (white, _), (turned, _), (large, _) = data.CaptionedImages(
        folder(tmp_path, [(png(i), "c", 1) for i in (wide, tall, same)]), 9, size=10
    )
    assert white.shape == turned.shape == large.shape == (10, 10, 3)
    assert white.min() > 230 and turned.min() > 230 and 80 < large.mean() < 170
    assert np.array_equal(
        next(iter(data.CaptionedImages(folder(tmp_path, [(png(same), "c", 1)]), 9, size=16)))[0], same
    )


@pytest.mark.parametrize("make", (parquet, tar))
def test_later_rows_are_not_touched(make, tmp_path):
    pairs = data.CaptionedImages(make(tmp_path, ROWS[:2] + [(b"broken", "c", 1.0)] * 48), 2)
    assert len(list(pairs)) == 2 and len(list(islice(pairs, 1))) == 1 and not pairs.skipped


def test_world_is_the_world():
    images, captions, _ = world.pairs(6, 3)
    pairs = data.CaptionedImages("world", 6, seed=3)
    for _ in range(2):
        assert_same(pairs, images, captions)
    assert next(iter(data.CaptionedImages("world", 1, size=32, min_score=5)))[0].shape == (32, 32, 3)


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"no score column \(it has .*image.*\).*set the least score to 0"
    ):
        data.CaptionedImages(parquet(tmp_path, ROWS, score="similarity"), 9, min_score=1)
    with pytest.raises(
        ArtifactError, match=r"no caption column \(it has .*label.*\): name captions caption or"
    ):
        data.CaptionedImages(folder(tmp_path / "folder", ROWS, caption="label"), 9)
    with pytest.raises(ArtifactError, match=r"no image column \(it has TEXT, URL, AESTHETIC_SCORE\)"):
        data.CaptionedImages(
            parquet(tmp_path / "urls", ROWS, image="URL", packed=lambda _: "http://example.org/1.jpg"), 9
        )
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar/a.tar", "w") as shard:
        sample(shard, "1", {"png": ROWS[0][0], "json": b'{"width": 16}'})
    with pytest.raises(ArtifactError, match=r"tar has no caption column \(it has width, png"):
        data.CaptionedImages(tmp_path / "tar", 9)
    (tmp_path / "folder/metadata.csv").write_text("label,caption\n000.png,a\n")
    with pytest.raises(ArtifactError, match=r"no image column \(it has label, caption\).*file_name"):
        data.CaptionedImages(tmp_path / "folder", 9)


def test_missing_and_empty_sources_are_one_sentence(tmp_path):
    for missing in (
        tmp_path,
        tmp_path / "none",
        "./none",
        "none.tar",
        "part/none.parquet",
        "~/no such",
        tmp_path / "*.tar",
    ):
        with pytest.raises(
            ArtifactError, match="there is no metadata.csv, .tar or .parquet file at .*: give an image folder"
        ):
            data.CaptionedImages(missing, 9)
    with pytest.raises(ArtifactError, match="nobody/nothing cannot be read .*hub dataset"):
        data.CaptionedImages("nobody/nothing", 9)
    pq.write_table(
        pa.table({"image": pa.array([], pa.binary()), "text": pa.array([], pa.string())}),
        tmp_path / "empty.parquet",
    )
    with pytest.raises(ArtifactError, match="rows skipped: none"):
        data.CaptionedImages(tmp_path, 9)
    (tmp_path / "folder.tar").mkdir()
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(ArtifactError, match="rows skipped: none"):
        list(data.CaptionedImages(tmp_path, 9))


def test_damaged_files_are_named(tmp_path):
    shard = tar(tmp_path, ROWS) / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b'"picture 8"', b'"picture 8('))  # an open string in its JSON
    pairs = iter(data.CaptionedImages(tmp_path, 100))
    assert len(list(islice(pairs, 8))) == 8  # what comes before the damage is good
    with pytest.raises(ArtifactError, match="00001.tar cannot be read .*: restore it"):
        list(pairs)
    table = parquet(tmp_path / "table", ROWS) / "part-1.parquet"
    whole_table = table.read_bytes()
    for file, content in [(shard, whole[:cut]) for cut in (0, 2048, 3000, 4000, 4608)] + [
        (table, whole_table[:-20])
    ]:
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=f"{file.name} is truncated: restore it"):
            data.CaptionedImages(file.parent, 9)
    table.write_bytes(whole_table[:-60] + b"damage" * 9 + whole_table[-6:])
    with pytest.raises(ArtifactError, match="part-1.parquet cannot be read"):
        data.CaptionedImages(table, 9)


def test_reading_is_silent_and_leaves_nothing_behind(tmp_path):
    for make in FORMATS:
        make(tmp_path / make.__name__, ROWS)
    (tmp_path / "parquet/part-1.parquet").write_bytes(b"damaged" * 999 + b"PAR1")
    script = """
import socket, sys
socket.getaddrinfo = lambda *given, **more: print("network:", given, file=sys.stderr)
from rlhf_nb import data
assert "datasets" not in sys.modules
assert list(data.CaptionedImages("world", 1)) and "datasets" not in sys.modules
for source in ("folder", "parquet/part-0.parquet", "tar"):
    assert list(data.CaptionedImages(source, 99))
try:
    list(data.CaptionedImages("parquet", 99))
except data.ArtifactError:
    print("named")
assert "datasets" not in sys.modules  # which only a hub name needs
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "named\n", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "parquet", "tar"]
