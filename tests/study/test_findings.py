"""What a sweep says in words: each comparison by its interval, and a line for every setting."""

import numpy as np
import pandas as pd
from study.test_record import BASE, BETTER, GOOD, rows_of

from rlhf_nb import config
from rlhf_nb.study import findings, points, record

WORST = [("random", 0, "......", 1.0), ("random", 1, "......", 1.0)]


def test_a_comparison_says_what_its_interval_says():
    lines = findings.compared(rows_of(BASE, GOOD, BETTER, *WORST), "controls").set_index("finding")
    assert lines.index[0] == "The reward gained more than images chosen at random"
    first = lines.iloc[0]
    assert first.low > 0 and (first.seeds, first.n, first.split) == (2, 3, "validation")
    assert lines.index[1] == "The reward could not yet be compared with one from shuffled labels"
    assert np.isnan(lines.difference.iloc[1])
    turned = rows_of(BASE, GOOD, BETTER, *WORST)
    turned["arm"] = turned.arm.replace({"random": "reward", "reward": "random"})
    said = findings.compared(turned, "controls").finding[0]
    assert said == "The reward gained less than images chosen at random"
    same = rows_of(GOOD, ("random", 0, "xx.x..", 3.0))
    assert "could not be told apart from images" in findings.compared(same, "controls").finding[0]


def test_a_section_ends_with_what_was_measured_and_how():
    best = ("reward", 0, "xxxxxx", 1.0)
    found = findings.compared(rows_of(BASE, best, *WORST[:1]), "controls")
    said = findings.Look(None, None, found, None).so(0, 1).data
    assert said.startswith("**So:** The reward gained more than images chosen at random: +100.0 points [")
    assert "(3 validation prompts, 1500 updates, 1 seed, this run). The reward could not yet be" in said
    assert said.endswith("shuffled labels.")


def test_every_setting_has_one_line_the_records(monkeypatch):
    recorded = rows_of(BASE, GOOD, BETTER).assign(source="recorded")
    knobs = {"power": 3.0, "beta": 0.06, "baseline": 0.0, "rows_by": "weight"}
    both = pd.concat([rows_of(BASE, GOOD), recorded]).assign(**knobs)
    monkeypatch.setattr(record, "sweep", lambda scale, name: (both, ""))
    table = findings.gains("toy", ["controls", "frontier"])
    assert table[["arm", "source", "seeds"]].to_numpy().tolist() == [["reward", "recorded", 2]]


def test_the_record_holds_what_the_chapters_compare(monkeypatch, runs_folder):
    asked = pd.read_csv(record.RECORD).asked.iloc[-1]
    monkeypatch.setattr(record, "basis", lambda scale: asked)
    compared = config.read(findings.COMPARED)
    assert compared.keys() <= config.read(points.SWEEPS)["sweeps"].keys()
    for name in compared.keys() - {"breadth", "failure"}:  # whose rows chapter 09 adds to
        lines = findings.compared(record.sweep("toy", name)[0], name)
        assert len(lines) == len(compared[name]) and lines.low.notna().all()
