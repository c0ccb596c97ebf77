"""Votes, agreement and rater quality: by hand, and against raters whose errors are known."""

import numpy as np
import pandas as pd
import pytest

from rlhf_nb.feedback import raters
from rlhf_nb.feedback.store import TooFewLabels


def table(texts):
    """Judgements of {image: labels}, one rater each."""
    said = [(f"r{k}", image, label) for image, text in texts.items() for k, label in enumerate(text.split())]
    return pd.DataFrame(said, columns=["rater", "image", "label"])


def test_majority_leaves_out_ties_and_skips():
    votes = {
        0: "good good bad",
        1: "good bad skip",
        2: "bad skip skip",
        3: "bad bad good",
        4: "good good good",
    }
    assert raters.majority(table(votes)).to_dict() == {0: 1.0, 3: 0.0, 4: 1.0}


@pytest.mark.parametrize("share", [0.5, 0.3, 0.8])
@pytest.mark.parametrize("kappa", [0.684, 0.284])
def test_flip_rate_gives_the_yardstick_agreement(share, kappa):
    """Raters who err at flip_rate(kappa, share) agree with kappa, whatever share of the images is good."""
    rng, n = np.random.default_rng(0), 6000
    truth, sure = rng.random(n) < share, np.ones(n)
    errors = np.full(n, raters.flip_rate(kappa, share))
    labels = [raters.simulated_rater(truth, errors, sure, rng) for _ in range(3)]
    said = [pd.DataFrame({"rater": k, "image": range(n), "label": v}) for k, v in enumerate(labels)]
    votes = raters.counts(pd.concat(said))[["good", "bad"]].to_numpy()
    assert abs(raters.fleiss(votes) - kappa) < 0.03
    assert (labels[0] == "skip").sum() == 0
    assert (raters.simulated_rater(truth, np.zeros(n), 0 * sure, rng) == "skip").all()


def test_fleiss_and_alpha_by_hand():
    """Four images, three raters: P = 2/3, Pe = 1/2, kappa = 1/3. Alpha's chance counts without replacement:
    De = 36 * 2 / (12 * 11)."""
    votes = table({0: "good good good", 1: "bad bad bad", 2: "good good bad", 3: "bad bad good"})
    result = raters.agreement(votes)
    assert result["fleiss"] == pytest.approx(1 / 3)
    assert result["alpha"] == pytest.approx(1 - (1 / 3) / (36 * 2 / (12 * 11)))
    assert result["images"] == 4 and result["fleiss_low"] <= 1 / 3 <= result["fleiss_high"]
    assert raters.agreement(table({0: "good good", 1: "bad bad"}))["alpha"] == 1.0


def test_where_there_is_nothing_to_agree_on_there_is_no_number():
    for votes in ({0: "good skip"}, {0: "good", 1: "bad"}, {0: "good good"}):
        result = raters.agreement(table(votes))
        assert np.isnan([result[k] for k in result if k != "images"]).all()


def test_a_second_word_counts_once_and_shows_self_agreement():
    said = pd.DataFrame(
        [("ann", 0, "good"), ("bob", 0, "bad"), ("ann", 1, "good"), ("ann", 0, "bad")],
        columns=["rater", "image", "label"],
    )
    assert raters.counts(said).loc[0].tolist() == [0, 2, 0]
    twice = [{"rater": "ann", "image": 0, "first": "good", "second": "bad"}]
    assert raters.repeats(said).to_dict("records") == twice


def test_dawid_skene_catches_the_careless_rater():
    rng, n = np.random.default_rng(0), 400
    truth = rng.random(n) < 0.4
    flips = rng.random((n, 4)) < (0.1, 0.1, 0.1, 0.5)
    votes = {i: " ".join(np.where(truth[i] ^ flips[i], "good", "bad")) for i in range(n)}
    chance, skill = raters.dawid_skene(table(votes))
    assert ((skill.good + skill.bad) / 2 < 0.7).tolist() == [False, False, False, True]
    assert skill.labels.tolist() == [n] * 4
    most = raters.majority(table(votes)).reindex(range(n))  # ties of four are lost to it
    assert ((chance > 0.5) == truth).mean() > (most == truth).mean()


