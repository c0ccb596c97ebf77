"""The league: what is tried, in which order, and that a row is made, resumed and extended by its line."""

import shutil

import pytest
import yaml

from rlhf_nb import config, methods, runs
from rlhf_nb.study import budget, league, points, record

SMALL = {"updates": 2, "pre_images": 16, "steps": 2, "renders": 64, "prompts": 4}
ROUNDS = {"prompts": 2, "images": 4, "steps": 2}
PAPER = {"kind": "offline", "method": "reward_weighted", "lr": [1e-4, 1e-3], "then": {"power": [1.0]}}
TINY = {
    "tflop": 0.04,
    "seeds": 2,
    "again": {"seeds": 3, "best": 1, "rows": []},
    "common": SMALL | {"arm": "given", "repeats": 1},
    "tuning": {"splits": ["validation"], "guidances": [1.0]},
    "final": {"splits": ["validation", "heldout"], "guidances": [1.0, 3.0], "own_best": True},
    "kinds": {"offline": {"model_batch": 8, "pre_batch": 4}, "online": {"model_batch": 8, "rounds": ROUNDS}},
    "rows": {"paper": PAPER},
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(league, "LEAGUE", tmp_path / "league.yaml")

    def write(**changed):
        league.LEAGUE.write_text(yaml.safe_dump(TINY | changed))

    write()
    return write


def test_the_shipped_rows_have_every_method_and_their_settings_hold():
    plan = league.plan()
    trained = {row.method for row in plan.rows.values()}
    assert trained == set(methods.names())
    nothing = record.described(record.known("toy")).head(0)
    for name, row in plan.rows.items():
        line = league.Line("toy", name, nothing)
        tried = [settings for settings, _ in line.tried()]
        assert len(tried) == 3 and {s.tflop for s in tried} == {plan.tflop / 2} and not line.final()
        for knob, values in row.then.items():
            assert [line.settings(1.0, {}, 1e-4, {knob: value}).knobs[knob] for value in values] == values


def test_a_budget_buys_updates_or_rounds():
    price = budget.Cost(update=0.01, picture=0.0)
    offline = config.settings("study", tflop=1.0)
    assert budget.bought(offline, price).updates == 100
    rounds = {"prompts": 4, "images": 5}
    online = config.settings("study", method="awm", tflop=1.0, updates=4, rounds=rounds)
    bought = budget.bought(online, budget.Cost(0.01, 0.002))
    assert (bought.rounds.count, bought.updates) == (12, 48)  # 0.08 a round
    spent, drawn = budget.Cost(0.01, 0.002).of(bought)
    assert drawn == 240 and spent == pytest.approx(0.96)
    with pytest.raises(config.ConfigError, match="a budget of 0.001 TFLOP buys no update: raise `tflop`"):
        budget.bought(config.settings("study", tflop=0.001), price)


@pytest.mark.slow
def test_a_row_is_made_by_one_rule_and_a_second_start_makes_nothing(smoke, tiny, tmp_path, monkeypatch):
    shutil.copytree(smoke / "runs", tmp_path / "runs")
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    league.make("smoke", "paper")
    rows = league.known("smoke")
    line = league.Line("smoke", "paper", rows)
    assert not line.missing()
    assert league.again("smoke", rows) == {"paper"} and not line.missing(3)  # it is the best of one
    tried, final = line.tried(), line.final()
    assert [s.lr for s, _ in tried[:2]] == [1e-4, 1e-3] and tried[2][0].knobs["power"] == 1.0
    best = max(tried, key=lambda of: of[1])[0]
    assert [(s.lr, s.knobs["power"], s.seed, s.tflop) for s in final] == [
        (best.lr, best.knobs["power"], seed, 0.04) for seed in (0, 1)
    ]
    of = rows[rows.key == points.key(final[0])]
    assert set(of.guidance[of.split == "heldout"]) <= {1.0, 3.0} and 0.03 < of.spent.iloc[0] <= 0.04
    made = runs.manifest("smoke", f"study/{points.key(final[0])}")["finished"]
    league.make("smoke", "paper")
    assert runs.manifest("smoke", f"study/{points.key(final[0])}")["finished"] == made
    tiny(seeds=4)
    assert [s.seed for s in league.Line("smoke", "paper", rows).missing()] == [3]
