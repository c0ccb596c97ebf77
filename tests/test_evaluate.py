"""Measures of pictures and rewards against hand-worked cases and their own symmetries."""

from math import erf

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_images

from rlhf_nb import config, evaluate, files
from rlhf_nb.toy import world


def test_too_little_memory_and_too_few_real_pictures_are_said_before_the_work(pipe, tmp_path):
    settings = config.settings("evaluate", scale="toy")
    evaluate.check(settings, pipe, 1000)
    with pytest.raises(config.ConfigError, match="pictures drawn and the real ones need .* GB .*`renders`"):
        evaluate.check(settings, pipe, 10**12)
    save_images(tmp_path, np.zeros((3, 64, 64, 3), np.uint8), {"caption": list("abc")})
    with pytest.raises(files.ArtifactError, match="has 3 pictures, a distance to them takes 4: give more"):
        evaluate.check(settings.model_copy(update={"real": str(tmp_path)}), pipe, 1000)


def test_votes_are_antisymmetric_and_respect_the_threshold():
    first, second = np.array([0, 2, 4, 3]), np.array([4, 2, 0, 4])
    assert evaluate.votes(first, second).tolist() == ["win", "tie", "lose", "win"]
    flip = {"win": "lose", "lose": "win", "tie": "tie"}
    assert [flip[v] for v in evaluate.votes(first, second)] == evaluate.votes(second, first).tolist()


def test_votes_of_noisy_raters_are_symmetric_on_average():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 5, 4000), rng.integers(0, 5, 4000)
    one = pd.Series(evaluate.votes(first, second, noise=0.1)).value_counts(normalize=True)
    two = pd.Series(evaluate.votes(second, first, noise=0.1)).value_counts(normalize=True)
    assert one["win"] == pytest.approx(two["lose"], abs=0.02)
    assert one["tie"] == pytest.approx(two["tie"], abs=0.02)


def test_outcomes_are_percent_of_the_prompts():
    vote = ["win", "tie", "win", "tie"]
    assert evaluate.outcomes(vote) == {"win": 50, "tie": 50, "lose": 0, "n": 4}


def test_two_thirds_of_those_who_were_asked_decide():
    nobody = np.nan
    vote = [[1, 1, 0], [1, 0, 0], [-1, -1, 1], [1, 1, nobody], [1, nobody, nobody], [nobody] * 3]
    assert evaluate.tally(np.array(vote)).tolist() == ["win", "tie", "lose", "win", "win", "tie"]


@pytest.fixture(scope="module")
def scenes(reader):
    """Features of two samples of one world, and of a third with its colours inverted."""
    images = world.render([world.scene(1, i) for i in range(1600)], 1, range(1600))
    parts = images[:1000], images[1000:1300], 255 - images[1300:]
    return [reader.features(part) for part in parts]


def test_distances_to_real_scenes_know_same_from_other(scenes):
    real, fresh, other = scenes
    assert abs(evaluate.frechet(real, real)) < 0.01 * evaluate.frechet(real, other)
    assert evaluate.frechet(real, fresh) < evaluate.frechet(real, other)
    assert 0 < evaluate.frechet_error(real, fresh) < evaluate.frechet(real, other)
    assert evaluate.plausible(real, fresh).mean() > 0.85 > evaluate.plausible(real, other).mean()


def test_the_interval_of_the_frechet_ratio_covers():
    g, inside, widths = torch.Generator().manual_seed(0), 0, []
    for _ in range(20):
        real, base, tuned = (torch.randn(300, 3, generator=g) + shift for shift in (0.0, 1.0, 1.2))
        _, low, high = evaluate.frechet_ratio(real, base, tuned)
        inside += low <= 1.2**2 <= high
        widths.append(high - low)
    assert 0.83 <= inside / 20 <= 1.0 and np.mean(widths) < 0.6, (inside, np.mean(widths))
    assert evaluate.frechet_ratio(real, base, base) == (1, 1, 1)


def test_vendi_counts_different_pictures(scenes):
    assert evaluate.vendi(torch.eye(8)[[0, 1, 2, 3]]) == pytest.approx(4)
    assert evaluate.vendi(torch.eye(8)[[0, 0, 0, 0]]) == pytest.approx(1)
    assert evaluate.vendi(torch.eye(8)[[0, 0, 1, 1]]) == pytest.approx(2)
    assert evaluate.vendi(scenes[0]) > evaluate.vendi(scenes[0][:20].repeat(15, 1)) > 1


def test_diversity_is_of_the_prompts_with_several_pictures():
    features, groups = torch.tensor([[0.0], [9.0], [3.0], [5.0], [8.0]]), np.array(["b", "a", "b", "c", "c"])
    assert evaluate.diversity(features, groups).to_dict() == {"b": 3, "c": 3}
    assert not len(evaluate.diversity(features[:2], groups[:2]))


def test_saturation_by_hand():
    images = np.array([[[[255, 0, 0]]], [[[200, 100, 100]]], [[[90, 90, 90]]], [[[0, 0, 0]]]], np.uint8)
    assert evaluate.saturation(images).tolist() == [1, 0.5, 0, 0]


def test_best_of_one_is_the_base_and_best_of_all_the_maximum():
    value = np.random.default_rng(1).random((5, 8))
    hits = value > 0.5
    assert (np.take_along_axis(hits, evaluate.best_of(value, 1), 1) == hits).all()
    assert (np.take_along_axis(value, evaluate.best_of(value, 8), 1)[:, 0] == value.max(1)).all()
    # the seventh try belongs to no group
    by_hand = evaluate.best_of(np.array([[0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.5]]), 3)
    assert by_hand.tolist() == [[1, 3]]


def test_the_interval_of_pairwise_accuracy_covers():
    rng, inside, truth = np.random.default_rng(5), 0, 0.5 * (1 + erf(1.0 / 2))  # P(N(1, 1) > N(0, 1))
    for _ in range(100):
        prompts, labels = np.repeat(np.arange(40), 6), rng.random(240) < 0.4
        result = evaluate.pairwise(labels + rng.standard_normal(240), labels, prompts)
        inside += result["low"] <= truth <= result["high"]
    assert 0.87 <= inside / 100 <= 0.99, inside


def test_pairwise_by_hand():
    scores, labels = np.array([0.9, 0.1, 0.5, 0.5, 0.3]), np.array([1, 0, 0, 1, 0])
    result = evaluate.pairwise(scores, labels, np.array(["a", "a", "a", "b", "b"]))
    assert (result["share"], result["pairs"], result["prompts"]) == (1.0, 3, 2)
    assert evaluate.pairwise(-scores, labels, np.array(["a"] * 5))["share"] == pytest.approx(0.5 / 6)


def test_pairwise_across_prompts_and_differences_by_hand():
    scores, labels = np.array([0.9, 0.1, 0.4, 0.3]), np.array([1, 0, 1, 0])
    prompts = np.array(["a", "a", "b", "b"])
    across = evaluate.pairwise(scores, labels, prompts, across=True)
    assert across["share"] == across["high"] == 1
    assert (across["pairs"], across["prompts"], across["seeds"]) == (4, 2, 1)
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
    before = evaluate.calibration(sure, labels)
    after = evaluate.calibration(evaluate.tempered(sure, tau), labels)
    assert after < 0.02 < before
    assert evaluate.calibration(np.array([0.25, 0.75]), np.array([0, 1])) == pytest.approx(0.25)
