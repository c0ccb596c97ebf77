"""Metrics and statistics: accuracy with intervals, tests over prompts and seeds, votes, distance to real scenes, diversity."""

import numpy as np
import torch

from . import data, diffusion, world


def proportion(hits, level=0.95):
    """Share of True with its Wilson interval: (share, low, high)."""
    from statsmodels.stats.proportion import proportion_confint

    hits = np.asarray(hits, bool)
    share, (low, high) = hits.mean(), proportion_confint(hits.sum(), len(hits), 1 - level, "wilson")
    return float(share), float(min(low, share)), float(max(high, share))  # rounding must not put the share outside


def clustered(hits, groups, draws=4000, seed=0):
    """Share of True with a bootstrap interval that resamples whole groups, for hits (B,) that come several to a prompt: (share, low, high)."""
    _, which = np.unique(groups, return_inverse=True)
    total, won = np.bincount(which), np.bincount(which, np.asarray(hits, float))
    times = np.random.default_rng(seed).multinomial(len(total), np.full(len(total), 1 / len(total)), draws)
    low, high = np.quantile(times @ won / (times @ total), (0.025, 0.975))
    return float(won.sum() / total.sum()), float(low), float(high)


def paired(base, tuned, draws=10_000, seed=0):
    """Compare two bool arrays over the same prompts and noise, one image a prompt.

    Returns the difference (tuned - base), its 95 % bootstrap interval over prompts, the exact McNemar p-value and the discordant counts.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    base, tuned = np.asarray(base, bool), np.asarray(tuned, bool)
    difference = tuned.astype(float) - base
    picks = np.random.default_rng(seed).integers(len(base), size=(draws, len(base)))
    low, high = np.quantile(difference[picks].mean(1), (0.025, 0.975))
    won, lost = int((tuned & ~base).sum()), int((base & ~tuned).sum())
    test = mcnemar([[int((base & tuned).sum()), lost], [won, int((~base & ~tuned).sum())]], exact=True)
    return {"difference": float(difference.mean()), "low": float(low), "high": float(high), "p": float(test.pvalue),
            "won": won, "lost": lost, "n": len(base)}


def over_seeds(difference, draws=4000, seed=0):
    """What an effect is worth: difference (S, P) of S training seeds on the same P prompts, per prompt.

    Returns the mean, its 95 % interval by a bootstrap over both seeds and prompts (Owen, 2007; slightly wide rather than narrow), the standard deviation of
    the seeds' means, the p-value of a paired t-test whose unit is the prompt, averaged over seeds, and the effect size d: the mean over one seed's deviation
    between prompts, so that it does not depend on the number of seeds.
    """
    from scipy.stats import ttest_1samp

    difference = np.atleast_2d(np.asarray(difference, float))
    count, n = difference.shape
    rng = np.random.default_rng(seed)
    seeds, prompts = rng.multinomial(count, np.full(count, 1 / count), draws), rng.multinomial(n, np.full(n, 1 / n), draws)
    low, high = np.quantile(np.einsum("ds,sp,dp->d", seeds, difference, prompts, optimize=True) / (count * n), (0.025, 0.975))
    each, spread = difference.mean(0), difference.std(1, ddof=1).mean() if n > 1 else 0.0
    return {"difference": float(each.mean()), "low": float(low), "high": float(high), "p": float(ttest_1samp(each, 0).pvalue) if each.std() else 1.0,
            "d": float(each.mean() / spread) if spread else 0.0, "sd": float(difference.mean(1).std(ddof=1)) if count > 1 else np.nan,
            "seeds": count, "n": n}


def holm(p):
    """p-values (M,) after Holm's correction for M tests, in their order."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p, method="holm")[1]


def verdict(low, high):
    """What an interval says of a claimed gain: "borne out" above zero, "refuted" below, "undecided" where it holds zero."""
    return "borne out" if low > 0 else "refuted" if high < 0 else "undecided"


