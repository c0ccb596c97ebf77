"""The words of the figures on rewards, by hand."""

import pandas as pd
import pytest

from rlhf_nb.page import rewards


@pytest.mark.parametrize(
    "low, high, word", [(0.05, 0.2, "better"), (-0.1, 0.2, "not told apart"), (-0.2, -0.01, "worse")]
)
def test_a_gain_is_told_by_its_interval(low, high, word):
    found = rewards.told({"gain": 0.1, "low": low, "high": high}, "gain")
    assert found == f"+10.0 points [{100 * low:+.1f}, {100 * high:+.1f}], {word}"


def test_gains_are_counted_by_their_sides():
    rows = pd.DataFrame({"low": [0.1, -0.2, -0.1, 0.0], "high": [0.2, -0.1, 0.1, 0.0]})
    assert rewards.counted("of 4", rows) == "of 4: 1 better, 1 worse"
