"""What is told of points: effects by hand, and the record, which mixes nothing that rests on other labels."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from rlhf_nb import config, files
from rlhf_nb.study import points, record


def rows_of(*given, **settings):
    """Rows by hand: (arm, seed, hits, Fréchet distance), one prompt after the other, twice round."""
    usual = {**config.settings("study", **settings).model_dump(), **dict.fromkeys(record.MEASURES, 1.0)}
    usual |= {"split": "validation", "guidance": 4.0, "source": "this run"}
    names = ("arm", "seed", "hits", "frechet")
    return pd.DataFrame([{**usual, **dict(zip(names, row, strict=True))} for row in given])


BASE, GOOD, BETTER = ("none", 0, "xxxxxx", 2.0), ("reward", 0, "xx.x..", 3.0), ("reward", 1, "xxxx..", 5.0)


def test_effects_by_hand():
    rows = rows_of(("none", 0, "x.....", 2.0), GOOD, BETTER, ("oracle", 0, "xxxxxx", 1.0))
    assert record.per_prompt(rows)[0].tolist() == [0.5, 0, 0]
    table = record.effects(rows, ["arm"]).set_index("arm")
    assert table.difference.round(4).to_dict() == {"reward": 0.4167, "oracle": 0.8333}
    assert table.loc["reward", ["seeds", "n", "ratio"]].tolist() == [2, 3, 2.0]
    assert table.loc["reward", "sd"] == pytest.approx(np.std([1 / 3, 1 / 2], ddof=1))
    assert (table.holm >= table.p).all() and not len(record.effects(rows.head(1), ["arm"]))


def test_two_kinds_of_points_by_hand():
    """The base model has the default settings on paper: it must not pass for a tuned point."""
    rows = rows_of(BASE, GOOD, BETTER)
    narrow = rows_of(("reward", 0, "x.....", 1.0), ("reward", 1, "x.....", 1.0), objects=2)
    both, pair = pd.concat([rows, narrow]), ("objects == 0", "objects == 2")
    gain = record.between(both, *pair)
    assert gain["seeds"] == 2 and gain["difference"] == pytest.approx((2 / 6 + 3 / 6) / 2)
    first = np.array([True, False, False, True])  # the split may hold more prompts than were measured
    alone = record.between(record.only(both, first), *pair)
    assert alone["n"] == 1 and alone["difference"] == pytest.approx((0.5 + 0.5) / 2)
    assert record.between(rows, *pair) is None
    assert record.pairs(rows, "seed == 0", "seed == 0").frechet_less.tolist() == [3.0]


def test_a_rival_is_of_the_same_source_and_the_record_comes_first():
    parts = []
    for source, base in (("this run", "......"), ("recorded", "xxx...")):
        rows = rows_of(("none", 0, base, 2.0), ("reward", 0, "xxxxxx", 3.0), ("oracle", 0, "xxx...", 3.0))
        parts.append(rows.assign(source=source))
    table = record.effects(pd.concat(parts), ["arm"]).query("arm == 'reward'")
    assert table.set_index("source").difference.to_dict() == {"this run": 1, "recorded": 0.5}
    assert record.once(table, ["arm"]).source.tolist() == ["recorded"]
    assert record.between(pd.concat(parts), "arm == 'reward'", "arm == 'oracle'")["source"] == "recorded"


def test_an_interval_over_trainings_needs_two():
    found = record.over_trainings(pd.Series([1.0, 2.0, 3.0]))
    assert (found["difference"], found["seeds"]) == (2, 3)
    assert (found["low"], found["high"]) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)  # 4.303 / sqrt(3)
    assert np.isnan([*record.over_trainings(pd.Series([1.0])).values()]).all()


@pytest.mark.xfail(strict=True, reason="the record is being made anew, on the new small model")
def test_the_shipped_record_holds_every_recorded_sweep():
    rows = record.described(files.read_table(record.RECORD))
    assert json.loads(record.RECORD.with_suffix(".json").read_text())["points"] == rows.key.nunique()
    recorded = set(rows.key)
    assert points.points(points.SWEEPS, "toy").keys() <= recorded
    assert {"power", "beta", "rows_by", "label_share", "drawing_guidance"} <= set(rows)


@pytest.fixture
def recorded(tmp_path, monkeypatch, runs_folder):
    """recorded(*(settings as JSON, asked, hits)) -> a record of such rows, while points rest on "new"."""

    def of(*rows):
        usual = {
            "split": "validation",
            "guidance": 4.0,
            "n": 1,
            "device": "cpu",
            "made": "2026-01-01",
            "seconds": 1.0,
        }
        names = ("settings", "asked", "hits")
        table = pd.DataFrame([{**usual, **dict(zip(names, row, strict=True))} for row in rows])
        table.to_csv(tmp_path / "study.csv", index=False)

    monkeypatch.setattr(record, "RECORD", tmp_path / "study.csv")
    monkeypatch.setattr(record, "basis", lambda scale: "new")
    return of


@pytest.fixture
def texts():
    """Two points of sweep `controls` as JSON, of the reward and the oracle."""
    every = points.points(points.SWEEPS, "toy", ["controls"]).values()
    of = {given["arm"]: given for given in every if given.get("seed") == 0}
    return [config.settings("study", **of[arm]).model_dump_json() for arm in ("reward", "oracle")]


def hold(folder, text, hits, **manifest):
    """A finished point in runs/toy, as `point.main` leaves it."""
    settings = json.loads(text)
    place = folder / "toy" / "study" / points.key(config.settings("study", **settings))
    place.mkdir(parents=True)
    row = {"split": "validation", "guidance": 4.0, "n": 1, "hits": hits, "settings": text}
    pd.DataFrame([row]).to_csv(place / "rows.csv", index=False)
    made = {"stage": f"study/{place.name}", "settings": settings, "inputs": {}, "digest": "", "versions": {}}
    made |= {
        "files": {},
        "threads": 1,
        "device": "cpu",
        "tflop": 0.0,
        "seconds": 2.0,
        "finished": "2026-02-02T00:00:00Z",
        **manifest,
    }
    (place / "manifest.json").write_text(json.dumps(made))


def test_a_sweep_without_rows_says_so(recorded, texts):
    recorded((texts[0], "old", "x."))
    rows, said = record.sweep("toy", "feedback")
    assert not len(rows) and not len(record.effects(rows, ["arm"]))
    assert said.startswith("0 of the 19 points of sweep *feedback* (`make sweeps sweep=feedback`) are here;")
    assert said.endswith("; 1 rows are left out, for they rest on other prompts, images or labels.")


def test_the_record_keeps_the_newest_row_of_every_point_and_rows_of_other_labels(
    recorded, texts, runs_folder
):
    one, two = texts
    recorded((one, "new", "x."), (two, "old", "x."))
    with pytest.raises(
        files.ArtifactError, match="no finished point at scale 'toy' to record: run `make sweeps`"
    ):
        record.record()
    hold(runs_folder, one, "xx")
    rows, said = record.sweep("toy", "controls")
    assert rows.source.tolist() == ["recorded", "this run"] and rows.arm.tolist() == ["reward"] * 2
    assert said.startswith("1 of the 22 points") and "recorded: 1 (2026-01-01; cpu); this run: 1;" in said
    record.record()
    kept = pd.read_csv(record.RECORD).set_index("asked")
    assert kept.hits.to_dict() == {"new": "xx", "old": "x."}
    assert kept.settings.to_dict() == {"new": one, "old": two} and "key" not in kept
    assert json.loads(record.RECORD.with_suffix(".json").read_text())["points"] == 2


def test_points_whose_settings_are_no_more_are_left_out(recorded, texts, runs_folder):
    recorded((texts[1], "new", "x."))
    hold(runs_folder, texts[0], "xx", settings={"scale": "toy", "coefficient": 3.0})
    assert record.finished("toy") == [] and record.known("toy").source.tolist() == ["recorded"]


@pytest.mark.parametrize(
    "settings, hits, words",
    [
        ("{", "x.", "settings of points, row 2, Invalid JSON"),
        ('{"scale": "toy", "colour": 1}', "x.", "unknown parameter 'colour'"),
        ('{"scale": "toy"}', "x", "a point of 1 prompts, 2 pictures each, has 1 verdicts: restore study.csv"),
    ],
)
def test_a_row_that_is_not_whole_is_named(recorded, runs_folder, settings, hits, words):
    recorded((settings, "new", hits))
    with pytest.raises(config.UserError, match=words):
        record.sweep("toy", "controls")


@pytest.mark.slow
def test_people_among_the_raters_are_part_of_what_points_rest_on(smoke, runs_folder):
    shutil.copytree(smoke / "runs", runs_folder, ignore=shutil.ignore_patterns("images", "cache"))
    before = record.basis("smoke")
    raters = runs_folder / "smoke" / "feedback" / "raters.csv"
    table = pd.read_csv(raters)
    manifest = raters.with_name("manifest.json")

    def basis(rows):
        rows.to_csv(raters, index=False)
        made = json.loads(manifest.read_text())
        made["files"]["raters.csv"] = files.digest(raters)
        manifest.write_text(json.dumps(made))
        return record.basis("smoke")

    assert basis(table.assign(labels=table.labels + 1)) == before  # simulated ones are their settings'
    assert basis(pd.concat([table, table.head(1).assign(rater="Ada")])) != before
