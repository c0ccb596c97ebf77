"""What label files look like in the wild: each is read right, or refused in words that name the place."""

import json

import pytest

from rlhf_nb.feedback.files import read
from rlhf_nb.feedback.store import LabelFileError

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
BOTH = [["ann", "a.png", "good"], ["bob", "a.png", "skip"]]


def saved(path, content):
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(table):
    return table[["rater", "image", "label"]].values.tolist()


@pytest.fixture
def labels(tmp_path):
    """labels(content): what `said` of a file of it is."""
    return lambda content: said(read(saved(tmp_path / "labels.txt", content)))


def test_every_format_is_read(tmp_path):
    studio = read(saved(tmp_path / "s.json", STUDIO))
    assert said(studio) == [["ann@x", "/data/upload/a.png", "good"], ["7", "/data/upload/a.png", "skip"]]
    assert studio.seconds[0] == 3.5 and studio.time.tolist() == [0, 0]
    tia2 = read(saved(tmp_path / "t.json", TIA2))
    given = ((1, "bad"), (2, "good"), (3, "good"))
    assert said(tia2) == [[f"rater-{k}", "images/a.png", v] for k, v in given]
    ours = read(saved(tmp_path / "l.csv", CSV))
    assert said(ours) == BOTH
    assert {*ours.prompt, *tia2.prompt, *studio.prompt} == {"Two cats."}


