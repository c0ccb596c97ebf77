"""Experiments: which points a sweep has, what each arm weighs, and what is told of the rows."""

import json
import shutil
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from rlhf_nb import config, reward, runs, study

SMALL = {"scale": "smoke", "updates": 2, "model_batch": 4, "pre_batch": 4, "pre_images": 16, "prompts": 4, "steps": 3, "renders": 64}


def test_sweeps_share_points_and_the_base_has_no_seed(tmp_path):
    plan = tmp_path / "sweeps.yaml"
    plan.write_text("scales: {toy: {updates: 5}}\nsweeps:\n  a: {seeds: 2, vary: [{arm: [none, reward]}]}\n"
                    "  b: {seeds: 2, vary: [{coefficient: [1.0, 3.0]}, {coefficient: [6.0], seeds: 1}, {arm: [none]}]}\n")
    one, other, both = config.points(plan, "toy", ["a"]), config.points(plan, "toy", ["b"]), config.points(plan, "toy")
    assert (len(one), len(other), len(both)) == (3, 6, 6)
    assert {p["updates"] for p in both.values() if p.get("arm") != "none"} == {5}
    with pytest.raises(config.ConfigError, match="no sweep 'c' in .*sweeps.yaml; it has a, b"):
        config.points(plan, "toy", ["c"])
    plan.write_text("scales: {}\nsweeps: {a: {seeds: 1, vary: [{colour: [1]}]}}\n")
    with pytest.raises(config.ConfigError, match="unknown parameter 'colour'"):
        config.points(plan, "toy")


def test_every_shipped_sweep_is_valid():
    assert config.points(ROOT / "notebooks" / "sweeps.yaml", "toy").keys() >= config.points(ROOT / "notebooks" / "sweeps.yaml", "toy", ["live"]).keys()


def test_how_a_run_is_done_is_no_part_of_its_key():
    key = config.key(config.settings("study", **SMALL))
    assert key == config.key(config.settings("study", **SMALL, accumulate=2)) != config.key(config.settings("study", **SMALL, beta=0.5))


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture
def weighed(smoke, clip, monkeypatch):
    """weighed(arm=...) -> (weights, pictures) on the smoke run's images."""
    monkeypatch.setenv("RLHF_NB_RUNS", str(smoke / "runs"))

    def of(**given):
        class Point:  # what `runs.Run` would be, writing nothing
            settings, inputs = config.settings("study", **SMALL, **given), {}

            def read(self, stage, name):
                return runs.result("smoke", stage, name)

        pictures = study.labelled(Point(), clip)
        return study.weigh(Point(), pictures, pictures, clip), pictures

    return of


@pytest.mark.slow
def test_what_each_arm_weighs(weighed):
    value, pictures = weighed(arm="labels")
    good = (pictures.rows.label > 0.5).to_numpy()
    assert (value == good).all()
    random, _ = weighed(arm="random")
    assert random.sum() == good.sum() and (random != good).any()
    assert (weighed(arm="constant")[0] == 1).all()
    assert (weighed(arm="oracle")[0] == pictures.rows.truth).all()
    learnt, shuffled, similar = (weighed(arm=a)[0] for a in ("reward", "shuffled", "similarity"))
    assert all(0 <= v.min() < v.max() <= 1 for v in (learnt, shuffled, similar)) and (learnt != shuffled).any()


@pytest.mark.slow
def test_labels_can_be_shuffled_worsened_and_withheld(weighed):
    plain = weighed(arm="labels")[1].rows.label
    shuffled = weighed(arm="shuffled")[1].rows.label
    assert sorted(shuffled.dropna()) == sorted(plain.dropna()) and not shuffled.equals(plain)
    clean, truth = weighed(raters=3, error=0.0)[1].rows[["label", "truth"]].to_numpy().T
    assert (clean == truth).all() and (weighed(raters=3, error=0.4)[1].rows.label != truth).any()
    value, half = weighed(labelled=0.5, unlabelled=False)
    assert 0.3 < half.rows.label.notna().mean() < 0.7 and (value[half.rows.label.isna()] == 0).all()
    assert (weighed(labelled=0.5)[0][half.rows.label.isna()] > 0).any()


@pytest.mark.slow
def test_a_narrow_set_has_few_objects_and_as_many_images(weighed):
    (narrow, pictures), (broad, _) = weighed(objects=2, kept=5), weighed(kept=5)
    assert (narrow > 0).sum() == (broad > 0).sum() == 5
    assert len({w.object for w, v in zip(pictures.wants, narrow, strict=True) if v}) <= 2


@pytest.mark.slow
def test_a_point_twice_gives_the_same_rows(smoke, runs_folder):
    shutil.copytree(smoke / "runs", runs_folder)
    settings, rows = config.settings("study", **SMALL, arm="oracle", drawn=2.0, kept=24, seed=3), []
    path = runs_folder / "smoke" / "study" / config.key(settings) / "rows.csv"
    for _ in range(2):
        study.main(settings)
        rows.append(path.read_text())
    assert rows[0] == rows[1] and json.loads(pd.read_csv(path).settings[0])["drawn"] == 2


def rows_of(*given):
    """Rows of a sweep by hand: (arm, seed, hits), one prompt after the other, twice round."""
    usual = {f.name: f.default for f in fields(config.Study)}
    return pd.DataFrame([{**usual, "split": "validation", "guidance": 4.0, "source": "this run", "arm": arm, "seed": seed, "hits": hits, "frechet": f}
                         for arm, seed, hits, f in given])


