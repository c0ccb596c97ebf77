"""What raters are worth: votes an image, agreement, who errs, and raters simulated to the same measure."""

import numpy as np
import pandas as pd

from .store import LABELS, TooFewLabels

# Fleiss' kappa between people on such labels, three raters an image, computed from a public set whose label
# -1 is read as skip: 7,500 images of counts, 4,867 of several attributes, 13,083 of composition. Single
# colours and places have no yardstick of their own and borrow that of several attributes.
KAPPA = {"count": 0.684, "colour": 0.629, "background": 0.629, "combination": 0.629}
COMPOSED = 0.284  # where people agree least
UNSURE = 0.2  # a simulated rater skips below this confidence
SEEN = 5  # good pictures, or bad ones, before it is held against a rater that he does not recognise them


def latest(table):
    """The judgements that count: a rater's latest word on an image."""
    return table.drop_duplicates(["rater", "image"], keep="last")


def repeats(table):
    """Judgements given twice, by one rater on one image: a DataFrame of rater, image, first, second."""
    label = table.groupby(["rater", "image"], as_index=False).label
    times = label.agg(times="size", first="first", second="last")
    return times.query("times > 1").drop(columns="times")


def counts(table):
    """Votes per image: DataFrame indexed by image with columns good, bad, skip."""
    last = latest(table)
    return pd.crosstab(last.image, last.label).reindex(columns=list(LABELS), fill_value=0)


def majority(table):
    """Label per image, 1.0 good, 0.0 bad, a Series by image.

    Images with more skips than votes, or a tie, are left out.
    """
    votes = counts(table)
    clear = votes.query("good != bad and good + bad > skip")
    return (clear.good > clear.bad).astype(float)


def one_label(table, chance, how="majority"):
    """Label per image, 1.0 good, 0.0 bad, by `majority` or by `chance`, its probability (a Series by image).

    Images at even chances are left out. Raises TooFewLabels where no image is left.
    """
    sure = chance[~np.isclose(chance, 0.5)]
    labels = majority(table) if how == "majority" else (sure > 0.5).astype(float)
    if labels.empty:
        votes = counts(table)
        ties = len(votes.query("good == bad and good > 0"))
        raise TooFewLabels(
            f"no image gets a label: of {len(votes)} judged by {table.rater.nunique()} raters {ties} are "
            f"tied and {len(votes) - ties} mostly skipped; have one more rater judge them"
        )
    return labels


def dawid_skene(table):
    """The rater-quality model of Dawid and Skene (1979; crowd-kit): (P(good) by image, skill by rater).

    Skill has the columns good and bad, the estimated chance to recognise each, NaN where the rater judged
    none such; labels, their number; and caught, who does not look: over at least thirty images he recognises
    less than 70 % on average of good and of bad ones, where a kind of which he judged fewer than SEEN does
    not count. Where it would be everybody it is nobody: judgements alone do not tell then who is right. Skips
    are no votes. Raises TooFewLabels where all are skips.
    """
    from crowdkit.aggregation import DawidSkene

    votes = latest(table.query("label != 'skip'"))
    if votes.empty:
        raise TooFewLabels(
            f"none of the {len(table)} judgements says good or bad: label images in the widget of notebook "
            "03_feedback, or give a file with -p imported, and run it again"
        )
    model = DawidSkene(n_iter=100).fit(votes.rename(columns={"image": "task", "rater": "worker"}))
    given = model.errors_.unstack(sort=False)  # by rater: columns (truth, label)
    skill = pd.DataFrame({label: given.get((label, label), 0.0) for label in ("good", "bad")}).fillna(0.0)
    chance = model.probas_.reindex(columns=["good"], fill_value=0.0).good
    good = votes.image.map(chance)
    seen = pd.DataFrame({"good": good, "bad": 1 - good}).groupby(votes.rater).sum()  # how many of each
    labels = votes.rater.value_counts()
    poor = (skill.where(seen >= SEEN).mean(axis=1) < 0.7) & (labels >= 30)
    skill = skill.where(seen >= 0.5).assign(labels=labels, caught=poor & ~poor.all())
    return chance, skill.rename_axis("rater")


def fleiss(votes):
    """Fleiss' kappa of votes (N, 2) good and bad (statsmodels), NaN where only one of them was given.

    It takes the images with the usual number of votes, at least two.
    """
    from statsmodels.stats.inter_rater import fleiss_kappa

    total = votes.sum(1)
    usual = np.bincount(total[total > 1], minlength=1).argmax()
    votes = votes[total == usual]
    return float(fleiss_kappa(votes)) if votes.any(0).all() else np.nan


def alpha(votes):
    """Krippendorff's alpha of votes (N, 2) good and bad (krippendorff), NaN where only one of them was given.

    Images may have any number of votes, at least two.
    """
    import krippendorff

    votes = votes[votes.sum(1) > 1]
    if not votes.any(0).all():
        return np.nan
    return float(krippendorff.alpha(value_counts=votes, level_of_measurement="nominal"))


def agreement(table, seed=0):
    """Fleiss' kappa and Krippendorff's alpha with 95 % bootstrap intervals over images, of 300 draws.

    Images with a skip are left out, as in the public set behind the yardsticks. Returns {"images": their
    number, "fleiss", "fleiss_low", "fleiss_high", "alpha", "alpha_low", "alpha_high"}.
    """
    votes = counts(table).query("skip == 0")[["good", "bad"]].to_numpy()
    picks = np.random.default_rng(seed).integers(max(len(votes), 1), size=(300, len(votes)))
    out = {"images": len(votes)}
    for name, coefficient in {"fleiss": fleiss, "alpha": alpha}.items():
        drawn = pd.Series([coefficient(votes[pick]) for pick in picks])
        low, high = drawn.quantile([0.025, 0.975])
        out |= {name: coefficient(votes), f"{name}_low": low, f"{name}_high": high}
    return out


def flip_rate(kappa, good=0.5):
    """How often raters must err for their expected agreement to be `kappa`.

    A share `good` of the images is truly good. A rater says good with q = good (1 - e) + (1 - good) e; two
    agree with 1 - 2 e (1 - e), by chance with q^2 + (1 - q)^2.
    """
    from scipy.optimize import brentq

    def excess(e):
        q = good * (1 - e) + (1 - good) * e
        chance = q * q + (1 - q) ** 2
        return (1 - 2 * e * (1 - e) - chance) / (1 - chance) - kappa

    return brentq(excess, 0.0, 0.5) if 0 < good < 1 else (1 - kappa**0.5) / 2


def simulated_rater(truth, errors, confidence, rng):
    """Labels (B,) of one simulated rater, "good", "bad" or "skip".

    They are the judge's verdict `truth` (B,) bool, flipped with probability `errors` (B,). An image is
    skipped where the judge's confidence (B,), seen by this rater as anything from half to one and a half
    times it, is below UNSURE.
    """
    good = truth ^ (rng.random(len(truth)) < errors)
    unsure = confidence * rng.uniform(0.5, 1.5, len(truth)) < UNSURE
    return np.select([unsure, good], ["skip", "good"], "bad")