def test_one_sided_and_few_votes():
    chance, skill = raters.dawid_skene(table({0: "bad bad", 1: "bad"}))
    assert (chance == 0).all() and skill.labels.tolist() == [2, 1]
    assert skill.good.isna().all() and skill.bad.tolist() == [1, 1]  # of good ones nothing is known
    chance, skill = raters.dawid_skene(table({0: "good good"}))
    assert (chance == 1).all() and skill.bad.isna().all() and skill.good.tolist() == [1, 1]
    single = dict.fromkeys(range(5), "good") | {5: "good good", 6: "bad bad", 7: "good bad"}
    result = raters.agreement(table(single))  # most images have one vote; three have two
    assert np.isfinite(result["fleiss"])


def panel(truth, *more):
    """Judgements of three who are always right, and of others: (rater, images, labels)."""
    said = [(f"s{k}", i, "good" if good else "bad") for k in range(3) for i, good in enumerate(truth)]
    said += [(who, i, label) for who, images, labels in more for i, label in zip(images, labels, strict=True)]
    return pd.DataFrame(said, columns=["rater", "image", "label"])


BAD, GOOD = range(0, 120, 2), range(1, 121, 2)  # where every second picture is good
HALF = np.tile([False, True], 100)
JUDGED = {  # images, labels, whether such a rater does not look
    "sixty bad ones bad": (BAD, ["bad"] * 60, False),
    "sixty good ones good": (GOOD, ["good"] * 60, False),
    "and two good ones bad": ([*BAD, 1, 3], ["bad"] * 62, False),
    "all of them bad": (range(200), ["bad"] * 200, True),
    "bad ones good": (BAD, ["good"] * 60, True),
    "by chance": (range(100), ["good", "good", "bad", "bad"] * 25, True),
    "twenty by chance": (range(20), ["good", "good", "bad", "bad"] * 5, False),
}


@pytest.mark.parametrize("images, labels, suspect", JUDGED.values(), ids=JUDGED)
def test_who_is_right_about_one_kind_of_picture_is_not_caught(images, labels, suspect):
    _, skill = raters.dawid_skene(panel(HALF, ("anna", images, labels)))
    assert skill.caught["anna"] == suspect and skill.caught.sum() == suspect


def test_of_a_kind_that_a_rater_never_saw_nothing_is_known():
    _, skill = raters.dawid_skene(panel(HALF, ("anna", BAD, ["bad"] * 60)))
    assert np.isnan(skill.good["anna"]) and skill.bad["anna"] == 1 and skill.labels["anna"] == 60


def test_only_skips_are_too_few_labels():
    for said in (table({0: "skip", 1: "skip skip"}), table({0: "skip"})[:0]):
        with pytest.raises(TooFewLabels, match=f"none of the {len(said)} judgements says good or bad"):
            raters.dawid_skene(said)
    assert raters.majority(table({0: "skip"})).empty


def test_only_ties_give_no_label_and_catch_nobody():
    said = table({i: "good bad" if i % 3 else "bad good" for i in range(40)} | {40: "skip"})
    chance, skill = raters.dawid_skene(said)
    assert not skill.caught.any()
    for how in ("majority", "dawid-skene"):
        with pytest.raises(TooFewLabels, match="of 41 judged by 2 raters 40 are tied and 1 mostly skipped"):
            raters.one_label(said, chance, how)


def test_a_chance_of_a_half_is_no_label():
    assert raters.one_label(None, pd.Series([0.4, 0.5, 0.9]), "dawid-skene").to_dict() == {0: 0.0, 2: 1.0}
