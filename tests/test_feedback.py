"""The label store, simulated raters, agreement, and the widget that writes to the same store."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import save_images

from rlhf_nb import evaluate, feedback, runs


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
    with pytest.raises(feedback.LabelFileError, match="schema 99"):
        feedback.Store(tmp_path / "f.sqlite")


def test_a_damaged_store_is_one_sentence_and_stays(tmp_path):
    (tmp_path / "f.sqlite").write_bytes(b"half a file" * 100)
    with pytest.raises(feedback.LabelFileError, match="cannot be read as a store of labels .*restore it, or move it away"):
        feedback.Store(tmp_path / "f.sqlite")
    assert (tmp_path / "f.sqlite").read_bytes() == b"half a file" * 100


def test_majority_leaves_out_ties_and_skips():
    votes = {0: "good good bad", 1: "good bad skip", 2: "bad skip skip", 3: "bad bad good", 4: "good good good"}
    table = pd.DataFrame([row(i, v, f"r{k}") for i, text in votes.items() for k, v in enumerate(text.split())])
    assert feedback.majority(table).to_dict() == {0: 1.0, 3: 0.0, 4: 1.0}


def votes_of(texts):
    return pd.DataFrame([row(i, v, f"r{k}") for i, text in texts.items() for k, v in enumerate(text.split())])


@pytest.mark.parametrize("share", [0.5, 0.3, 0.8])
@pytest.mark.parametrize("kappa", [0.684, 0.276])
def test_flip_rate_gives_the_yardstick_agreement(share, kappa):
    """Raters who err at flip_rate(kappa, share) agree with kappa, whatever share of the images is good."""
    rng, n = np.random.default_rng(0), 6000
    truth, sure = rng.random(n) < share, np.ones(n)
    labels = [feedback.simulated_rater(truth, np.full(n, feedback.flip_rate(kappa, share)), sure, rng) for _ in range(3)]
    table = pd.concat([pd.DataFrame({"rater": k, "image": range(n), "label": v}) for k, v in enumerate(labels)])
    assert abs(feedback.agreement(table, draws=1)["fleiss"] - kappa) < 0.03
    assert (labels[0] == "skip").sum() == 0 and (feedback.simulated_rater(truth, np.zeros(n), 0 * sure, rng) == "skip").all()


def test_fleiss_and_alpha_by_hand():
    """Four images, three raters: P = 2/3, Pe = 1/2, kappa = 1/3. Alpha's chance counts without replacement: De = 36 * 2 / (12 * 11)."""
    table = votes_of({0: "good good good", 1: "bad bad bad", 2: "good good bad", 3: "bad bad good"})
    result = feedback.agreement(table)
    assert result["fleiss"] == pytest.approx(1 / 3) and result["alpha"] == pytest.approx(1 - (1 / 3) / (36 * 2 / (12 * 11)))
    assert result["images"] == 4 and result["fleiss_low"] <= 1 / 3 <= result["fleiss_high"]
    assert feedback.agreement(votes_of({0: "good good", 1: "bad bad"}))["alpha"] == 1.0
    assert np.isnan(feedback.agreement(votes_of({0: "good skip"}))["fleiss"])


def test_a_second_word_counts_once_and_shows_self_agreement():
    table = pd.DataFrame([row(0, "good"), row(0, "bad", "bob"), row(1, "good"), row(0, "bad")])
    assert feedback.counts(table).loc[0].tolist() == [0, 2, 0]
    assert feedback.repeats(table).to_dict("records") == [{"rater": "ann", "image": 0, "first": "good", "second": "bad"}]


def test_dawid_skene_catches_the_careless_rater():
    rng, n = np.random.default_rng(0), 400
    truth = rng.random(n) < 0.4
    errors = (0.1, 0.1, 0.1, 0.5)
    table = pd.DataFrame([row(i, "good" if truth[i] ^ (rng.random() < e) else "bad", f"r{k}") for k, e in enumerate(errors) for i in range(n)])
    probability, skill = feedback.dawid_skene(table)
    assert ((skill.good + skill.bad) / 2 < 0.7).tolist() == [False, False, False, True] and skill.labels.tolist() == [n] * 4
    assert ((probability > 0.5) == truth).mean() > (feedback.majority(table).reindex(range(n)) == truth).mean()  # ties of four are lost to the majority


WRITER = """
import sys
from rlhf_nb import feedback
store = feedback.Store(sys.argv[1])
for i in range(int(sys.argv[3])):
    [n] = store.add([{"rater": sys.argv[2], "image": i, "prompt": "Two cats.", "label": "good"}])
    print(n, flush=True)
"""


