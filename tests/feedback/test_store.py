"""The label store: nothing is lost, nothing deleted, and every schema so far still opens."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from rlhf_nb.feedback.store import LabelFileError, Store, Votes, fingerprint, misfit


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


def other(path, version=0, table="notes (word TEXT)"):
    """A SQLite file of some other program."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE {table}")
        db.execute(f"PRAGMA user_version = {version}")
    return path.read_bytes()


def zeroed(content, first, last):
    first, last = round(first * len(content)), round(last * len(content))
    return content[:first] + bytes(last - first) + content[last:]


DAMAGED = {
    "a text": lambda path, whole: b"half a file" * 100,
    "a picture": lambda path, whole: b"\x89PNG\r\n\x1a\n" + bytes(4096),
    "zeroed": lambda path, whole: bytes(len(whole)),
    "zeroed at the start": lambda path, whole: zeroed(whole, 0, 0.1),
    "zeroed in the middle": lambda path, whole: zeroed(whole, 0.4, 0.6),
    "zeroed at the end": lambda path, whole: zeroed(whole, 0.8, 1),
    "truncated": lambda path, whole: whole[: len(whole) // 2],
    "truncated within a page": lambda path, whole: whole[:-100],
    "another program's": lambda path, whole: other(path),
    "another program's of our version": lambda path, whole: other(path, 3),
    "another program's judgements": lambda path, whole: other(path, 3, "judgements (id INTEGER, word TEXT)"),
    "votes": lambda path, whole: Votes(path) and path.read_bytes(),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_store_is_one_sentence_and_stays(path, tmp_path, damage):
    Store(path).add([row(i) for i in range(400)])
    content = damage(tmp_path / "other", path.read_bytes())
    path.write_bytes(content)
    sentence = "cannot be used as a store of labels .*restore it, or move it away"
    with pytest.raises(LabelFileError, match=sentence) as error:
        Store(path)
    assert path.read_bytes() == content and len(str(error.value).splitlines()) == 1


def test_a_damaged_file_of_votes_is_one_sentence_and_stays(path):
    Store(path).add([row()])
    content = path.read_bytes()
    for wrong in (content, b"half a file" * 100):
        path.write_bytes(wrong)
        with pytest.raises(LabelFileError, match="restore it, or move it away"):
            Votes(path)
        assert path.read_bytes() == wrong


def test_damage_under_an_open_store_is_one_sentence(path):
    store = Store(path)
    store.add([row(i) for i in range(400)])
    content = zeroed(path.read_bytes(), 0.4, 0.6)
    path.write_bytes(content)
    with pytest.raises(LabelFileError, match="restore it"):
        store.table()
    assert path.read_bytes() == content


def test_where_a_store_cannot_lie_is_one_sentence(tmp_path):
    for place in (tmp_path, tmp_path / "none" / "f.sqlite"):
        for kind in (Store, Votes):
            with pytest.raises(LabelFileError, match="give it room and leave to write"):
                kind(place)


def test_what_cannot_be_written_takes_nothing_away(path):
    """As on a read-only disk: no journal can be made beside the file."""
    store, votes = Store(path), Votes(path.with_name("v.sqlite"))
    [first] = store.add([row()])
    for one in (store, votes):
        one.path.with_name(f"{one.path.name}-journal").mkdir()
    for act in (
        lambda: store.add([row(1)]),
        lambda: store.undo(first, "ann"),
        lambda: votes.add("ann", "Two cats.", "alignment", 1, "abc"),
    ):
        with pytest.raises(LabelFileError, match="give it room .* what it holds is kept"):
            act()
    for one in (store, votes):
        one.path.with_name(f"{one.path.name}-journal").rmdir()
    assert store.table().image.tolist() == [0] and votes.table().empty


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
    assert not misfit(row(0), images, prompts) and not misfit({**row(0), "picture": None}, images, prompts)
    assert misfit(row(1), images, prompts)  # another prompt's
    assert all(misfit(row(image), images, prompts) for image in (2, -1, "a.png"))
    assert not misfit({**row(0), "picture": fingerprint(images[0])}, images, prompts)
    assert misfit({**row(0), "picture": fingerprint(images[1])}, images, prompts)
    wrong = [row(2), row(1), {**row(0), "picture": "abc"}, row(0)]
    assert [misfit(one, images, prompts) for one in wrong] == ["name", "prompt", "picture", ""]


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
