"""Statistics against hand-worked cases, their own symmetries and their coverage."""

import numpy as np
import pytest

from rlhf_nb import intervals


def test_the_mean_is_of_all_values_however_they_are_grouped():
    values, groups = np.array([1.0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 2])
    total, count = np.bincount(groups, values), np.bincount(groups)
    mean, low, high = intervals.interval(total, count)
    assert mean == values.mean() and low <= mean <= high
    assert intervals.interval(np.stack([total, total]), count)[0] == mean
    pairs = intervals.interval(np.outer(total, total)[None], np.outer(count, count))
    assert pairs[0] == pytest.approx(mean**2)
    assert intervals.interval(np.full(5, 0.25)) == (0.25, 0.25, 0.25)


def test_pairs_are_resampled_with_both_their_prompts():
    """An image of one prompt in a pair is drawn as often as that prompt, so products of sums stay such."""
    one, other = np.array([3.0, 1, 2]), np.array([1.0, 4, 2])
    _, low, high = intervals.interval(np.outer(one, other)[None], np.ones((3, 3)))
    times = intervals.resampled(3, 4000, np.random.default_rng(0))
    drawn = (times @ one) * (times @ other) / 9
    assert (low, high) == pytest.approx(np.quantile(drawn, intervals.ENDS))


def test_every_resample_has_as_many_as_there_are():
    times = intervals.resampled(6, 500, np.random.default_rng(0))
    assert (
        times.shape == (500, 6) and (times.sum(1) == 6).all() and times.mean(0) == pytest.approx(1, abs=0.1)
    )


def test_mcnemar_by_hand():
    """Ten discordant pairs, nine one way: p = 2 (1 + 10) / 2^10."""
    base, tuned = np.array([0] * 9 + [1] + [1] * 20, bool), np.array([1] * 9 + [0] + [1] * 20, bool)
    result = intervals.paired(base, tuned)
    assert result["p"] == pytest.approx(22 / 1024) and (result["won"], result["lost"]) == (9, 1)
    assert result["difference"] == pytest.approx(8 / 30) and result["low"] < 8 / 30 < result["high"]
    assert result["n"] == 30
    swapped = intervals.paired(tuned, base)
    assert swapped["difference"] == -result["difference"] and swapped["p"] == result["p"]


def test_interval_coverage_is_near_nominal():
    rng, inside = np.random.default_rng(0), {"share": 0, "paired": 0}
    for _ in range(200):
        base, tuned = rng.random(150) < 0.3, rng.random(150) < 0.45
        share = intervals.proportion(base)
        inside["share"] += share["low"] <= 0.3 <= share["high"]
        _, low, high = intervals.interval(tuned.astype(float) - base, draws=400)
        inside["paired"] += low <= 0.15 <= high
    assert all(0.89 <= v / 200 <= 0.99 for v in inside.values()), inside


def test_rounding_does_not_put_a_share_outside_its_interval():
    for hits in (np.ones(7, bool), np.zeros(7, bool)):
        result = intervals.proportion(hits)
        assert result["low"] <= result["share"] <= result["high"]


def test_clustered_interval_knows_that_pictures_of_a_prompt_are_alike():
    hits, groups = np.repeat([1, 0, 1, 1, 0, 1, 1, 1], 50), np.repeat(np.arange(8), 50)
    by_group, by_picture = intervals.clustered(hits, groups), intervals.proportion(hits)
    assert by_group["share"] == by_picture["share"] == 0.75
    assert by_group["high"] - by_group["low"] > 3 * (by_picture["high"] - by_picture["low"])


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_and_prompts_cover(seeds):
    """Of an effect that varies with seed and prompt."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(200):
        chance = 0.15 + 0.03 * rng.standard_normal((seeds, 1)) + 0.2 * rng.standard_normal((1, 150))
        effects = chance + 0.4 * rng.standard_normal((seeds, 150))
        _, low, high = intervals.interval(effects, draws=400)
        inside += low <= 0.15 <= high
    assert 0.90 <= inside / 200 <= 0.99, inside


def test_effects_over_seeds_by_hand():
    same = intervals.over_seeds([[1, 0, 1, 0]] * 3)
    assert (same["difference"], same["sd"], same["seeds"], same["n"]) == (0.5, 0, 3, 4)
    assert same["d"] == pytest.approx(0.5 / np.std([1, 0, 1, 0], ddof=1))
    # as large for one seed as for many
    assert intervals.over_seeds([[1, 0, 1, 0], [0, 1, 0, 1]])["d"] == same["d"]
    assert intervals.over_seeds([[0, 0], [0, 0]])["p"] == 1


def test_holm_by_hand():
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_verdict_needs_the_whole_interval():
    cases = {(0.01, 0.1): "borne out", (-0.1, -0.01): "refuted", (-0.01, 0.1): "undecided"}
    assert all(intervals.verdict(*ends) == word for ends, word in cases.items())


def test_an_effect_in_words():
    assert intervals.in_points(0.123, -0.01, 0.25) == "+12.3 points [-1.0, +25.0]"