def test_killed_writers_lose_nothing_they_had_acknowledged(tmp_path):
    """Four processes write to one file and are killed outright; RLHF_NB_JUDGEMENTS=10000 runs the long version."""
    each = int(os.environ.get("RLHF_NB_JUDGEMENTS", 400)) // 4
    logs = [open(tmp_path / f"{k}.txt", "w+") for k in range(4)]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "f.sqlite", f"r{k}", str(each)], stdout=log) for k, log in enumerate(logs)]
    while sum(len(open(log.name).readlines()) for log in logs) < 2 * each:
        assert any(w.poll() is None for w in writers)
        time.sleep(0.02)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    said = {int(n) for log in logs for n in open(log.name).read().split("\n")[:-1]}
    kept = feedback.Store(tmp_path / "f.sqlite").table()
    assert said <= set(kept.id) and len(said) >= 2 * each
    assert len(kept) <= len(said) + 4  # at most one each on disk but not yet said


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path):
    with sqlite3.connect(tmp_path / "f.sqlite") as db:
        db.execute("CREATE TABLE judgements (id INTEGER PRIMARY KEY, rater TEXT, image INTEGER, prompt TEXT, label TEXT, shown_with TEXT, seconds REAL, "
                   "time REAL, undoes INTEGER)")
        db.execute("INSERT INTO judgements VALUES (1, 'ann', 0, 'Two cats.', 'good', '', 1.0, 2.0, NULL)")
        db.execute("PRAGMA user_version = 1")
    store = feedback.Store(tmp_path / "f.sqlite")
    store.add([row(1)])
    assert store.table().image.tolist() == [0, 1]


STUDIO = [{"id": 1, "data": {"image": "/data/upload/a.png", "prompt": "Two cats."}, "annotations": [
    {"completed_by": {"email": "ann@x"}, "lead_time": 3.5, "result": [{"type": "choices", "value": {"choices": ["Good"]}}]},
    {"completed_by": 7, "was_cancelled": True, "result": []}]}]
TIA2 = {"a.png": {"image": "images/a.png", "caption": "Two cats.", "human_labels": [0, 1, 1]}}
CSV = "rater,image,prompt,label\nann,a.png,Two cats.,good\nbob,a.png,Two cats.,skip\n"


