"""Readers of tables and JSON: a value has its type, or one sentence; writing is whole or not at all."""

import contextlib
import os
import resource
from typing import Literal

import numpy as np
import pytest
import safetensors.torch
import torch

from rlhf_nb import files

COLUMNS = {"rater": str, "n": int, "share": float, "good": bool, "split": Literal["seen", "ood"] | None}
HEAD, GOOD = "rater,n,share,good,split\n", "7,1,0.5,True,seen\n"


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_has_its_types(tmp_path):
    rows = files.read_table(put(tmp_path / "t.csv", HEAD + GOOD + "None,2,,False,\n"), COLUMNS)
    assert rows.rater.tolist() == ["7", "None"] and rows.n.dtype == int and rows.good.dtype == bool
    assert np.isnan(rows.share[1]) and rows.split.isna().tolist() == [False, True]
    assert not len(files.read_table(put(tmp_path / "t.csv", HEAD), COLUMNS))
    for encoded in (HEAD.encode("utf-16"), b"\xef\xbb\xbf" + HEAD.encode()):
        assert list(files.read_table(put(tmp_path / "t.csv", encoded), COLUMNS)) == list(COLUMNS)


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "cannot be read as CSV"),
        (bytes(90), "no column 'rater'"),
        (b"\xe9", "cannot be read as CSV .*utf-8"),
        ("rater,n\n", "no column 'share'"),
        (HEAD + GOOD + "7,1", "column 'good', row 3, must be a valid boolean, not None"),
        (HEAD + '"never closed', "cannot be read as CSV"),
        (HEAD + "7,1,0.5,True,seen,more\n", "rows are longer than its header"),
        (HEAD + ",1,0.5,True,seen\n", "column 'rater', row 2, must be a valid string, not None"),
        (HEAD + "7,many,0.5,True,seen\n", "column 'n', row 2, must be a valid integer.*'many'"),
        (HEAD + f"7,{'9' * 5000},0.5,True,seen\n", "column 'n', row 2"),
        (HEAD + "7,1,inf,True,seen\n", "column 'share', row 2, must be a finite number, not inf"),
        (HEAD + "7,1,0.5,maybe,seen\n", "column 'good', row 2, must be a valid boolean"),
        (HEAD + "7,1,0.5,True,sea\n", "column 'split', row 2, must be 'seen' or 'ood', not 'sea'"),
    ],
)
def test_what_a_table_should_not_hold_is_one_short_sentence(tmp_path, content, words):
    with pytest.raises(files.ArtifactError, match=words) as said:
        files.read_table(put(tmp_path / "t.csv", content), COLUMNS)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "is damaged"),
        ("[1]", "holds no JSON object"),
        ("[" * 100_000, "is damaged"),
        ('{"n": ' + "9" * 5000 + "}", "is damaged"),
        ("{}", "has no n, of: run it"),
        ('{"n": NaN, "of": 1}', "'n' must be a finite number, not nan"),
        ('{"n": "many", "of": 1}', "'n' must be a valid number"),
    ],
)
def test_what_a_json_file_should_not_hold_is_one_sentence(tmp_path, content, words):
    with pytest.raises(files.ArtifactError, match=f"a.json,? {words}"):
        files.read_json(put(tmp_path / "a.json", content), "of", remedy="run it", n=float)


def test_json_in_any_unicode(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        found = files.read_json(put(tmp_path / "a.json", '{"n": 1, "é": []}'.encode(encoding)), "é", n=float)
        assert found == {"n": 1.0, "é": []}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path.name, path)])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "x")
    for read in (files.read_table, files.read_json):
        with pytest.raises(files.ArtifactError, match="x (cannot be read as CSV|is damaged)"):
            read(tmp_path / "x")
    assert not files.intact(tmp_path / "x", "") and files.cached_tensors(tmp_path / "x") is None


@contextlib.contextmanager
def full():
    """A disk on which no file may grow beyond ten bytes, also none that pytest would write meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "x" * 100),
        lambda path: files.write_tensors({"a": torch.zeros(100)}, path),
    ],
)
def test_a_full_disk_leaves_what_was_there(tmp_path, write):
    path = put(tmp_path / "a", "good")
    with (
        pytest.raises(files.ArtifactError, match=r"a cannot be written \(.*too large.*\): make room"),
        full(),
    ):
        write(path)
    assert path.read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_cut_cache_is_made_again(tmp_path):
    path = tmp_path / "c.safetensors"
    assert files.cached_tensors(path) is None
    files.write_tensors(
        {"a": torch.ones(9), "none": torch.ones(0), "one": torch.tensor(True)}, path, {"b": "c"}
    )
    tensors, about = files.cached_tensors(path)
    assert tensors["a"].sum() == 9 and about["b"] == "c"
    for damaged in (path.read_bytes()[:-4], path.read_bytes()[:-4] + b"1234"):
        put(path, damaged)
        assert files.cached_tensors(path) is None
    safetensors.torch.save_file({"a": torch.ones(3, 3)}, path)  # whole, but by another hand
    assert files.cached_tensors(path) is None