def in_points(difference, low, high):
    """An effect between 0 and 1 and its interval as words, in percentage points."""
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def pairwise(scores, labels, prompts, against=None, across=False, draws=2000, seed=0):
    """E2's accuracy: of all pairs of a good and a bad image of one prompt, the share in which the good one scores higher (ties count half).

    With `across` the two may be of different prompts, each scored under its own; with `against` the result is the difference from
    those scores' share on the same pairs. scores (B,), or (S, B) of S training seeds: the 95 % bootstrap interval resamples prompts
    and, where there are several, seeds. Returns {"share", "low", "high", "pairs", "prompts", "seeds"}.
    """
    scores, against = (None if v is None else np.atleast_2d(v) for v in (scores, against))
    names, which = np.unique(prompts, return_inverse=True)
    of = np.eye(len(names))[which]                                      # (B, P)
    good, bad = np.flatnonzero(labels > 0.5), np.flatnonzero(labels < 0.5)
    counted = np.ones((len(names), len(names))) if across else np.eye(len(names))
    pairs = of[good].sum(0)[:, None] * of[bad].sum(0) * counted         # (P, P): good of one prompt, bad of another

    def won(values):
        """(S, P, P) of pairs won."""
        gap = np.sign(values[:, good, None] - values[:, None, bad]) / 2 + 0.5
        return np.einsum("gp,sgb,bq->spq", of[good], gap, of[bad], optimize=True) * counted

    wins = won(scores) - (0 if against is None else won(against))
    out = {"pairs": int(pairs.sum()), "prompts": int((pairs.sum(1) + pairs.sum(0) > 0).sum()), "seeds": len(scores)}
    if not pairs.sum():
        return {"share": np.nan, "low": np.nan, "high": np.nan, **out}
    rng, (n, count) = np.random.default_rng(seed), (len(names), len(wins))
    times, picked = rng.multinomial(n, np.full(n, 1 / n), draws), rng.multinomial(count, np.full(count, 1 / count), draws)
    if across:
        total = np.einsum("dp,pq,dq->d", times, pairs, times, optimize=True)
        each = np.stack([np.einsum("dp,pq,dq->d", times, w, times, optimize=True) for w in wins], 1)  # (draws, S)
    else:
        total, each = times @ pairs.diagonal(), times @ wins.diagonal(axis1=1, axis2=2).T
    drawn = (each * picked).sum(1) / count / np.maximum(total, 1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"share": float(wins.mean(0).sum() / pairs.sum()), "low": float(low), "high": float(high), **out}


def calibration(scores, labels):
    """(ECE over 10 equal bins (torchmetrics), Brier score) of scores (B,) in [0, 1] against labels (B,) of 0 and 1."""
    from torchmetrics.functional.classification import binary_calibration_error

    scores, labels = (torch.as_tensor(np.asarray(v, np.float32)) for v in (scores, labels))
    return float(binary_calibration_error(scores, labels.int(), n_bins=10)), float((scores - labels).square().mean())


def fit_temperature(scores, labels):
    """The tau that makes sigmoid(logit(score) / tau) most likely under labels (B,): one number, fit on validation data (Guo et al., 2017)."""
    from scipy.optimize import minimize_scalar

    labels = np.asarray(labels, float)

    def loss(log_tau):
        p = tempered(scores, np.exp(log_tau))
        return -np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def tempered(scores, tau):
    """sigmoid(logit(score) / tau), kept off 0 and 1."""
    p = np.clip(np.asarray(scores, float), 1e-6, 1 - 1e-6)
    return np.clip(1 / (1 + np.exp(-(np.log(p) - np.log1p(-p)) / tau)), 1e-9, 1 - 1e-9)


def extractor(reader, clip):
    """Features for the measures below, (B, 256) of uint8 images (B, H, W, 3): the judge's penultimate layer, or with another reader those of `clip`."""
    @torch.inference_mode()
    def extract(images, batch=256):
        return torch.cat([reader.features(diffusion.pixels(images[i:i + batch])) for i in range(0, len(images), batch)])

    return extract if hasattr(reader, "features") else clip.images


def real_images(source, wants, n, seed, size=None):
    """`n` real pictures (n, H, W, 3): with source "world" scenes of what `wants` ask for in turn, else the first of a captioned set (data.Pairs) at `size`."""
    if source == "world":
        return world.render([wants[i % len(wants)] for i in range(n)], seed, range(n))
    return np.stack([image for image, _ in data.Pairs(source, n, size=size)])