def saved(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_every_format_is_read(tmp_path):
    studio, tia2, ours = (feedback.read(saved(tmp_path / name, content)) for name, content in (("s.json", STUDIO), ("t.json", TIA2), ("l.csv", CSV)))
    assert studio[["rater", "image", "label"]].values.tolist() == [["ann@x", "a.png", "good"], ["7", "a.png", "skip"]] and studio.seconds[0] == 3.5
    assert tia2[["rater", "image", "label"]].values.tolist() == [["rater-1", "a.png", "bad"], ["rater-2", "a.png", "good"], ["rater-3", "a.png", "good"]]
    assert ours.label.tolist() == ["good", "skip"] and set(ours.prompt) == {"Two cats."}
    big = {f"{i}.png": {"image": f"{i}.png", "caption": "A cup.", "human_labels": [1, i % 2, 1]} for i in range(15_000)}
    table = feedback.read(saved(tmp_path / "big.json", big))  # no image at hand
    assert len(table) == 45_000 and feedback.agreement(table, draws=2)["images"] == 15_000


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
    with pytest.raises(feedback.LabelFileError, match=message) as error:
        feedback.read(saved(tmp_path / name, content))
    assert str(error.value).startswith(name) and "none of it was taken" in str(error.value)


def test_export_is_an_image_folder_and_reads_back(tmp_path):
    save_images(tmp_path / "in", np.zeros((3, 8, 8, 3), np.uint8), {"prompt": ["Two cats."] * 3})
    images, store = runs.Images(tmp_path / "in"), feedback.Store(tmp_path / "f.sqlite")
    store.add([row(0), row(0, "bad", "bob"), row(2, "skip")])
    feedback.export(tmp_path / "out", images, store.table())
    out = runs.Images(tmp_path / "out")
    assert out.rows.file_name.tolist() == ["000000.png", "000002.png"] and out[:].shape == (2, 8, 8, 3)
    assert out.rows.label.tolist()[0] == 0.5 and out.rows.skip.tolist() == [0, 1]
    again = feedback.Store(tmp_path / "g.sqlite")
    again.add(feedback.belonging(feedback.read(tmp_path / "out" / "judgements.csv"), images))
    assert again.table()[["rater", "image", "label"]].equals(store.table()[["rater", "image", "label"]])


def test_labels_of_other_images_do_not_enter(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    save_images(tmp_path / "in", pictures, {"prompt": ["Two cats.", "A red star."]})
    store, images = feedback.Store(tmp_path / "f.sqlite"), runs.Images(tmp_path / "in")
    store.add([row(0), row(1), row(9)])
    assert [r["image"] for r in feedback.belonging(store.table(), images)] == [0]  # the second is another prompt's, the third is not there
    named = pd.DataFrame([row("000001.png", prompt="A red star."), row("c.png")])
    assert [r["image"] for r in feedback.belonging(named, images)] == [1]
    store.add([{**row(0, rater=name), "picture": feedback.fingerprint(pictures[k])} for k, name in enumerate(("bob", "cyd"))])
    assert [r["rater"] for r in feedback.belonging(store.table(), images)] == ["ann", "bob"]  # cyd judged a picture that is no longer there


def test_widget_writes_undoes_and_resumes(tmp_path):
    from rlhf_nb.labeling import Labeler, sequence

    store, images = feedback.Store(tmp_path / "f.sqlite"), np.zeros((9, 64, 64, 3), np.uint8)
    prompts = ["<b>Two</b> cats."] * 3 + ["A red star."] * 6
    widget, order = Labeler(images, prompts, store, "ann"), [i for g in sequence(prompts, "ann") for i in g]
    widget.choices[1].value = "good"
    assert store.table().image.tolist() == [order[1]]  # at the click, not when the group is full
    widget.choices[1].value = "bad"  # a second thought
    assert store.table().label.tolist() == ["bad"]
    widget.typing.value = "gs"  # the two open pictures, then the next group
    assert store.table().set_index("image").label[order[:3]].tolist() == ["good", "bad", "skip"] and widget.group == 1
    widget.typing.value = ""  # clearing the field takes nothing back
    widget.typing.value = "u"
    assert len(store.table()) == 2 and widget.group == 0 and [c.value for c in widget.choices] == ["good", "bad", None]
    again = Labeler(images, prompts, store, "ann")  # a new kernel
    assert again.group == 0 and [c.value for c in again.choices] == ["good", "bad", None] and "2 of 9" in again.progress.value
    with sqlite3.connect(tmp_path / "f.sqlite") as db:
        db.execute("UPDATE judgements SET picture = NULL WHERE image = ?", (order[0],))  # kept by an earlier version
    assert [c.value for c in Labeler(images, prompts, store, "ann").choices] == ["good", "bad", None]
    again.back.click()  # takes back what the last kernel wrote
    assert [c.value for c in again.choices] == [None, "bad", None]
    again.typing.value = "gbxgbsgbs"
    assert again.group is None and "All done" in again.caption.value and len(store.table()) == 9
    assert store.table().sort_values("position").image.tolist() == order
    other = Labeler(images, prompts, store, "<i>bob</i>")
    assert "0 of 9" in other.progress.value and "<i>" not in other.progress.value and "<b>" not in other.caption.value


def test_sets_are_compared_blind_and_the_last_word_holds(tmp_path):
    from rlhf_nb.labeling import Comparer

    votes, rng = feedback.Votes(tmp_path / "votes.sqlite"), np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 6, 4, 16, 16, 3)).astype(np.uint8)
    prompts = [f"<b>{k}</b> cats." for k in range(6)]
    widget = Comparer(first, second, prompts, votes, "ann")
    assert widget.swapped.any() and not widget.swapped.all() and "<b>" not in widget.caption.value
    for k in range(6):  # she always prefers the second set, on whichever side it is
        side = -1 if widget.swapped[k] else 1
        widget.choices["alignment"].value = side
        assert widget.place == k
        widget.choices["fidelity"].value = -side
    assert "All done" in widget.caption.value and votes.table().query("asked == 'alignment'").vote.tolist() == [1] * 6
    widget.show(2)
    widget.choices["alignment"].value = 0  # a second thought
    again = Comparer(first, second, prompts, votes, "ann")  # a new kernel
    assert "6 of 6" in again.progress.value and len(votes.table()) == 12
    other = Comparer(second, first, prompts, votes, "ann")  # other pictures: nothing has been said of them
    assert "0 of 6" in other.progress.value and not len(other.table())
    other.choices["alignment"].value = 0
    assert len(other.table()) == 1
    table = again.table().query("asked == 'alignment'").pivot(index="prompt", columns="rater", values="vote")
    assert evaluate.tally(table.to_numpy()).tolist() == ["win", "win", "tie", "win", "win", "win"]


def test_some_groups_come_back():
    from rlhf_nb.labeling import sequence

    prompts = np.repeat([f"{k} cats." for k in range(100)], 3)
    groups = [tuple(g) for g in sequence(prompts, "ann")]
    twice = [g for g in groups if groups.count(g) == 2]
    assert len(groups) == 105 and len(set(groups)) == 100 and len(set(twice)) == 5
    assert all(len(groups) - 1 - groups[::-1].index(g) - groups.index(g) > 40 for g in set(twice))
    assert groups != [tuple(g) for g in sequence(prompts, "bob")] and groups == [tuple(g) for g in sequence(prompts, "ann")]


def test_reading_a_finished_store_does_not_touch_it(tmp_path):
    store = feedback.Store(tmp_path / "f.sqlite")
    store.add([row(0)])
    before = (tmp_path / "f.sqlite").read_bytes(), (tmp_path / "f.sqlite").stat().st_mtime_ns
    assert len(feedback.Store(tmp_path / "f.sqlite").table()) == 1
    assert ((tmp_path / "f.sqlite").read_bytes(), (tmp_path / "f.sqlite").stat().st_mtime_ns) == before


def test_one_sided_and_few_votes(tmp_path):
    probability, skill = feedback.dawid_skene(pd.DataFrame([row(0, "bad"), row(1, "bad"), row(0, "bad", "bob")]))
    assert (probability == 0).all() and skill.labels.tolist() == [2, 1]
    single = dict.fromkeys(range(5), "good") | {5: "good good", 6: "bad bad", 7: "good bad"}
    assert np.isfinite(feedback.agreement(votes_of(single), draws=2)["fleiss"])  # most images have one vote; three have two