CELLS = CSV.replace("Two cats.", '"Two cats, one dog."')
ODD = {
    "a byte order mark": CSV.encode("utf-8-sig"),
    "UTF-16, as Excel's Unicode text": CSV.replace(",", "\t").encode("utf-16"),
    "semicolons": CSV.replace(",", ";"),
    "tabs and commas in words": CELLS.replace(",", "\t").replace("cats\t", "cats,"),
    "commas in quotes": CELLS,
    "line ends of other systems": CSV.replace("\n", "\r\n"),
    "and of old ones": CSV.replace("\n", "\r"),
    "empty lines": "\n" + CSV.replace("\nbob", "\n\nbob") + "\n\n",
    "empty fields at the end": CSV.replace("\n", ",,\n"),
    "capitals and spaces": CSV.replace("rater,image", " Rater, IMAGE").replace("good", " Good"),
    "other columns": CSV.replace("\n", ",x\n").replace("label,x", "label,note"),
    "another order": "label,prompt,image,rater\ngood,Two cats.,a.png,ann\nskip,Two cats.,a.png,bob\n",
    "doubled rows": CSV + CSV.partition("\n")[2],
    "numbers": CSV.replace("good", "1"),
    "numbers that were floats": CSV.replace("good", "1.0"),
    "booleans": CSV.replace("good", "True"),
    "decimal commas": CSV.replace(",", ";").replace("\n", ";3,5\n").replace("label;3,5", "label;seconds"),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_csv_may_be_written_otherwise(labels, content):
    assert labels(content) == BOTH


def test_words_that_pandas_takes_for_nothing_are_words(labels):
    assert labels(CSV.replace("ann", "NA").replace("bob", "007")) == [
        ["NA", "a.png", "good"],
        ["007", "a.png", "skip"],
    ]


def chosen(*given, **more):
    """A Label Studio task: choices by control."""
    results = [
        {"type": "choices", "from_name": name, "to_name": "image", "value": {"choices": choices}}
        for name, choices in given
    ]
    annotation = {"id": 1, "completed_by": 1, "was_cancelled": False, "result": results} | more
    return {"id": 1, "data": {"image": "a.png", "prompt": "Two cats."}, "annotations": [annotation]}


FLAT = {
    "image": "a.png",
    "prompt": "Two cats.",
    "alignment": "good",
    "annotator": 1,
    "annotation_id": 5,
    "lead_time": 2.5,
}
ROW = "annotation_id,annotator,alignment,id,image,lead_time,prompt\n5,1,good,1,a.png,2.5,Two cats.\n"
EXPORTS = {
    "a choice that is no list": [chosen(("c", "good"))],
    "the same choice twice": [chosen(("c", ["good", "good"]))],
    "another control beside": [chosen(("flaws", ["hands", "text"]), ("c", ["good"]))],
    "other results beside": [
        chosen(("c", ["good"])) | {"predictions": [{"result": [{"type": "rating"}]}], "drafts": []}
    ],
    "tasks without annotations": [chosen(("c", ["good"])), chosen() | {"annotations": []}],
    "one task": chosen(("c", ["good"])),
    "before version 1": [
        {"completions" if name == "annotations" else name: v for name, v in chosen(("c", ["good"])).items()}
    ],
    "a person without an address": [chosen(("c", ["good"]), completed_by={"id": 1, "email": ""})],
    "JSON-MIN": [FLAT],
    "JSON-MIN, several choices allowed": [FLAT | {"alignment": {"choices": ["good"]}}],
    "CSV": ROW,
    "TSV": ROW.replace(",", "\t"),
    "CSV, several choices allowed": ROW.replace("good", '"{""choices"": [""good""]}"'),
}


@pytest.mark.parametrize("content", EXPORTS.values(), ids=EXPORTS)
def test_label_studio_exports_of_every_kind(labels, content):
    assert labels(content) == [["1", "a.png", "good"]]


TWO = {
    "two controls": [chosen(("beauty", ["bad"]), ("alignment", ["good"]))],
    "now one, now the other": [chosen(("beauty", ["bad"])), chosen(("alignment", ["good"]))],
    "two columns": [FLAT | {"beauty": "bad"}],
}


@pytest.mark.parametrize("content", TWO.values(), ids=TWO)
def test_two_controls_are_refused_by_name(labels, content):
    with pytest.raises(LabelFileError, match="controls .*(beauty, alignment|alignment, beauty)"):
        labels(content)


@pytest.mark.parametrize(
    "content", [[chosen(("c", ["good", "bad"]))], [FLAT | {"alignment": ["good", "bad"]}]]
)
def test_two_choices_are_refused(labels, content):
    with pytest.raises(LabelFileError, match="several choices .good, bad."):
        labels(content)


def test_undecided_votes_of_the_public_set_are_skips(labels):
    votes = {"a.png": TIA2["a.png"] | {"human_labels": [-1, 0, 1, True, 1.0]}}
    assert [label for *_, label in labels(votes)] == ["skip", "bad", "good", "good", "good"]


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
    ("a.csv", "", "whole file: it is empty"),
    ("a.csv", "\n \n", "whole file: it is empty"),
    ("a.csv", b"\xff\xfe\x00", "whole file"),
    ("a.csv", b"\x89PNG\r\n\x1a\n", "not in UTF-8"),
    ("a.csv", "Zo\u00eb".join(CSV.split("ann")).encode("latin-1"), "not in UTF-8"),
    ("a.csv", "rater,image,prompt,label\n", "no judgement"),
    ("a.csv", CSV.replace("label", "verdict"), "column 'label'"),
    ("a.csv", CSV.replace("rater,", "who,"), "column 'rater'"),
    ("a.csv", CSV.replace("image,", "file,"), "column 'image'"),
    ("a.csv", CSV.replace("prompt,", "text,"), "column 'prompt'"),
    ("a.csv", CSV.replace("rater,", "label,rater,"), "header: a column stands there twice"),
    ("a.csv", CSV.partition("\n")[2], "header: no column 'rater'"),
    ("a.csv", CSV.replace("skip", "maybe"), "row 3.*'maybe'"),
    ("a.csv", CSV.replace("skip", "-1"), "row 3.*'-1'"),  # bad to some, undecided to others
    ("a.csv", CSV.replace("skip", "4"), "row 3.*'4'"),
    ("a.csv", CSV.replace("good", ""), "row 2.*label"),
    ("a.csv", CSV.replace("bob", ""), "row 3.*rater is empty"),
    ("a.csv", CSV.replace("ann,a.png", "ann,"), "row 2.*image is empty"),
    ("a.csv", CSV.replace("Two cats.,skip", ",skip"), "row 3.*prompt is empty"),
    ("a.csv", CSV + "x,y\n", "row 4.*prompt is empty"),
    ("a.csv", CSV + "a,b,c,d,e,f\n", "row 4: more fields"),
    ("a.csv", CSV.replace("Two cats.", "Two, cats."), "row 2: more fields .*quotes"),
    ("a.csv", CSV + '"x\n', "not readable as CSV"),
    ("a.csv", CSV.replace("\n", ",soon\n").replace("label,soon", "label,seconds"), "row 2: seconds .*'soon'"),
    ("a.json", "", "whole file"),
    ("a.json", "{", "whole file"),
    ("a.json", "[" * 100_000, "whole file"),
    ("a.json", f"[{'9' * 5000}]", "whole file"),
    ("a.json", "3", "neither"),
    ("a.json", "[]", "no judgement"),
    ("a.json", "{}", "no judgement"),
    ("a.json", ["x"], "task 1"),
    ("a.json", [None, {"annotator": 1}], "task 1"),
    ("a.json", [FLAT, 3], "entry 2: must be an object"),
    ("a.json", [{**FLAT, "image": {"url": "a.png"}}], "entry 1: image must be words"),
    ("a.json", [{**FLAT, "alignment": None}], "entry 1: label must be"),
    ("a.json", without(STUDIO, 0, "data"), "task 1.*'data'"),
    ("a.json", without(STUDIO, 0, "annotations"), "task 1.*'annotations'"),
    ("a.json", without(STUDIO, 0, "annotations", value=3), "task 1"),
    ("a.json", without(STUDIO, 0, "data", "image"), "annotation 1: image is empty"),
    ("a.json", without(STUDIO, 0, "data", "image", value=["a.png", "b.png"]), "image must be words"),
    ("a.json", without(STUDIO, 0, "data", "prompt"), "prompt is empty"),
    ("a.json", without(STUDIO, *ONE, "completed_by"), "rater is empty"),
    ("a.json", without(STUDIO, *ONE, "lead_time", value="long"), "seconds must be a number"),
    ("a.json", without(STUDIO, *ONE, "result"), "annotation 1: no choice"),
    ("a.json", without(STUDIO, *ONE, "result", value=[]), "no choice"),
    ("a.json", without(STUDIO, *ONE, "result", 0, "value"), "no choice"),
    ("a.json", without(STUDIO, *ONE, value="x"), "annotation 1"),
    ("a.json", without(STUDIO, *ONE, "result", 0, "value", "choices", value=["fine"]), "'fine'"),
    ("a.json", without(STUDIO, *ONE, "result", 0, "value", "choices", value=[["good"]]), "label must be"),
    ("a.json", without(TIA2, "a.png", value=[1]), "entry 'a.png'"),
    ("a.json", without(TIA2, "a.png", "human_labels"), "human_labels"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[]), "human_labels"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[0, 2]), "human_labels 2"),
    ("a.json", without(TIA2, "a.png", "human_labels", value=[0, "fine"]), "human_labels 2"),
    ("a.json", without(TIA2, "a.png", "caption"), "prompt is empty"),
    ("a.json", without(TIA2, "a.png", "image"), "image is empty"),
]


@pytest.mark.parametrize("name, content, message", BAD)
def test_wrong_files_are_refused_whole(tmp_path, name, content, message):
    with pytest.raises(LabelFileError, match=message) as error:
        read(saved(tmp_path / name, content))
    assert str(error.value).startswith(name) and "none of it was taken" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["", "none.csv", "~nobody-at-all/labels.csv"])
def test_what_is_no_file_is_refused(tmp_path, place):
    with pytest.raises(LabelFileError, match="not readable"):
        read(place if place.startswith("~") else tmp_path / place)
