"""The label store, simulated raters, agreement, and the widget that writes to the same store."""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from rlhf_nb import feedback


def row(image=0, label="good", rater="ann", prompt="Two cats."):
    return {"rater": rater, "image": image, "prompt": prompt, "label": label}


def test_store_keeps_everything_and_undo_appends(tmp_path):
    store = feedback.Store(tmp_path / "f.sqlite")
    first, second = store.add([row(0), row(1, "bad")])
    store.undo(first, "ann")
    assert store.table().image.tolist() == [1]
    with sqlite3.connect(tmp_path / "f.sqlite") as db:
        assert db.execute("SELECT count(*) FROM judgements").fetchone() == (3,)  # nothing is ever deleted
    with pytest.raises(ValueError, match="no judgement"):
        store.undo(second, "bob")
    assert feedback.Store(tmp_path / "f.sqlite").table().equals(store.table())


def test_store_refuses_bad_labels_whole(tmp_path):
    store = feedback.Store(tmp_path / "f.sqlite")
    with pytest.raises(ValueError, match="'great'"):
        store.add([row(0), row(1, "great")])
    assert store.table().empty


def test_two_writers_on_one_file(tmp_path):
    a, b = feedback.Store(tmp_path / "f.sqlite"), feedback.Store(tmp_path / "f.sqlite")
    for i in range(20):
        a.add([row(i)])
        b.add([row(i, "bad", "bob")])
    assert len(a.table()) == 40


def test_newer_schema_is_refused(tmp_path):
    feedback.Store(tmp_path / "f.sqlite")
    with sqlite3.connect(tmp_path / "f.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="schema 99"):
        feedback.Store(tmp_path / "f.sqlite")


def test_majority_leaves_out_ties_and_skips():
    votes = {0: "good good bad", 1: "good bad skip", 2: "bad skip skip", 3: "bad bad good", 4: "good good good"}
    table = pd.DataFrame([row(i, v, f"r{k}") for i, text in votes.items() for k, v in enumerate(text.split())])
    assert feedback.majority(table).to_dict() == {0: 1.0, 3: 0.0, 4: 1.0}


def test_flip_rate_gives_the_yardstick_agreement():
    """Three raters who err at flip_rate(kappa) on balanced labels agree with kappa."""
    rng, n = np.random.default_rng(0), 8000
    truth = rng.random(n) < 0.5
    rows = [row(i, "good" if truth[i] ^ (rng.random() < feedback.flip_rate(0.65)) else "bad", f"r{k}") for k in range(3) for i in range(n)]
    assert abs(feedback.fleiss(pd.DataFrame(rows)) - 0.65) < 0.03


def test_fleiss_by_hand():
    """Four images, three raters; worked by hand: P = 2/3, Pe = 1/2, kappa = 1/3."""
    votes = {0: "good good good", 1: "bad bad bad", 2: "good good bad", 3: "bad bad good"}
    table = pd.DataFrame([row(i, v, f"r{k}") for i, text in votes.items() for k, v in enumerate(text.split())])
    assert feedback.fleiss(table) == pytest.approx(1 / 3)


def test_labels_of_other_images_do_not_enter(tmp_path):
    store = feedback.Store(tmp_path / "f.sqlite")
    store.add([row(0), row(1), row(9)])
    assert [r["image"] for r in feedback.belonging(store.table(), ["Two cats.", "A red star."])] == [0]


def test_widget_writes_undoes_and_resumes(tmp_path):
    from rlhf_nb.labeling import Labeler

    store, images = feedback.Store(tmp_path / "f.sqlite"), np.zeros((9, 64, 64, 3), np.uint8)
    prompts = ["<b>Two</b> cats."] * 3 + ["A red star."] * 6
    widget = Labeler(images, prompts, store, "ann")
    shown = widget.queue[0]
    for choice, label in zip(widget.choices, ("good", "bad", "skip"), strict=True):
        choice.value = label
    assert store.table().set_index("image").label[shown].tolist() == ["good", "bad", "skip"] and len(widget.queue) == 2
    widget.undo()
    assert store.table().empty and widget.queue[0].tolist() == shown.tolist()
    for choice in widget.choices:
        choice.value = "bad"
    again = Labeler(images, prompts, store, "ann")  # a new kernel
    assert len(again.queue) == 2 and all(set(q.tolist()) != set(shown.tolist()) for q in again.queue)
    assert len(Labeler(images, prompts, store, "bob").queue) == 3
    while again.queue:
        assert "<b>" not in again.caption.value
        for choice in again.choices[: len(again.queue[0])]:
            choice.value = "good"
    assert "All done" in again.caption.value and len(store.table()) == 9
