"""Where captioned pictures lie: files as they are met in the wild, and what is wrong with some."""

import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rlhf_nb import data
from rlhf_nb.files import ArtifactError


def picture(i=0, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (20 * i, 255 - 20 * i, 0)).save(stream, kind)
    return stream.getvalue()


def shard(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def captions(source):
    """{name: caption} of all pairs, none of them skipped."""
    pairs = data.CaptionedImages(source)
    found = {name: caption for name, caption, _ in pairs.named()}
    assert not pairs.skipped
    return found


@pytest.mark.parametrize(
    "caption",
    [
        ["two men", "a man"],
        [None, "", "two men"],
        {"raw": "two men", "tokens": ["two", "men"], "sentid": 7},
        {"imgid": 3, "en": "two men"},
        [{"id": 3, "caption": "two men"}],
        "two men",
        b"two men",
        '["two men", "a man"]',
        "['two men']",
    ],
)
def test_captions_are_words_lists_objects_or_bytes(caption, tmp_path):
    rows = {"image": pa.array([{"bytes": picture(), "path": "a"}]), "caption": pa.array([caption])}
    assert captions(table(tmp_path / "f.parquet", **rows)) == {"a": "two men"}
    if not isinstance(caption, bytes):
        said = json.dumps({"caption": caption}).encode()
        assert captions(shard(tmp_path / "f.tar", [("a.png", picture()), ("a.json", said)])) == {
            "a.png": "two men"
        }


def test_the_first_caption_column_that_says_something_is_taken(tmp_path):
    rows = {
        "image": [picture()] * 3,
        "text": ["second", "second", None],
        "Caption": ["first", "", None],
        "label": [1, 2, 3],
    }
    pairs = data.CaptionedImages(table(tmp_path / "f.parquet", **rows))
    assert [caption for _, caption in pairs] == ["first", "second"]
    assert pairs.skipped == {"no caption": 1} and pairs.left_out() == "1 x no caption, as f 2"


def test_a_sentence_in_brackets_stays_a_sentence(tmp_path):
    table(tmp_path / "f.parquet", image=[picture()] * 2, text=["[V] dog", "[a, b"])
    assert list(captions(tmp_path).values()) == ["[V] dog", "[a, b"]


def test_one_tar_holds_pictures_of_all_kinds(tmp_path):
    kinds = {"jpg": "JPEG", "png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "JPG": "JPEG", "Png": "PNG"}
    entries = []
    for i, (suffix, kind) in enumerate(kinds.items()):
        entries += [(f"{i}.{suffix}", picture(i, kind)), (f"{i}.txt", b"\xef\xbb\xbfnumber %d" % i)]
    assert captions(shard(tmp_path / "m.tar", entries)) == {
        f"{i}.{suffix}": f"number {i}" for i, suffix in enumerate(kinds)
    }


def test_tars_as_img2dataset_and_others_write_them(tmp_path):
    told = {"caption": "a cat", "url": "http://x.org/a.jpg", "key": "0", "status": "success", "exif": "{}"}
    entries = [
        *[("0000/00.json", json.dumps(told).encode()), ("0000/00.jpg", picture(0, "JPEG"))],
        *[("0000/01.json", json.dumps(told | {"caption": None}).encode()), ("0000/01.jpg", picture())],
        *[("0000/02.jpg", picture(2)), ("0000/02.txt", "eine Brücke".encode("latin-1"))],
        *[("x.input.jpg", picture(3)), ("x.outputs.txt", b"one name to its first dot")],
        *[("y.1.jpg", picture(4)), ("y.1.txt", b"first"), ("y.2.png", picture(5)), ("y.2.txt", b"second")],
        *[("z.mp4", b"film"), ("z.npy", b"numbers"), ("z.pyd", b"a pickle"), ("README.txt", b"words")],
    ]
    pairs = data.CaptionedImages(shard(tmp_path / "m.tar", entries))
    assert {name: caption for name, caption, _ in pairs.named()} == {
        "0000/00.jpg": "a cat",
        "0000/02.jpg": "eine Brücke",
        "x.input.jpg": "one name to its first dot",
        "y.1.jpg": "first",
        "y.2.png": "second",
    }
    assert pairs.left_out() == "1 x no caption, as 0000/01.jpg"


def test_tables_hold_pictures_bytes_or_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(2))
    for name, column in {
        "struct": [{"bytes": picture(1), "path": "x.png"}, {"bytes": None, "path": "b.png"}],
        "list": [[{"bytes": picture(1), "path": "x.png"}], [{"bytes": picture(2), "path": "b.png"}]],
        "bytes": [picture(1), picture(2)],
        "path": ["sub/a.png", "b.png"],
    }.items():
        file = table(
            tmp_path / f"{name}.parquet", **{"img" if name == "path" else "image": column}, text=["a", "b"]
        )
        images = [image[0, 0, 0] for image, _ in data.CaptionedImages(file)]
        assert images == [20, 40], name
    assert list(captions(tmp_path / "bytes.parquet")) == ["bytes 0", "bytes 1"]


def test_folders_with_metadata_in_any_words(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.JPG", "007", "sub/b.png"):
        (tmp_path / name).write_bytes(picture())
    names, right = ("a.JPG", "007", "sub/b.png"), {"a.JPG": "None", "007": "1984", "sub/b.png": "a, b"}
    lines = [f'{name},"{caption}"' for name, caption in right.items()]
    windows = [line.replace("/", "\\") for line in lines]
    for head, body in (("file_name,text", lines), ("\ufeffImage, Prompt", lines), ("path,caption", windows)):
        (tmp_path / "metadata.csv").write_text("\n".join([head, *body]), encoding="utf-8")
        assert captions(tmp_path) == captions(tmp_path / "metadata.csv") == right
    (tmp_path / "metadata.csv").unlink()
    rows = [json.dumps({"file_name": name, "text": [right[name]]}) for name in names]
    (tmp_path / "metadata.jsonl").write_text("\ufeff\n" + "\n\n".join(rows) + "\n \n", encoding="utf-8")
    assert captions(tmp_path) == captions(str(tmp_path / "*.jsonl")) == right
    (tmp_path / "metadata.jsonl").unlink()
    table(tmp_path / "metadata.parquet", file_name=names, text=[*right.values()])
    assert captions(tmp_path) == right


def test_nested_folders_keep_their_names(tmp_path):
    for part in ("train", "test/deep"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "1.png").write_bytes(picture())
        (tmp_path / part / "metadata.csv").write_text("file_name,prompt\n./1.png,one\n")
    assert captions(tmp_path) == {"test/deep/1.png": "one", "train/1.png": "one"}


def test_pictures_with_words_beside_them(tmp_path):
    (tmp_path / "10_dog").mkdir()
    for name, caption in {"10_dog/a.v1": "first", "10_dog/a.v2": "second", "c": "third"}.items():
        (tmp_path / f"{name}.JPEG").write_bytes(picture())
        (tmp_path / f"{name}.txt").write_text(caption)
    (tmp_path / "d.png").write_bytes(picture())
    (tmp_path / "d.json").write_text('{"prompt": "fourth"}')
    (tmp_path / "x.png").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "round.png").symlink_to("round.png")
    assert captions(tmp_path) == {
        "10_dog/a.v1.JPEG": "first",
        "10_dog/a.v2.JPEG": "second",
        "c.JPEG": "third",
        "d.png": "fourth",
    }
    for words in tmp_path.rglob("*.[tj]*"):
        words.unlink()
    with pytest.raises(ArtifactError, match="no caption column .*: name captions caption or text or prompt"):
        data.CaptionedImages(tmp_path)


def test_bad_pictures_are_counted_and_the_first_is_named(tmp_path):
    bad = {
        "cut.png": picture()[:50],
        "empty.png": b"",
        "page.jpg": b"<html>404</html>",
        "good.png": picture(),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "x.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = [
        *bad,
        "x.png",
        "loop.png",
        "pipe.png",
        "missing.png",
        "http://x.org/1.png",
        "/dev/zero",
        "a" * 300,
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *(f"{name},c" for name in names)]))
    pairs = data.CaptionedImages(tmp_path)
    assert [name for name, *_ in pairs.named()] == ["good.png"]
    assert pairs.left_out() == "10 x unreadable image, as cut.png"


