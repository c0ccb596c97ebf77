"""The league's standings by hand: every model at its own best guidance, hypotheses as one family; its page
without rows, with some, and with all.
"""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rlhf_nb.page import league as page
from rlhf_nb.study import league, points, record, standings
from rlhf_nb.study.standings import CONTROL, PAPER

N = 40


def point(settings, right, best=3.0, drift=0.1):
    """Rows of a point: `right` of N prompts at its best guidance, half of them at 1; and mixed."""
    curve = json.dumps([{"step": t, "reward": 0.4 + t / 5, "true": 0.4 + t / 10} for t in (0.0, 0.5, 1.0)])
    for split in settings.splits:
        for guidance, mixed in ((1.0, 1.0), (best, 1.0), *((best, lam) for lam in settings.mixing)):
            if mixed == 1 or split == "validation":
                hits = "x" * (right if guidance == best else right // 2)
                yield dict.fromkeys([*standings.MEASURES, *record.MEASURES], 1.0) | {
                    **{"split": split, "guidance": guidance, "mixed": mixed, "drift": drift, "curve": curve},
                    **{"n": N, "hits": hits.ljust(N, "."), "all": len(hits) / N, "spent": settings.tflop},
                    **{"settings": settings.model_dump_json(), "source": "recorded", "reward": right / N},
                }


def known(**right):
    """The rows of finished league rows, {name: prompts that are right}, and of the base model, 10."""
    made = [*point(league.base("toy"), 10, best=2.0)]
    for name, count in right.items():
        while todo := league.Line("toy", name, described(made)).missing():
            for settings in todo:
                made += point(settings, count)
    return described(made)


def described(made):
    return record.described(pd.DataFrame(made).drop(columns=["lr", "own"], errors="ignore"))


@pytest.fixture
def rows(monkeypatch):
    def of(**right):
        found = known(**right)
        monkeypatch.setattr(league, "known", lambda scale: found)
        return standings.rows("toy")

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    return of


def test_each_is_compared_at_its_own_best_guidance(rows):
    found = rows(AWM=20, **{"DDPO-IS": 20, PAPER: 14})
    assert set(found.own[found.row == "AWM"]) == {3.0} and set(found.own[found.row == standings.BASE]) == {
        2.0
    }
    own = standings.gains(found[found.guidance == found.own])
    held = own[own.split == "heldout"].set_index("row")
    assert held.difference.round(3).to_dict() == {"AWM": 0.25, "DDPO-IS": 0.25, PAPER: 0.1}
    assert (held.seeds == league.plan().seeds).all() and np.allclose(held.gap, 0)
    plain = standings.gains(found[found.guidance == 1]).query("split == 'heldout'").set_index("row")
    assert plain.difference[PAPER] == pytest.approx(2 / N)
    steps = own.query("row == 'AWM' and split == 'validation'").sort_values("mixed")
    assert steps.moved.tolist() == pytest.approx([0.025, 0.1, 0.225])


def test_the_hypotheses_are_one_family(rows):
    found, plan = rows(AWM=30, **{"DDPO-IS": 12, "reward weighting in rounds": 12}), league.plan()
    claims = standings.compared(found, plan.hypotheses).set_index("row")
    assert len(claims) == len(plan.hypotheses)
    assert claims.difference["AWM above DDPO-IS"] == pytest.approx(18 / N)
    assert claims.difference["DDPO-IS above reward weighting in rounds"] == 0
    assert claims.p["V-GRPO above GRPO"] == 1 and np.isnan(claims.difference["V-GRPO above GRPO"])
    least = claims.p.min()
    assert claims.holm["AWM above DDPO-IS"] == pytest.approx(min(1, least * len(claims)))


def test_every_hypothesis_and_training_beside_names_rows_that_are_there():
    plan = league.plan()
    names = pd.DataFrame([{"row": name, "method": row.method} for name, row in plan.rows.items()])
    for words, queries in plan.hypotheses.items():
        assert "{}" in words and all(len(names.query(query)) == 1 for query in queries), words
    assert {of.row for study in plan.beside.values() for of in study.values()} <= {*plan.rows}
    assert {PAPER, CONTROL} <= {*plan.rows}


def test_what_is_trained_beside_changes_what_it_says(rows):
    found = known(AWM=20)
    beside = league.beside("toy", "knobs", found)
    final = league.Line("toy", "AWM", found).final()[0]
    [first, second] = beside["trust region: none (AWM: clip and pull)"]
    assert (first.seed, second.seed, first.knobs["clip"], first.knobs["pull"]) == (0, 1, 0.0, 0.0)
    assert first.lr == final.lr and first.clip == final.clip == "toy/clip"
    assert not any("V-GRPO" in words for words in beside)  # its tuning is not done
    assert [s.tflop for s in league.missing("toy", "long", found)] == [80.0]
    assert not league.missing("toy", "live", found)
    other = league.base("toy", pipeline="another")
    assert points.key(other) != points.key(league.base("toy"))


def test_curves_begin_at_nothing(rows):
    curves = standings.curves(rows(AWM=20)).query("study == 'league'")
    assert curves.tflop.tolist() == [0, 10, 20] and curves.true.tolist() == pytest.approx([0, 0.05, 0.1])


@pytest.mark.parametrize("right", [{}, {"AWM": 20}, {"AWM": 20, PAPER: 14, CONTROL: 10, "KTO": 0}])
def test_the_page_reads_right_without_rows_with_one_and_with_more(rows, right):
    right.pop("KTO", None)
    found = rows(**right)
    own = standings.gains(found[found.guidance == found.own])
    table = own[(own.study == "league") & (own.mixed == 1)]
    stand = table[table.split == "heldout"]
    page.dots(stand, "held-out prompts", "a finding")
    page.rising(page.marks(stand), standings.curves(found), "truth", "reward")
    listed = page.listed(table)
    assert len(listed) == len(right) and list(listed.index) == [*right] if right else "No rows" in listed.data
    knob = {row: next(iter(of.then)) for row, of in league.plan().rows.items()}
    said = page.seen(stand, found, knob, ["AWM"] if right else [PAPER], "It holds").data
    assert ("Try first: **AWM**" in said) == bool(right) and ("No rows yet" in said) != bool(right)
