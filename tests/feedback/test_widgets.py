"""The widgets without a browser: what is said is in the store at once, a new kernel goes on from there."""

import contextlib
import sqlite3

import numpy as np
import pytest

from rlhf_nb.feedback.store import Store, Votes
from rlhf_nb.feedback.widgets import Comparer, Labeler, sequence

PROMPTS = ["<b>Two</b> cats."] * 3 + ["A red star."] * 6


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "f.sqlite")


@pytest.fixture
def label(store):
    """A new kernel's Labeler of `rater` on nine black pictures."""
    images = np.zeros((9, 64, 64, 3), np.uint8)
    return lambda rater="ann": Labeler(images, PROMPTS, store, rater)


def shown(widget):
    return [choice.value for choice in widget.choices.values()]


def test_labels_are_written_at_the_click_and_taken_back(label, store):
    widget, order = label(), sum(sequence(PROMPTS, "ann"), [])
    widget.choices[1].value = "good"
    assert store.table().image.tolist() == [order[1]]  # not only when the group is full
    widget.choices[1].value = "bad"  # a second thought
    assert store.table().label.tolist() == ["bad"] and shown(widget) == [None, "bad", None]
    widget.typing.value = "gs"  # the two open pictures, then the next group
    assert store.table().set_index("image").label[order[:3]].tolist() == ["good", "bad", "skip"]
    assert widget.group == 1 and shown(widget) == [None, None, None]
    widget.typing.value = ""  # clearing the field takes nothing back
    assert len(store.table()) == 3
    widget.typing.value = "u"
    assert len(store.table()) == 2 and widget.group == 0 and shown(widget) == ["good", "bad", None]


def test_a_new_kernel_goes_on_where_the_last_one_was(label, store):
    label().typing.value = "gb"
    widget = label()
    assert "2 of 9" in widget.progress.value and shown(widget) == ["good", "bad", None]
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE judgements SET picture = NULL WHERE position = 0")  # kept by an earlier version
    assert shown(label()) == ["good", "bad", None]
    widget.back.click()  # takes back what the last kernel wrote
    assert shown(widget) == ["good", None, None] and store.table().label.tolist() == ["good"]
    widget.typing.value = "bxgbsgbss"
    assert "All done" in widget.caption.value and len(store.table()) == 9 and not widget.shown.children
    assert store.table().image.tolist() == sum(sequence(PROMPTS, "ann"), [])
    assert "9 of 9" in label().progress.value


def test_what_was_said_of_other_pictures_is_asked_again(label, store):
    label().typing.value = "gb"
    assert "2 of 9" in Labeler(np.zeros((9, 64, 64, 3), np.uint8), PROMPTS, store, "ann").progress.value
    assert "0 of 9" in Labeler(np.ones((9, 64, 64, 3), np.uint8), PROMPTS, store, "ann").progress.value


@contextlib.contextmanager
def unwritable(path):
    """As on a read-only disk: no journal can be made beside the file."""
    journal = path.with_name(f"{path.name}-journal")
    journal.mkdir()
    yield
    journal.rmdir()


def test_a_click_that_cannot_be_kept_is_told_and_nothing_is_lost(label, store):
    widget = label()
    widget.choices[0].value = "good"
    with unwritable(store.path):
        widget.choices[0].value = "bad"
        assert "Nothing was kept" in widget.progress.value and shown(widget) == ["good", None, None]
        widget.choices[1].value = "bad"
        assert shown(widget) == ["good", None, None]
        widget.typing.value = "g"
        widget.back.click()
        assert "Nothing was kept" in widget.progress.value and shown(widget) == ["good", None, None]
    assert store.table().label.tolist() == ["good"]
    widget.choices[1].value = "bad"
    assert "2 of 9" in widget.progress.value and shown(widget) == ["good", "bad", None]
    widget.back.click()
    widget.back.click()
    assert store.table().empty and shown(widget) == [None] * 3


def test_a_vote_that_cannot_be_kept_is_told(tmp_path):
    votes, sets = Votes(tmp_path / "votes.sqlite"), np.zeros((2, 2, 4, 8, 8, 3), np.uint8)
    widget = Comparer(*sets, ["Two cats.", "A red star."], votes, "ann")
    widget.choices["alignment"].value = 1
    with unwritable(votes.path):
        widget.choices["fidelity"].value = 0
        assert "Nothing was kept" in widget.progress.value and shown(widget) == [1, None]
        widget.choices["alignment"].value = -1
        assert shown(widget) == [1, None] and widget.place == 0
    widget.choices["fidelity"].value = 0
    assert widget.place == 1 and len(votes.table()) == 2


def test_names_and_prompts_are_no_markup(label):
    widget = label("<i>bob</i>")
    assert "0 of 9" in widget.progress.value
    assert "<i>" not in widget.progress.value and "<b>" not in widget.caption.value


def test_sets_are_compared_blind_and_the_last_word_holds(tmp_path):
    votes, rng = Votes(tmp_path / "votes.sqlite"), np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 6, 4, 16, 16, 3)).astype(np.uint8)
    prompts = [f"<b>{k}</b> cats." for k in range(6)]
    widget = Comparer(first, second, prompts, votes, "ann")
    assert widget.swapped.any() and not widget.swapped.all() and "<b>" not in widget.caption.value
    for k in range(6):  # she always prefers the second set, on whichever side it is
        side = -1 if widget.swapped[k] else 1
        widget.choices["alignment"].value = side
        assert widget.place == k
        widget.choices["fidelity"].value = -side
    assert "All done" in widget.caption.value
    assert votes.table().query("asked == 'alignment'").vote.tolist() == [1] * 6
    widget.show(2)
    widget.choices["alignment"].value = 0  # a second thought
    again = Comparer(first, second, prompts, votes, "ann")  # a new kernel
    assert "6 of 6" in again.progress.value and len(votes.table()) == 12
    assert again.table().query("asked == 'alignment'").vote.tolist() == [1, 1, 0, 1, 1, 1]
    other = Comparer(second, first, prompts, votes, "ann")  # other pictures: nothing has been said of them
    assert "0 of 6" in other.progress.value and not len(other.table())
    other.choices["alignment"].value = 0
    assert len(other.table()) == 1


def test_a_vote_can_be_changed_and_changed_back(tmp_path):
    votes, sets = Votes(tmp_path / "votes.sqlite"), np.zeros((2, 2, 4, 8, 8, 3), np.uint8)
    widget = Comparer(*sets, ["Two cats.", "A red star."], votes, "ann")
    widget.choices["alignment"].value = 1
    widget = Comparer(*sets, ["Two cats.", "A red star."], votes, "ann")
    for side in (-1, 1):
        widget.choices["alignment"].value = side
        assert votes.table().vote.tolist() == [-side if widget.swapped[0] else side]
    widget.choices["fidelity"].value = 0
    assert widget.place == 1 and shown(widget) == [None, None]
    widget.back.click()
    assert widget.place == 0 and shown(widget) == [1, 0]


def test_some_groups_come_back():
    prompts = np.repeat([f"{k} cats." for k in range(100)], 3)
    groups = sequence(prompts, "ann")
    twice = [g for g in groups if groups.count(g) == 2]
    assert len(groups) == 105 and len({*map(tuple, groups)}) == 100 and len({*map(tuple, twice)}) == 5
    assert all(len(groups) - 1 - groups[::-1].index(g) - groups.index(g) > 40 for g in twice)
    assert groups != sequence(prompts, "bob") and groups == sequence(prompts, "ann")