def test_damaged_files_are_one_sentence(tmp_path):
    rows = {"image": [picture()] * 9, "text": ["c"] * 9}
    whole = table(tmp_path / "f.parquet", **rows).read_bytes()
    tar = shard(tmp_path / "f.tar", [("a.png", picture()), ("a.txt", b"c")]).read_bytes()
    for name, content in {
        "metadata.csv": b"file_name,text\na.png,A cat, black\n",
        "latin/metadata.csv": "file_name,text\na.png,Brücke\n".encode("latin-1"),
        "zero/metadata.csv": b"",
        "semicolon/metadata.csv": b"file_name;text\na.png;c\n",
        "words/metadata.jsonl": b"words",
        "list/metadata.jsonl": b"[1, 2]\n",
        "deep/metadata.jsonl": b"[" * 100_000,
        "cut/metadata.jsonl": b'{"file_name": "a.png", "te',
        "cut/f.parquet": whole[: len(whole) // 2],
        "foreign/f.parquet": b"PAR1" * 9,
        "garbled/f.parquet": whole[:-60] + b"damage" * 9 + whole[-6:],
        "cut/f.tar": tar[:700],
        "foreign/f.tar": b"words" + bytes(2000),
        "page/f.tar": b"<html>" * 200,
        "json/f.tar": shard(tmp_path / "j.tar", [("a.png", picture()), ("a.json", b"[1]")]).read_bytes(),
    }.items():
        path = tmp_path / "damaged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            list(data.CaptionedImages(path))
        assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value), name
        path.unlink()


