"""The label store: nothing is lost, nothing deleted, and every schema so far still opens."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from rlhf_nb.feedback.store import LabelFileError, Store, fingerprint, fits


def row(image=0, label="good", rater="ann", prompt="Two cats."):
    return {"rater": rater, "image": image, "prompt": prompt, "label": label}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f.sqlite"


def test_store_keeps_everything_and_undo_appends(path):
    store = Store(path)
    first, second = store.add([row(0), row(1, "bad")])
    store.undo(first, "ann")
    assert store.table().image.tolist() == [1]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM judgements").fetchone() == (3,)  # nothing is ever deleted
    with pytest.raises(ValueError, match=f"'bob' has no judgement {second}"):
        store.undo(second, "bob")
    assert Store(path).table().equals(store.table())


def test_a_judgement_takes_the_place_of_another_or_nothing_happens(path):
    store = Store(path)
    [first] = store.add([row()])
    store.add([row(label="bad")], replaces=first)
    assert store.table().label.tolist() == ["bad"]
    with pytest.raises(ValueError, match="no judgement 99"):
        store.add([row(1)], replaces=99)
    assert store.table().label.tolist() == ["bad"]


def test_store_refuses_bad_labels_whole(path):
    store = Store(path)
    with pytest.raises(ValueError, match="'great'"):
        store.add([row(0), row(1, "great")])
    assert store.table().empty


def test_two_writers_on_one_file(path):
    a, b = Store(path), Store(path)
    for i in range(20):
        a.add([row(i)])
        b.add([row(i, "bad", "bob")])
    assert len(a.table()) == 40


def test_newer_schema_is_refused(path):
    Store(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LabelFileError, match="schema 99"):
        Store(path)


def test_a_damaged_store_is_one_sentence_and_stays(path):
    path.write_bytes(b"half a file" * 100)
    sentence = "cannot be read as a store of labels .*restore it, or move it away"
    with pytest.raises(LabelFileError, match=sentence):
        Store(path)
    assert path.read_bytes() == b"half a file" * 100


FIRST = "id INTEGER PRIMARY KEY, rater TEXT, image INTEGER, prompt TEXT, label TEXT, shown_with TEXT"


@pytest.mark.parametrize("schema, more", [(1, ""), (2, ", position INTEGER")])
def test_a_store_of_an_earlier_schema_is_brought_up_to_date(path, schema, more):
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE judgements ({FIRST}, seconds REAL, time REAL, undoes INTEGER{more})")
        db.execute(
            "INSERT INTO judgements (rater, image, prompt, label) VALUES ('ann', 0, 'Two cats.', 'good')"
        )
        db.execute(f"PRAGMA user_version = {schema}")
    store = Store(path)
    store.add([{**row(1), "position": 3, "picture": "abc"}])
    assert store.table().image.tolist() == [0, 1] and store.table().picture[1] == "abc"


def test_reading_a_finished_store_does_not_touch_it(path):
    Store(path).add([row(0)])
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert len(Store(path).table()) == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_judgement_fits_its_own_picture_only():
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    prompts = ["Two cats.", "A red star."]
    assert fits(row(0), images, prompts) and fits({**row(0), "picture": None}, images, prompts)
    assert not fits(row(1), images, prompts)  # another prompt's
    assert not any(fits(row(image), images, prompts) for image in (2, -1, "a.png"))
    assert fits({**row(0), "picture": fingerprint(images[0])}, images, prompts)
    assert not fits({**row(0), "picture": fingerprint(images[1])}, images, prompts)


WRITER = """
import sys
from rlhf_nb.feedback.store import Store
store = Store(sys.argv[1])
for i in range(int(sys.argv[3])):
    [n] = store.add([{"rater": sys.argv[2], "image": i, "prompt": "Two cats.", "label": "good"}])
    print(n, flush=True)
"""


def test_killed_writers_lose_nothing_they_had_acknowledged(tmp_path, path):
    """Four processes write to one file and are killed outright; RLHF_NB_JUDGEMENTS=10000 takes longer."""
    each = int(os.environ.get("RLHF_NB_JUDGEMENTS", 400)) // 4
    logs = [open(tmp_path / f"{k}.txt", "w+") for k in range(4)]
    command = [sys.executable, "-c", WRITER, path]
    writers = [subprocess.Popen([*command, f"r{k}", str(each)], stdout=log) for k, log in enumerate(logs)]
    while sum(len(open(log.name).readlines()) for log in logs) < 2 * each:
        assert any(w.poll() is None for w in writers)
        time.sleep(0.02)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    said = {int(n) for log in logs for n in open(log.name).read().split("\n")[:-1]}
    kept = Store(path).table()
    assert said <= set(kept.id) and len(said) >= 2 * each
    assert len(kept) <= len(said) + 4  # at most one each on disk but not yet said
