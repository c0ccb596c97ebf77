"""Claims by hand: which line decides, what is left after the correction, and where a reader looks."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from rlhf_nb import config
from rlhf_nb.page import verdicts

SURE, WEAK, WRONG, NONE = (0.2, 0.18, 0.22), (0.2, 0.01, 0.39), (-0.2, -0.22, -0.18), (np.nan,) * 3


@pytest.fixture
def found(tmp_path, monkeypatch):
    """found(*(code, effect)) -> the table of claims with these effects."""
    main = {code: {"claim": f"what {code} says", "see": "x"} for code in ("E1", "E2", "R1", "R2", "R4")}

    def of(*effects):
        rows = [{"code": c, **dict(zip(verdicts.EFFECT, e, strict=True)), "seeds": 3} for c, e in effects]
        words = {"claim": "c", "over": "o", "where": "w"}
        claims = [{"code": row["code"], "table": str(k), **words} for k, row in enumerate(rows)]
        (tmp_path / "claims.yaml").write_text(json.dumps({"main": main, "claims": claims}))
        monkeypatch.setattr(verdicts, "CLAIMS", tmp_path / "claims.yaml")
        monkeypatch.setattr(verdicts, "table_of", lambda run, name: pd.DataFrame([rows[int(name)]]))
        return verdicts.found(None)

    return of


def test_an_interval_decides_and_the_correction_takes_back_what_is_weak(found):
    table = found(("E1", SURE), ("E1", WEAK), ("E2", WEAK), ("R1", WRONG), ("R2", NONE))
    assert table.verdict.tolist() == [*["borne out"] * 3, "refuted", "no result"]
    assert table["after Holm"].tolist() == ["borne out", *["undecided"] * 2, "refuted", "no result"]
    assert table.here.tolist() == [
        *("+20.0 [+18.0, +22.0]", *["+20.0 [+1.0, +39.0]"] * 2),
        *("-20.0 [-22.0, -18.0]", "no rows yet"),
    ]


def test_the_surest_come_first_and_say_what_was_not_reproduced(found):
    effects = [("R2", NONE), ("E2", WEAK), ("E1", WRONG), ("E1", SURE), ("R1", SURE), ("R1", WEAK)]
    main = verdicts.main_lines(found(*effects))
    assert main.code.tolist() == ["R1", "E1", "E2", "R2", "R4"]
    assert main.said.tolist() == [
        *("borne out", "**not reproduced** (refuted)", "**not reproduced** (undecided)"),
        *("no result", "to see"),
    ]
    assert main.lines.tolist() == [
        "1 borne out, 1 undecided",
        "1 borne out, 1 refuted",
        "1 undecided",
        "1 no result",
        "",
    ]
    assert verdicts.summary(main) == "1 borne out, 1 refuted, 1 undecided, 1 no result, 1 to see"
    assert verdicts.listed(main).data.splitlines()[2].startswith("| R1 | what R1 says | +20.0 [")


def test_a_claim_that_is_turned_round_and_wins_less_losses(monkeypatch):
    votes = pd.DataFrame([{"win": 50.0, "lose": 20.0, "n": 100}])
    monkeypatch.setattr(verdicts, "read", lambda run, place: votes)
    claim = {"code": "E4", "claim": "c", "over": "{n}", "where": "w", "table": "evaluate/votes", "sign": -1}
    [line] = verdicts.lines_of(None, claim)
    assert (line["over"], line["paper"]) == ("100", "") and line["difference"] == pytest.approx(-0.3)
    assert line["low"] < line["difference"] < line["high"] < 0
    row = verdicts.table_of(None, "evaluate/votes").iloc[0]
    width = 1.96 * np.sqrt((0.7 - 0.09) / 100)
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.3, 0.3 - width, 0.3 + width])


def test_every_result_and_demand_has_its_line_and_every_label_its_figure():
    known = config.read(verdicts.CLAIMS)
    assert [*known["main"]] == [f"{kind}{k}" for kind in "ER" for k in range(1, 9)]
    assert {claim["code"] for claim in known["claims"]} == known["main"].keys() - {"E8", "R4", "R5"}
    labels = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            labels.add(cell["metadata"].get("mystnb", {}).get("figure", {}).get("name"))
    asked = {label for of in known["main"].values() for label in re.findall(r"numref}`([\w-]+)`", of["see"])}
    assert asked and asked <= labels