def test_a_place_that_is_no_hub_name_never_asks_the_network(tmp_path, monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **_: asked.append(name) or {}[name])
    (tmp_path / "notes.zip").write_bytes(b"words")
    local = ("./none", "~/none", "~nobody-here/x", "a/b/c", "my pictures", "x*.tar", "a.csv", "", "a\0b")
    for place in (*local, "https://x.org/a.tar", "C:\\pictures", tmp_path / "notes.zip", "a" * 5000 + "/b"):
        with pytest.raises(ArtifactError):
            data.CaptionedImages(place)
    assert asked == []
    with pytest.raises(ArtifactError, match="somebody/set cannot be read .*hub dataset"):
        data.CaptionedImages("somebody/set")
    assert asked == ["somebody/set"]


def test_rows_of_the_hub_never_name_local_files(tmp_path, monkeypatch):
    import datasets

    (tmp_path / "local.png").write_bytes(picture())
    rows = [
        {"image": {"bytes": picture(3), "path": "a.png"}, "text": "c", "file_name": "local.png"},
        {"image": None, "text": "c", "file_name": str(tmp_path / "local.png")},
    ]
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **_: {"train": stream})
    pairs = data.CaptionedImages("somebody/set")
    assert [(name, int(image[0, 0, 0])) for name, _, image in pairs.named()] == [("a.png", 60)]
    assert pairs.skipped == {"unreadable image": 1}


def test_scores_that_are_no_numbers_are_low(tmp_path):
    rows = {"image": [picture()] * 3, "text": ["a", "b", "c"], "Aesthetic": ["6.5", "n/a", None]}
    pairs = data.CaptionedImages(table(tmp_path / "f.parquet", **rows), min_score=5.0)
    assert [caption for _, caption in pairs] == ["a"] and pairs.skipped == {"low score": 2}
    assert np.array_equal(next(iter(pairs))[0], np.array(Image.open(io.BytesIO(picture()))))
