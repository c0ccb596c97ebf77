"""How heads rank test pictures, by hand."""

import pandas as pd
import pytest

from rlhf_nb.study import heads

ROWS = pd.DataFrame({"prompt": ["a", "a", "b", "b"], "label": [1.0, 0.0, 1.0, 0.0]}, index=[7, 3, 5, 9])


def test_scores_are_found_by_their_pictures():
    scores = pd.DataFrame([[0.9, 0.1, 0.3, 0.5, 0.4], [0.1, 0.9, 0.6, 0.2, 0.0]], columns=[7, 3, 5, 9, 0])
    assert heads.ranked(scores, ROWS)["share"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert heads.ranked(scores.loc[0], ROWS)["share"] == 0.5
    assert heads.ranked(scores, ROWS, across=True)["share"] == pytest.approx((2 + 1 + 0 + 1) / 8)
    assert heads.ranked(scores, ROWS, scores)["share"] == 0
