"""Label files in and out: each is read whole or not at all, and what was said of other pictures stays out."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import save_images

from rlhf_nb.feedback.files import belonging, export, read
from rlhf_nb.feedback.raters import counts
from rlhf_nb.feedback.store import LabelFileError, Store, fingerprint
from rlhf_nb.files import ImageFolder


def row(image=0, label="good", rater="ann", prompt="Two cats."):
    return {"rater": rater, "image": image, "prompt": prompt, "label": label}


STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/a.png", "prompt": "Two cats."},
        "annotations": [
            {
                "completed_by": {"email": "ann@x"},
                "lead_time": 3.5,
                "result": [{"type": "choices", "value": {"choices": ["Good"]}}],
            },
            {"completed_by": 7, "was_cancelled": True, "result": []},
        ],
    }
]
TIA2 = {"a.png": {"image": "images/a.png", "caption": "Two cats.", "human_labels": [0, 1, 1]}}
CSV = "rater,image,prompt,label\nann,a.png,Two cats.,good\nbob,a.png,Two cats.,skip\n"


def saved(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def said(table):
    return table[["rater", "image", "label"]].values.tolist()


def test_every_format_is_read(tmp_path):
    studio = read(saved(tmp_path / "s.json", STUDIO))
    assert said(studio) == [["ann@x", "a.png", "good"], ["7", "a.png", "skip"]] and studio.seconds[0] == 3.5
    tia2 = read(saved(tmp_path / "t.json", TIA2))
    assert said(tia2) == [[f"rater-{k}", "a.png", v] for k, v in ((1, "bad"), (2, "good"), (3, "good"))]
    ours = read(saved(tmp_path / "l.csv", CSV))
    assert said(ours) == [["ann", "a.png", "good"], ["bob", "a.png", "skip"]]
    assert {*ours.prompt, *tia2.prompt, *studio.prompt} == {"Two cats."}


def test_a_large_file_needs_no_images(tmp_path):
    big = {
        f"{i}.png": {"image": f"{i}.png", "caption": "A cup.", "human_labels": [1, i % 2, 1]}
        for i in range(15_000)
    }
    table = read(saved(tmp_path / "big.json", big))
    assert len(table) == 45_000 and counts(table).sum().tolist() == [37_500, 7_500, 0]


def without(content, *keys, value=None):
    """A deep copy with the entry at `keys` dropped, or set to `value`."""
    content = json.loads(json.dumps(content))
    at = content
    for key in keys[:-1]:
        at = at[key]
    if value is None:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return content


ONE = (0, "annotations", 0)
BAD = [
    ("a.csv", "", "whole file"),
    ("a.csv", "rater,image,prompt,label\n", "no judgement"),
    ("a.csv", CSV.replace("label", "verdict"), "column 'label'"),
    ("a.csv", CSV.replace("rater,", "who,"), "column 'rater'"),
    ("a.csv", CSV.replace("image,", "file,"), "column 'image'"),
    ("a.csv", CSV.replace("prompt,", "text,"), "column 'prompt'"),
    ("a.csv", CSV.replace("skip", "maybe"), "row 3.*'maybe'"),
    ("a.csv", CSV.replace("good", ""), "row 2.*label"),
    ("a.csv", CSV.replace("bob", ""), "row 3.*rater is empty"),
    ("a.csv", CSV.replace("ann,a.png", "ann,"), "row 2.*image is empty"),
    ("a.csv", CSV.replace("Two cats.,skip", ",skip"), "row 3.*prompt is empty"),
    ("a.csv", CSV + "x,y\n", "row 4.*prompt is empty"),
    ("a.csv", CSV + "a,b,c,d,e,f\n", "whole file"),
    ("a.json", "", "whole file"),
    ("a.json", "{", "whole file"),
    ("a.json", "3", "neither"),
    ("a.json", "[]", "no judgement"),
    ("a.json", "{}", "no judgement"),
    ("a.json", ["x"], "task 1"),
    ("a.json", without(STUDIO, 0, "data"), "task 1.*'data'"),
    ("a.json", without(STUDIO, 0, "annotations"), "task 1.*'annotations'"),
    ("a.json", without(STUDIO, 0, "annotations", value=3), "task 1"),
    ("a.json", without(STUDIO, 0, "data", "image"), "annotation 1: image is empty"),
    ("a.json", without(STUDIO, 0, "data", "prompt"), "prompt is empty"),
    ("a.json", without(STUDIO, *ONE, "completed_by"), "rater is empty"),
    ("a.json", without(STUDIO, *ONE, "result"), "annotation 1: no choice"),
    ("a.json", without(STUDIO, *ONE, "result", value=[]), "no choice"),
    ("a.json", without(STUDIO, *ONE, "result", 0, "value"), "no choice"),
    ("a.json", without(STUDIO, *ONE, value="x"), "annotation 1"),
    ("a.json", without(STUDIO, *ONE, "result", 0, "value", "choices", value=["fine"]), "'fine'"),
    ("a.json", without(TIA2, "a.png", value=[1]), "entry 'a.png'"),
    ("a.json", without(TIA2, "a.png", "human_labels"), "human_labels"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[]), "human_labels"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[0, 2]), "human_labels 2"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[0, True]), "human_labels 2"),
    ("a.json", without(TIA2, "a.png", "caption"), "prompt is empty"),
    ("a.json", without(TIA2, "a.png", "image"), "image is empty"),
]


@pytest.mark.parametrize("name, content, message", BAD)
def test_wrong_files_are_refused_whole(tmp_path, name, content, message):
    with pytest.raises(LabelFileError, match=message) as error:
        read(saved(tmp_path / name, content))
    assert str(error.value).startswith(name) and "none of it was taken" in str(error.value)


def test_export_is_an_image_folder_and_reads_back(tmp_path):
    save_images(tmp_path / "in", np.zeros((3, 8, 8, 3), np.uint8), {"prompt": ["Two cats."] * 3})
    images, store = ImageFolder(tmp_path / "in"), Store(tmp_path / "f.sqlite")
    store.add([row(0), row(0, "bad", "bob"), row(2, "skip")])
    export(tmp_path / "out", images, store.table())
    out = ImageFolder(tmp_path / "out")
    assert out.rows.file_name.tolist() == ["000000.png", "000002.png"] and out[:].shape == (2, 8, 8, 3)
    assert out.rows.label.tolist()[0] == 0.5 and out.rows.skip.tolist() == [0, 1]
    again = Store(tmp_path / "g.sqlite")
    again.add(belonging(read(tmp_path / "out" / "judgements.csv"), images))
    assert said(again.table()) == said(store.table())


def test_labels_of_other_images_do_not_enter(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    save_images(tmp_path / "in", pictures, {"prompt": ["Two cats.", "A red star."]})
    store, images = Store(tmp_path / "f.sqlite"), ImageFolder(tmp_path / "in")
    store.add([row(0), row(1), row(9)])  # the second is another prompt's, the third is not there
    assert [r["image"] for r in belonging(store.table(), images)] == [0]
    named = pd.DataFrame([row("000001.png", prompt="A red star."), row("c.png"), row(0)])
    assert [r["image"] for r in belonging(named, images)] == [1, 0]
    for name, picture in zip(("bob", "cyd"), pictures, strict=True):
        store.add([{**row(0, rater=name), "picture": fingerprint(picture)}])
    kept = belonging(store.table(), images)  # cyd judged a picture that is no longer there
    assert [r["rater"] for r in kept] == ["ann", "bob"]
    again = Store(tmp_path / "g.sqlite")
    again.add(kept)
    assert (
        again.table()
        .drop(columns="id")
        .equals(store.table().drop(columns="id").loc[[0, 3]].reset_index(drop=True))
    )
