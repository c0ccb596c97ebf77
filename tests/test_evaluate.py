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


def test_pairwise_across_prompts_and_differences_by_hand():
    scores, labels, prompts = np.array([0.9, 0.1, 0.4, 0.3]), np.array([1, 0, 1, 0]), np.array(["a", "a", "b", "b"])
    assert evaluate.pairwise(scores, labels, prompts, across=True) | {"low": 0, "high": 0} == {
        "share": 1.0, "low": 0, "high": 0, "pairs": 4, "prompts": 2, "seeds": 1}
    rival = np.array([0.9, 0.1, 0.2, 0.3])  # loses one pair within b; across, 0.2 still beats 0.1 of a
    assert evaluate.pairwise(scores, labels, prompts, rival)["share"] == 0.5
    assert evaluate.pairwise(scores, labels, prompts, rival, across=True)["share"] == 0.25
    both = evaluate.pairwise(np.stack([scores, rival]), labels, prompts)
    assert both["share"] == 0.75 and both["seeds"] == 2 and both["low"] <= 0.75 <= both["high"]
    assert np.isnan(evaluate.pairwise(scores, np.ones(4), prompts)["share"])


def test_temperature_mends_what_is_too_sure():
    rng = np.random.default_rng(0)
    truth = 1 / (1 + np.exp(-rng.normal(0, 1.5, 20_000)))
    labels = rng.random(20_000) < truth
    sure = evaluate.tempered(truth, 0.4)
    tau = evaluate.fit_temperature(sure, labels)
    assert tau == pytest.approx(2.5, rel=0.1)
    before, after = evaluate.calibration(sure, labels), evaluate.calibration(evaluate.tempered(sure, tau), labels)
    assert after[0] < 0.02 < before[0] and after[1] < before[1]
    assert evaluate.calibration(np.array([0.25, 0.75]), np.array([0, 1])) == pytest.approx((0.25, 0.0625))


def test_clustered_interval_knows_that_pictures_of_a_prompt_are_alike():
    hits, groups = np.repeat([1, 0, 1, 1, 0, 1, 1, 1], 50), np.repeat(np.arange(8), 50)
    share, low, high = evaluate.clustered(hits, groups)
    assert share == 0.75 and high - low > 3 * np.subtract(*evaluate.proportion(hits)[:0:-1])