def test_effects_by_hand():
    rows = rows_of(("none", 0, "x.....", 2.0), ("reward", 0, "xx.x..", 3.0), ("reward", 1, "xxxx..", 5.0), ("oracle", 0, "xxxxxx", 1.0))
    assert study.per_prompt(next(rows.itertuples())).tolist() == [0.5, 0, 0]
    table = study.effects(rows, ["arm"]).set_index("arm")
    assert list(table.index) == ["reward", "oracle"] and table.difference.round(4).to_dict() == {"reward": 0.4167, "oracle": 0.8333}
    assert table.loc["reward", ["seeds", "n", "ratio"]].tolist() == [2, 3, 2.0] and table.loc["reward", "sd"] == pytest.approx(np.std([1 / 3, 1 / 2], ddof=1))
    assert (table.holm >= table.p).all()


def test_two_kinds_of_points_by_hand():
    """The base model has the default settings on paper: it must not pass for a tuned point."""
    rows = rows_of(("none", 0, "xxxxxx", 2.0), ("reward", 0, "xx.x..", 3.0), ("reward", 1, "xxxx..", 5.0)).assign(objects=[0, 0, 0])
    narrow = rows_of(("reward", 0, "x.....", 1.0), ("reward", 1, "x.....", 1.0)).assign(objects=2)
    gain = study.between(pd.concat([rows, narrow]), "objects == 0", "objects == 2")
    assert gain["seeds"] == 2 and gain["difference"] == pytest.approx((2 / 6 + 3 / 6) / 2)
    first, all_of = np.array([True, False, False, True]), ("objects == 0", "objects == 2")  # the split may hold more prompts than were measured
    alone = study.between(pd.concat([rows, narrow]), *all_of, first)
    assert alone["n"] == 1 and alone["difference"] == pytest.approx((0.5 + 0.5) / 2)
    assert study.between(rows, "objects == 0", "objects == 2") is None and study.pairs(rows, "seed == 0", "seed == 0").frechet_less.tolist() == [3.0]


def test_a_rival_is_of_the_same_source():
    here, record = (rows_of(("none", 0, base, 2.0), ("reward", 0, "xxxxxx", 3.0)).assign(source=source)
                    for base, source in (("......", "this run"), ("xxx...", "recorded")))
    table = study.effects(pd.concat([here, record]), ["arm"]).set_index("source")
    assert table.difference.to_dict() == {"this run": 1, "recorded": 0.5}


def test_a_sweep_without_rows_says_so(runs_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "RECORD", tmp_path / "none.csv")
    rows, said = study.sweep("toy", "controls")
    assert said == "0 of the 22 points of sweep *controls* (`make sweeps sweep=controls`) are here." and not len(study.effects(rows, ["arm"]))


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"coefficient": 0.0}, {"baseline": 0.5}])
def test_images_left_out_stay_out(smoke, runs_folder, given):
    shutil.copytree(smoke / "runs", runs_folder)
    with pytest.raises(config.ConfigError, match="leaves images out needs a coefficient above zero and no baseline"):
        study.main(config.settings("study", **SMALL, arm="random", **given))


@pytest.mark.slow
def test_whoever_chooses_among_one_keeps_the_same(smoke):
    curves = pd.read_csv(smoke / "runs" / "smoke" / "best_of_n" / "best_of_n.csv").query("n == 1")
    assert curves.share.nunique() == 1 and curves.reward.nunique() == 1


def test_the_record_keeps_the_newest_row_of_every_point_and_rows_of_other_labels(runs_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "RECORD", tmp_path / "study.csv")
    with pytest.raises(runs.ArtifactError, match="no finished point at scale 'toy' to record: run `make sweeps` first"):
        study.record()
    of = {"split": "validation", "guidance": 4.0, "hits": "x.", "frechet": 1.0, "device": "cpu", "seconds": 1.0, "made": "2026-01-01"}
    one, two = (json.dumps(config.as_dict(config.settings("study", scale="toy", arm=arm, updates=800, lr=8e-4, model_batch=24, pre_batch=8)))
                for arm in ("reward", "oracle"))
    pd.DataFrame([{**of, "settings": one, "asked": "new"}, {**of, "settings": two, "asked": "old"}]).to_csv(study.RECORD, index=False)
    fresh = pd.DataFrame([{**of, "settings": one, "asked": "new", "hits": "xx"}])
    monkeypatch.setattr(study, "held", lambda scale: [("rows.csv", dict.fromkeys(("inputs", "versions", "device", "finished"), ""))])
    monkeypatch.setattr(study, "finished", lambda scale: fresh)
    monkeypatch.setattr(study, "basis", lambda scale: "new")
    study.record()
    kept = pd.read_csv(study.RECORD).set_index("asked")
    assert kept.hits.to_dict() == {"new": "xx", "old": "x."} and kept.settings.to_dict() == {"new": one, "old": two}
    rows, said = study.sweep("toy", "controls")
    assert rows.source.tolist() == ["recorded", "this run"] and rows.arm.tolist() == ["reward"] * 2 and said.startswith("1 of the 22 points")
    monkeypatch.setattr(study, "basis", lambda scale: "another")
    rows, said = study.sweep("toy", "controls")
    assert not len(rows) and said.endswith("3 rows are left out, for they rest on other prompts, images or labels.")


def test_an_experiment_at_the_scale_of_photographs_is_refused():
    with pytest.raises(config.ConfigError, match="the toy world only: run them at scale 'smoke' or 'toy'"):
        study.main(config.settings("study", scale="sd15"))
    with pytest.raises(config.ConfigError, match="in single precision"):
        study.main(config.settings("study", precision="bf16"))
