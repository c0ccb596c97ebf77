"""Statistics: shares and effects with their intervals, paired tests, and the words for what an interval says.

Intervals are of 95 %. P prompts (or images), S training seeds.
"""

import numpy as np

ENDS = (0.025, 0.975)  # quantiles between which an interval lies


def resampled(n, draws, rng):
    """How often each of `n` things is in each of `draws` bootstrap samples of them, int (draws, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), draws)


def interval(total, count=None, draws=4000):
    """A mean and its bootstrap interval, which resamples prompts and, where there are several, seeds.

    total (P,) or (S, P) sums up the values of each prompt; count (P,) says how many they are, one each where
    it is not given. Of pairs of prompts, (S, P, P) and (P, P), both are resampled. Over seeds and prompts the
    interval is slightly wide rather than narrow (Owen, 2007). Returns (mean, low, high), NaN of nothing.
    """
    total = np.atleast_2d(total)
    seeds, prompts = total.shape[:2]
    if not prompts:
        return (np.nan,) * 3
    count = np.ones(prompts) if count is None else count
    rng = np.random.default_rng(0)
    of_seeds, of_prompts = resampled(seeds, draws, rng).T, resampled(prompts, draws, rng).T
    sums, counts = total @ of_prompts, count @ of_prompts
    if count.ndim == 2:
        sums, counts = (sums * of_prompts).sum(1), (counts * of_prompts).sum(0)
    drawn = (of_seeds * sums).sum(0) / seeds / counts.clip(min=1)  # a draw may hold no value at all
    return total.mean(0).sum() / count.sum(), *np.quantile(drawn, ENDS)


def named(ends, value="share"):
    """A value and its interval (3,) as {value, "low", "high"}."""
    return dict(zip((value, "low", "high"), ends, strict=True))


def proportion(hits):
    """Share of True among `hits` (B,) with its Wilson interval: {"share", "low", "high"}."""
    from statsmodels.stats.proportion import proportion_confint

    share = np.mean(hits)
    low, high = proportion_confint(np.sum(hits), len(hits), method="wilson")
    return named((share, min(low, share), max(high, share)))  # rounding must not put the share outside


def clustered(hits, groups):
    """Share of True among `hits` (B,) that come several to a group (B,), which are resampled whole.

    Returns {"share", "low", "high"}.
    """
    _, which = np.unique(groups, return_inverse=True)
    return named(interval(np.bincount(which, hits), np.bincount(which)))


def paired(base, tuned):
    """What tuning changes, from bool (P,) of both models on the same prompts and noise, one image a prompt.

    Returns the "difference" (tuned less base) with its interval "low", "high" over prompts, "p" of McNemar's
    exact test, the discordant counts "won" and "lost", and "n".
    """
    from statsmodels.stats.contingency_tables import mcnemar

    change = np.asarray(tuned, float) - np.asarray(base, float)
    won, lost = (change > 0).sum(), (change < 0).sum()
    return named(interval(change), "difference") | {
        "p": mcnemar([[0, lost], [won, 0]]).pvalue,  # where both agree nothing is told
        "won": won,
        "lost": lost,
        "n": len(change),
    }


def over_seeds(difference):
    """What an effect is worth: difference (S, P) of S training seeds on the same P prompts, per prompt.

    Returns the mean "difference" with its interval "low", "high"; "p" of a paired t-test whose unit is the
    prompt, averaged over seeds; the effect size "d", the mean over one seed's deviation between prompts, so
    that it does not depend on the number of seeds; "sd", the deviation of the seeds' means; "seeds" and "n".
    """
    from scipy.stats import ttest_1samp

    difference = np.atleast_2d(difference).astype(float)
    seeds, prompts = difference.shape
    told = named(interval(difference), "difference")
    each = difference.mean(0)
    spread = difference.std(1, ddof=1).mean() if prompts > 1 else 0.0
    return told | {
        "p": ttest_1samp(each, 0).pvalue if each.std() else 1.0,
        "d": told["difference"] / spread if spread else 0.0,
        "sd": difference.mean(1).std(ddof=1) if seeds > 1 else np.nan,
        "seeds": seeds,
        "n": prompts,
    }


def apart(a, b, value="share"):
    """The difference of two rows' values whose intervals, "low" to "high", are independent."""
    gap = a[value] - b[value]
    width = np.hypot(a["high"] - a["low"], b["high"] - b["low"]) / 2
    return named((gap, gap - width, gap + width), "difference")


def holm(p):
    """p-values (M,) after Holm's correction for M tests, in their order."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p, method="holm")[1]


def verdict(low, high, words=("borne out", "refuted", "undecided")):
    """What an interval says of a claimed gain.

    The first word where all of it lies above zero, the second where it lies below, else the third.
    """
    return words[0 if low > 0 else 1 if high < 0 else 2]


def in_points(difference, low, high):
    """An effect between 0 and 1 and its interval as words, in percentage points."""
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
