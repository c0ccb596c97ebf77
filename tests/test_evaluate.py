"""Statistics against hand-worked cases and their own symmetries."""

import numpy as np
import pytest

from rlhf_nb import evaluate


def test_mcnemar_by_hand():
    """Ten discordant pairs, nine one way: p = 2 (1 + 10) / 2^10."""
    base, tuned = np.array([0] * 9 + [1] + [1] * 20, bool), np.array([1] * 9 + [0] + [1] * 20, bool)
    result = evaluate.paired(base, tuned)
    assert result["p"] == pytest.approx(22 / 1024) and (result["won"], result["lost"]) == (9, 1)
    assert result["difference"] == pytest.approx(8 / 30) and result["low"] < 8 / 30 < result["high"]
    swapped = evaluate.paired(tuned, base)
    assert swapped["difference"] == -result["difference"] and swapped["p"] == result["p"]


def test_interval_coverage_is_near_nominal():
    rng, inside = np.random.default_rng(0), {"share": 0, "paired": 0}
    for k in range(200):
        base, tuned = rng.random(150) < 0.3, rng.random(150) < 0.45
        share, low, high = evaluate.proportion(base)
        inside["share"] += low <= 0.3 <= high
        result = evaluate.paired(base, tuned, draws=500, seed=k)
        inside["paired"] += result["low"] <= 0.15 <= result["high"]
    assert all(0.89 <= v / 200 <= 0.99 for v in inside.values()), inside


def test_votes_are_antisymmetric_and_respect_the_threshold():
    first, second = np.array([0, 2, 4, 3]), np.array([4, 2, 0, 4])
    assert evaluate.votes(first, second).tolist() == ["win", "tie", "lose", "win"]
    flip = {"win": "lose", "lose": "win", "tie": "tie"}
    assert [flip[v] for v in evaluate.votes(first, second)] == evaluate.votes(second, first).tolist()


def test_frechet_of_a_set_with_itself_is_zero(reader):
    from rlhf_nb import world

    images = world.render([world.scene(1, i) for i in range(300)], 1, range(300))
    extractor = evaluate.judge_features(reader)
    same, other = evaluate.frechet(extractor, images, images), evaluate.frechet(extractor, images, 255 - images)
    assert abs(same) < 0.01 * other


def test_pairwise_by_hand():
    scores, labels = np.array([0.9, 0.1, 0.5, 0.5, 0.3]), np.array([1, 0, 0, 1, 0])
    result = evaluate.pairwise(scores, labels, np.array(["a", "a", "a", "b", "b"]))
    assert (result["share"], result["pairs"], result["prompts"]) == (1.0, 3, 2)
    assert evaluate.pairwise(-scores, labels, np.array(["a"] * 5))["share"] == pytest.approx(0.5 / 6)
