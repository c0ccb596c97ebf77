"""Label files in and out: each is read whole or not at all, and what was said of other pictures stays out."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import save_images
from PIL import Image

from rlhf_nb.feedback.files import export, imported, joined, read
from rlhf_nb.feedback.raters import counts
from rlhf_nb.feedback.store import LabelFileError, Store, fingerprint
from rlhf_nb.files import ArtifactError
from rlhf_nb.pictures import ImageFolder


def row(image=0, label="good", rater="ann", prompt="Two cats."):
    return {"rater": rater, "image": image, "prompt": prompt, "label": label}


def test_a_large_file_needs_no_images(tmp_path):
    big = {
        f"{i}.png": {"image": f"{i}.png", "caption": "A cup.", "human_labels": [1, i % 2, 1]}
        for i in range(15_000)
    }
    (tmp_path / "big.json").write_text(json.dumps(big))
    table = read(tmp_path / "big.json")
    assert len(table) == 45_000 and counts(table).sum().tolist() == [37_500, 7_500, 0]


@pytest.fixture
def images(tmp_path):
    """Three pictures, two of one prompt."""
    pictures = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    save_images(tmp_path / "in", pictures, {"prompt": ["Two cats.", "A red star.", "Two cats."]})
    return ImageFolder(tmp_path / "in")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "f.sqlite")


def test_export_is_an_image_folder_and_reads_back(tmp_path, images, store):
    store.add([row(0), row(0, "bad", "bob"), row(2, "skip"), row(1), {**row(2), "picture": "0" * 16}])
    export(tmp_path / "out", images, store.table())  # neither another prompt's nor another picture's
    out = ImageFolder(tmp_path / "out")
    assert out.rows.file_name.tolist() == ["000000.png", "000002.png"] and out[:].shape == (2, 8, 8, 3)
    assert out.rows.label.tolist()[0] == 0.5 and out.rows.skip.tolist() == [0, 1]
    for folder, last in ((images, 2), (out, 1)):  # where they come from, and where they went
        back = joined(read(tmp_path / "out" / "judgements.csv"), folder)[0]
        assert [r["image"] for r in back] == [0, 0, last]
        assert [(r["rater"], r["label"]) for r in back] == [("ann", "good"), ("bob", "bad"), ("ann", "skip")]
        assert [r["time"] for r in back] == store.table().time[:3].tolist()


def test_a_picture_drawn_anew_has_lost_its_exported_labels(tmp_path, images, store):
    store.add([{**row(0), "picture": fingerprint(images[[0]][0])}])
    export(tmp_path / "out", images, store.table())
    back = read(tmp_path / "out" / "judgements.csv")
    assert len(joined(back, images)[0]) == len(joined(back, ImageFolder(tmp_path / "out"))[0]) == 1
    Image.new("RGB", (8, 8)).save(images.folder / "000000.png")
    assert not joined(back, images)[0]


def test_an_export_that_cannot_be_written_is_one_sentence(tmp_path, images, store):
    store.add([row(0)])
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", images.folder):  # onto itself, too
        with pytest.raises(ArtifactError, match="cannot be written"):
            export(place, images, store.table())
    assert len(images[:]) == 3


def test_labels_of_other_images_do_not_enter(tmp_path, images, store):
    store.add([row(0), row(1), row(9)])  # the second is another prompt's, the third is not there
    assert [r["image"] for r in joined(store.table(), images)[0]] == [0]
    named = pd.DataFrame([row("000001.png", prompt="A red star."), row("c.png"), row(0)])
    assert [r["image"] for r in joined(named, images)[0]] == [1, 0]
    for name, picture in zip(("bob", "cyd"), images[:], strict=False):
        store.add([{**row(0, rater=name), "picture": fingerprint(picture)}])
    kept = joined(store.table(), images)[0]  # cyd judged a picture that is no longer there
    assert [r["rater"] for r in kept] == ["ann", "bob"]
    again = Store(tmp_path / "g.sqlite")
    again.add(kept)
    old, new = (one.table().drop(columns="id") for one in (store, again))
    assert new.equals(old.loc[[0, 3]].reset_index(drop=True))


def test_what_joins_no_picture_is_counted_by_its_reason(images):
    table = [row(0), row(1), row(7), row("z.png"), {**row(2), "picture": "0" * 16}]
    rows, told = joined(pd.DataFrame(table), images)
    assert len(rows) == 1 and told == (
        "4 of 5 labels join no picture (1 because the picture stands for another prompt; 2 because no "
        "picture here has their name; 1 because it is another picture by now)"
    )
    assert joined(pd.DataFrame([row(0)]), images)[1] == ""


def test_a_file_of_other_pictures_is_refused_and_what_is_known_comes_once(tmp_path, images, store):
    (tmp_path / "l.csv").write_text("rater,image,prompt,label\nann,b.png,Two cats.,good\n")
    with pytest.raises(LabelFileError, match="l.csv: 1 of 1 labels join no picture .*name.*; give"):
        imported(tmp_path / "l.csv", images)
    store.add([row(0), row(2, "bad")])
    export(tmp_path / "out", images, store.table())
    known = joined(store.table(), images)[0]
    assert imported(tmp_path / "out" / "judgements.csv", images, known) == ([], "")
    assert len(imported(tmp_path / "out" / "judgements.csv", images, known[:1])[0]) == 1


NAMES = {
    "its name": ("a cat.png", "a cat.png"),
    "in small letters": ("A Cat.PNG", "a cat.png"),
    "composed otherwise": ("cafe\u0301.png", "caf\u00e9.png"),
    "another suffix": ("a cat.jpg", "a cat.png"),
    "no suffix": ("a cat", "a cat.png"),
    "a path": ("/home/ann/set/a cat.png", "a cat.png"),
    "a Windows path": ("C:\\set\\a cat.png", "a cat.png"),
    "a folder of the set": ("set/sub/a cat.png", "sub/a cat.png"),
    "the name alone": ("a cat.png", "sub/a cat.png"),
    "an upload": ("/data/upload/1/c2c0fb30-a_cat.png", "a cat.png"),
    "an upload from a folder": ("/data/upload/1/c2c0fb30-a_cat_1.png", "sub/a cat (1).png"),
    "an upload's own name": ("/data/upload/1/c2c0fb30-a.png", "c2c0fb30-a.png"),
    "local files": ("/data/local-files/?d=set/sub/a%20cat.png", "sub/a cat.png"),
    "a bucket": ("s3://bucket/set/a cat.png", "a cat.png"),
    "a signed address": ("https://host:80/set/a%20cat.png?X-Amz-Date=1&d=", "a cat.png"),
    "a literal percent": ("100%.png", "100%.png"),
}


@pytest.mark.parametrize("said, name", NAMES.values(), ids=NAMES)
def test_a_picture_is_found_by_what_tools_make_of_its_name(images, said, name):
    images.rows = images.rows.assign(file_name=[name, "sub/other.png", "other.png"])
    assert [r["image"] for r in joined(pd.DataFrame([row(said)]), images)[0]] == [0]


STRANGE = [
    "val/a.png",
    "b.png",
    "c2c0fb30-b.png",
    "",
    "/",
    "http://[",
    "data:image/png;base64,AAAA",
    "4",
    "-1",
]


@pytest.mark.parametrize("said", STRANGE)
def test_another_picture_is_not_taken_for_one_of_ours(images, said):
    images.rows = images.rows.assign(file_name=["train/a.png", "x/a.png", "train/c.png"])
    assert joined(pd.DataFrame([row(said)]), images)[0] == []


def test_own_pictures_are_found_by_the_names_they_came_with(images):
    """The second one's own name is that which the first one has got."""
    images.rows = images.rows.assign(source=["b/0.jpg", "b/000000.png", "b/1.jpg"])
    given = [row("b/0.jpg"), row("000000.png", prompt="A red star."), row("1.jpg"), row(2), row("2")]
    assert [r["image"] for r in joined(pd.DataFrame(given), images)[0]] == [0, 1, 2, 2, 2]


def test_spaces_in_a_prompt_do_not_part_it_from_its_picture(images):
    assert joined(pd.DataFrame([row(0, prompt=" Two  cats.")]), images)[0][0]["prompt"] == "Two cats."
