"""Tables by group: the same numbers as group by group, in the groups' own order."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest

from rlhf_nb import intervals
from rlhf_nb.page import tables

rng = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "group": np.repeat(["base", "tuned"], 40),
        "split": pd.Categorical(["b", "a"] * 40, ["b", "a"]),
        "all": rng.random(80) < np.repeat([0.3, 0.8], 40),
        "reward": rng.random(80),
    }
)


def test_shares_are_those_of_each_group():
    found = tables.shares(ROWS, ["split", "group"])
    assert list(zip(found.split, found.group, strict=True)) == [
        *(("b", "base"), ("b", "tuned")),
        *(("a", "base"), ("a", "tuned")),
    ]
    part = ROWS[(ROWS.split == "a") & (ROWS.group == "tuned")]
    expected = intervals.proportion(part["all"]) | {"reward": part.reward.mean(), "n": 20}
    assert found.iloc[3][list(expected)].to_dict() == pytest.approx(expected)


def test_models_are_compared_in_each_group():
    found = tables.paired(ROWS, ["split"]).set_index("split")
    part = ROWS[ROWS.split == "b"]
    expected = intervals.paired(*(part["all"][part.group == model] for model in ("base", "tuned")))
    assert found.loc["b"].to_dict() == pytest.approx(expected) and expected["difference"] > 0


def test_splits_get_their_names_and_stay_in_their_order():
    rows = pd.DataFrame({"condition": ["tuned", "base", "tuned"], "split": ["ood", "seen", "heldout"]})
    found = tables.judged(rows)
    assert found.group.cat.categories.tolist() == ["tuned", "base"]
    assert found.split.tolist() == ["out of distribution", "seen prompts", "held-out prompts"]
    assert found.split.cat.categories.tolist() == list(tables.SPLITS.values())


def test_tables_are_stacked_under_their_names():
    found = tables.stacked({"x": ROWS.head(2), "y": ROWS.head(1)}, "kind")
    assert found.kind.tolist() == ["x", "x", "y"] and found.index.tolist() == [0, 1, 2]


def test_a_long_table_is_folded_and_can_be_downloaded_whole():
    long = pd.DataFrame({"words": ["x" * 80, "<b>"] * 40, "number": np.arange(80) / 3})
    found = tables.folded("80 rows of *a* sweep (`make sweeps`)", long=long).data
    assert "<summary>80 rows of a sweep (make sweeps)</summary>" in found and found.startswith("<details")
    assert found.count("<tr") == 81 and "x" * 80 in found and "<b>" not in found
    packed = re.search(r'download="long.csv" href="data:text/csv;base64,([^"]+)"', found)[1]
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(base64.b64decode(packed))), long)
