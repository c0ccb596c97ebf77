"""Statistics against hand-worked cases and their own symmetries."""

from math import erf

import numpy as np
import pandas as pd
import pytest
import torch

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


def test_votes_of_noisy_raters_are_symmetric_on_average():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 5, 4000), rng.integers(0, 5, 4000)
    one, two = (pd.Series(evaluate.votes(a, b, noise=0.1)).value_counts(normalize=True) for a, b in ((first, second), (second, first)))
    assert one["win"] == pytest.approx(two["lose"], abs=0.02) and one["tie"] == pytest.approx(two["tie"], abs=0.02)


@pytest.fixture(scope="module")
def scenes(reader):
    """Features of two samples of one world, and of a third with its colours inverted."""
    from rlhf_nb import world

    images = world.render([world.scene(1, i) for i in range(1600)], 1, range(1600))
    extract = evaluate.extractor(reader, None)
    return extract(images[:1000]), extract(images[1000:1300]), extract(255 - images[1300:])


def test_distances_to_real_scenes_know_same_from_other(scenes):
    real, fresh, other = scenes
    assert abs(evaluate.frechet(real, real)) < 0.01 * evaluate.frechet(real, other)
    assert evaluate.frechet(real, fresh) < evaluate.frechet(real, other)
    assert 0 < evaluate.frechet_error(real, fresh) < evaluate.frechet(real, other)
    assert evaluate.plausible(real, fresh).mean() > 0.85 > evaluate.plausible(real, other).mean()
    ratio, low, high = evaluate.frechet_ratio(real, fresh, other, draws=20)
    assert 1 < low < ratio < high and evaluate.frechet_ratio(real, fresh, fresh, draws=3) == (1, 1, 1)


def test_vendi_counts_different_pictures(scenes):
    import torch

    assert evaluate.vendi(torch.eye(8)[[0, 1, 2, 3]]) == pytest.approx(4)
    assert evaluate.vendi(torch.eye(8)[[0, 0, 0, 0]]) == pytest.approx(1)
    assert evaluate.vendi(torch.eye(8)[[0, 0, 1, 1]]) == pytest.approx(2)
    assert evaluate.vendi(scenes[0]) > evaluate.vendi(scenes[0][:20].repeat(15, 1)) > 1


def test_saturation_by_hand():
    images = np.array([[[[255, 0, 0]]], [[[200, 100, 100]]], [[[90, 90, 90]]], [[[0, 0, 0]]]], np.uint8)
    assert evaluate.saturation(images).tolist() == [1, 0.5, 0, 0]


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_and_prompts_cover(seeds):
    rng, inside = np.random.default_rng(3), 0
    for k in range(200):
        chance = 0.15 + 0.03 * rng.standard_normal((seeds, 1)) + 0.2 * rng.standard_normal((1, 150))  # an effect that varies with seed and prompt
        result = evaluate.over_seeds(chance + 0.4 * rng.standard_normal((seeds, 150)), draws=400, seed=k)
        inside += result["low"] <= 0.15 <= result["high"]
    assert 0.90 <= inside / 200 <= 0.99, inside


def test_the_interval_of_pairwise_accuracy_covers():
    rng, inside, truth = np.random.default_rng(5), 0, 0.5 * (1 + erf(1.0 / 2))  # P(N(1, 1) > N(0, 1))
    for k in range(100):
        prompts, labels = np.repeat(np.arange(40), 6), rng.random(240) < 0.4
        result = evaluate.pairwise(labels + rng.standard_normal(240), labels, prompts, draws=400, seed=k)
        inside += result["low"] <= truth <= result["high"]
    assert 0.87 <= inside / 100 <= 0.99, inside


def test_the_interval_of_the_frechet_ratio_covers():
    g, inside, widths = torch.Generator().manual_seed(0), 0, []
    for k in range(60):
        real, base, tuned = (torch.randn(300, 3, generator=g) + shift for shift in (0.0, 1.0, 1.2))
        _, low, high = evaluate.frechet_ratio(real, base, tuned, draws=40, seed=k)
        inside += low <= 1.2**2 <= high
        widths.append(high - low)
    assert 0.83 <= inside / 60 <= 1.0 and np.mean(widths) < 0.6, (inside, np.mean(widths))


def test_best_of_one_is_the_base_and_best_of_all_the_maximum():
    value = np.random.default_rng(1).random((5, 8))
    hits = value > 0.5
    assert (np.take_along_axis(hits, evaluate.best_of(value, 1), 1) == hits).all()
    assert (np.take_along_axis(value, evaluate.best_of(value, 8), 1)[:, 0] == value.max(1)).all()
    by_hand = evaluate.best_of(np.array([[0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.5]]), 3)  # the seventh try belongs to no group
    assert by_hand.tolist() == [[1, 3]]


def test_effects_over_seeds_by_hand():
    same = evaluate.over_seeds([[1, 0, 1, 0]] * 3)
    assert (same["difference"], same["sd"], same["seeds"], same["n"]) == (0.5, 0, 3, 4)
    assert same["d"] == pytest.approx(0.5 / np.std([1, 0, 1, 0], ddof=1))
    assert evaluate.over_seeds([[1, 0, 1, 0], [0, 1, 0, 1]])["d"] == same["d"]  # as large for one seed as for many
    assert evaluate.over_seeds([[0, 0], [0, 0]])["p"] == 1


def test_holm_by_hand():
    assert evaluate.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_verdict_needs_the_whole_interval():
    assert [evaluate.verdict(*i) for i in ((0.01, 0.1), (-0.1, -0.01), (-0.01, 0.1))] == ["borne out", "refuted", "undecided"]


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