def frechet(real, fake):
    """Fréchet distance (torchmetrics) between two sets of features (N, D); it falls with N, so compare sets of one size."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = torch.nn.Identity()
    given.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=given)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def frechet_error(real, fake, draws=20, seed=0):
    """Standard deviation of `frechet` over bootstrap samples of both sets: its sampling error (the samples' mean lies too high and is not used)."""
    g = torch.Generator().manual_seed(seed)
    return float(np.std([frechet(*(f[torch.randint(len(f), (len(f),), generator=g)] for f in (real, fake))) for _ in range(draws)], ddof=1))


def frechet_ratio(real, base, tuned, draws=100, seed=0):
    """How much farther from the real features (N, D) `tuned` (M, D) are than `base`, of the same M prompts: the ratio and its 95 % interval.

    Every bootstrap draw takes the same real pictures and the same prompts for both, so what both share cancels.
    """
    g, ratio, logs = torch.Generator().manual_seed(seed), frechet(real, tuned) / frechet(real, base), []
    for _ in range(draws):
        scenes, rows = (torch.randint(len(f), (len(f),), generator=g) for f in (real, base))
        logs.append(np.log(frechet(real[scenes], tuned[rows]) / frechet(real[scenes], base[rows])))
    low, high = ratio * np.exp(np.quantile(logs - np.mean(logs), (0.025, 0.975)))  # the samples' own distances all lie too high: only their spread counts
    return ratio, float(low), float(high)


def vendi(features):
    """Friedman and Dieng (2023): how many different pictures a set (B, D) amounts to, from 1 (all alike) to B (none alike), under the cosine kernel."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    share = torch.linalg.eigvalsh(unit.T @ unit / len(unit)).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


def plausible(real, fake, level=0.95):
    """Fidelity whatever the prompt: which of `fake` (B, D) lie as near to the real features' Gaussian (Mahalanobis) as `level` of real ones do, (B,) bool.

    The Gaussian is fitted on one half of the real features, the limit on the other.
    """
    fitted, other = real[np.random.default_rng(0).permutation(len(real))].double().chunk(2)
    centre, spread = fitted.mean(0), torch.cov(fitted.T)
    inverse = torch.linalg.inv(spread + 1e-3 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64))

    def distance(x):
        return ((x - centre) @ inverse * (x - centre)).sum(1)

    return (distance(fake.double()) <= distance(other).quantile(level)).numpy()


def saturation(images):
    """Mean saturation (B,) of uint8 images (B, H, W, 3), as in HSV: (largest - smallest channel) / largest, over the pixels."""
    most, least = images.max(-1).astype(np.float32), images.min(-1).astype(np.float32)
    return ((most - least) / np.maximum(most, 1)).mean((1, 2))


def diversity(features, groups):
    """Mean distance between the feature vectors (B, D) of the images of each prompt that has several, (P,) in the prompts' sorted order; groups (B,)."""
    return np.array([float(torch.pdist(features[torch.from_numpy(groups == g)]).mean()) for g in np.unique(groups) if (groups == g).sum() > 1])


def best_of(value, n):
    """Which of every n tries in turn has the highest value: rows (P, K // n) into the K tries of value (P, K); n = 1 keeps them all."""
    groups = value[:, :value.shape[1] // n * n].reshape(len(value), -1, n)
    return groups.argmax(-1) + np.arange(groups.shape[1]) * n


def votes(first, second, voters=9, threshold=2 / 3, noise=0.0, seed=0):
    """Win / tie / lose of `second` against `first`, as the paper's figure 4: each of `voters` compares two sets of images.

    first, second (P,) are the sets' scores (here: right images of four). A voter prefers the higher score and is undecided on
    equal ones, and with probability `noise` errs: votes for the other side, or for either on equal scores. A side wins where at
    least `threshold` of the voters chose it. Returns an array (P,) of "win", "tie", "lose".
    """
    rng = np.random.default_rng(seed)
    truth = np.sign(np.asarray(second, float) - np.asarray(first, float))[:, None]  # (P, 1)
    shape = (len(truth), voters)
    return tally(np.where(rng.random(shape) < noise, np.where(truth == 0, rng.choice((-1, 1), shape), -truth), truth), threshold)


def tally(vote, threshold=2 / 3):
    """"win", "tie" or "lose" (P,) of the second side from votes (P, V) of +1, 0 and -1, NaN where a voter was not asked: a side needs `threshold`."""
    asked = np.maximum((~np.isnan(vote)).sum(1), 1)
    won, lost = (vote > 0).sum(1) / asked >= threshold, (vote < 0).sum(1) / asked >= threshold
    return np.where(won, "win", np.where(lost, "lose", "tie"))
