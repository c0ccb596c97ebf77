"""The front page says what the run's tables hold, and says nothing that they lack."""

import json
import re
import runpy

import pandas as pd
import pytest
from conftest import ROOT

from rlhf_nb import config, runs
from rlhf_nb.page import front

EFFECT = {"difference": 0.16, "low": 0.1, "high": 0.22}
NUMBERS = {
    **{"n": 500, "base": 39.4, "tuned": 55.0, "gain": 16.0, "gain_low": 10.0, "gain_high": 22.0, "p": 2e-9},
    **{
        "frechet_ratio": 1.031,
        "ratio_low": 0.9,
        "ratio_high": 1.2,
        "guidance_base": 4.0,
        "guidance_tuned": 2.0,
    },
}


def trained(source, **kind):
    return {"arm": "reward", "split": "heldout", "source": source, "n": 500, **EFFECT, **kind}


def gain(pairs, share, **kind):
    scored = {"scored": "with prompt classification", "against": "CLIP similarity", **kind}
    return {"split": "all new prompts", "pairs of": pairs, "share": share, "low": 0.0, "high": 0.5, **scored}


TABLES = {
    "evaluate": {
        "paired": [
            {"split": split, "n": 500, **EFFECT}
            for split in ("seen prompts", "held-out prompts", "unseen objects", "out of distribution")
        ],
        "diversity": [{"base": 20.0, "difference": -2.0}, {"base": None, "difference": None}],
    },
    "reach": {
        "fresh": [
            {"split": "unseen objects", "measured before": before, "n": n, **EFFECT}
            for before, n in (("no", 168), ("yes", 332))
        ],
        "eye": [
            {"by": by, "prompts": prompts, "n": n, **EFFECT, "difference": difference}
            for by, difference in (("eye", 0.144), ("judge", 0.176))
            for prompts, n in (("all", 250), ("the first", 100), ("those added", 150))
        ],
        "seeds": [
            trained("recorded", updates=10, seeds=5, ratio=1.1),
            trained("this run", updates=10, seeds=1, ratio=1.3),
            trained("recorded", updates=30, seeds=4, ratio=0.8, difference=0.2),
            trained("recorded", updates=30, seeds=3, ratio=1.2, arm="random"),
        ],
        "seeds_fresh": [trained("recorded", updates=10, seeds=5, n=223)],
        "reward_over_random": [
            {"split": split, "updates": 30, "seeds": 3, "n": 500, **EFFECT} for split in ("seen", "heldout")
        ],
    },
    "reward": {
        "gains": [
            gain("one prompt", 0.02),
            gain("any prompts", 0.04),
            gain("any prompts", 0.3, scored="without prompt classification"),
        ]
    },
    "sensitivity": {
        "frontier": [
            {"power": 3.0, "beta": 0.0, "source": "recorded", **EFFECT},
            {"power": 3.0, "beta": 0.06, "source": "recorded", **EFFECT},
            {"power": 3.0, "beta": 0.06, "source": "this run", **EFFECT, "difference": 0.5},
        ]
    },
    "align": {},
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the last chapter that has measured what is above."""
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path))
    settings = {"updates": 10, "knobs": {"power": 3.0}}
    for stage, tables in TABLES.items():
        folder = tmp_path / "smoke" / stage
        folder.mkdir(parents=True)
        made = {"stage": stage, "digest": "", "inputs": {}, "files": {}, "versions": {}, "settings": settings}
        made |= {"device": "cpu", "threads": 1, "seconds": 1.0, "tflop": 0.0, "finished": ""}
        (folder / "manifest.json").write_text(json.dumps(made))
        for name, rows in tables.items():
            pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (tmp_path / "smoke" / "evaluate" / "numbers.json").write_text(json.dumps(NUMBERS))
    return runs.Run("verdicts", config.settings("verdicts"), needs=["reward", "evaluate", "sensitivity"])


def test_how_far_the_gain_carries(run):
    table = front.table(run)
    assert table["measured on"].tolist() == [
        "**held-out prompts, this run**",
        "new wordings and rare pairs of colour and place",
        "objects that feedback never showed",
        "those of them that no earlier run had measured",
        "**held-out prompts, by eye**",
        "the first of these, labelled before anyone looked",
        "those added after that look",
        "**trained anew from 5 seeds**",
        "on prompts that no earlier run had measured",
        "**30 updates in place of 10, 4 seeds**",
        "this longer training above an equally long one on images chosen at random, 3 seeds",
    ]  # and no line for what was not measured: the longer training on prompts that are new
    assert table.gain.tolist() == pytest.approx([16, 16, 16, 16, 14.4, 14.4, 14.4, 16, 16, 20, 16])
    assert table.prompts.tolist() == [500, 500, 500, 168, 250, 100, 150, 500, 223, 500, 500]
    assert table["Fréchet ratio"].dropna().to_dict() == {0: 1.031, 7: 1.1, 9: 0.8}


def test_every_number_of_the_page_is_there(run):
    said = front.sentences(run) | {"draw": "which the build adds"}
    for name in re.findall(r"{{ ?([\w.]+) ?}}", (ROOT / "book" / "index.md").read_text()):
        words = said
        for part in name.split("."):
            words = words[part]
        assert isinstance(words, str), name
    assert (said["n"], said["gain"], said["p"], said["guidance_tuned"]) == ("500", "+16.0", "2.0e-09", "2.0")
    assert (said["variety_all"], said["variety_right"], said["power"]) == ("-10", "+nan", "3")
    assert (said["any_prompts"]["gain"], said["one_prompt"]["gain"]) == ("+4.0", "+2.0")
    assert said["power_3"] == {"gain": "+16.0", "low": "+10.0", "high": "+22.0"}
    assert said["power_1"]["gain"] == "+nan"


def test_the_table_as_the_page_shows_it(run, tmp_path):
    front.table(run).to_csv(tmp_path / "front.csv", index=False)
    lines = runpy.run_path(str(ROOT / "book" / "build.py"))["how_far"](tmp_path / "front.csv").splitlines()
    assert lines[0] == "| measured on | gain, points | 95 % interval | prompts | Fréchet ratio |"
    assert lines[2] == "| **held-out prompts, this run** | +16.0 | +10.0 to +22.0 | 500 | 1.03 |"
    assert lines[3].endswith("| +16.0 | +10.0 to +22.0 | 500 |  |") and len(lines) == 13
