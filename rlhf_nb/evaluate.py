"""Metrics and statistics: accuracy with intervals, paired tests, votes, Fréchet distance, diversity."""

import numpy as np
import torch


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


def frechet(extractor, real, fake, batch=256):
    """Fréchet distance of features between two sets of uint8 images (torchmetrics; `extractor` maps (B, 3, H, W) to (B, D))."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Module):
        num_features = 256

        def forward(self, x):
            return extractor(x)

    metric = FrechetInceptionDistance(feature=Features(), normalize=True, input_img_size=(3, *real.shape[1:3]))
    with torch.inference_mode():
        for images, is_real in ((real, True), (fake, False)):
            for i in range(0, len(images), batch):
                metric.update(torch.from_numpy(np.ascontiguousarray(images[i:i + batch])).permute(0, 3, 1, 2).float() / 255, real=is_real)
    return float(metric.compute())


def judge_features(judge):
    """`frechet`'s extractor from the judge's penultimate layer; images in [0, 1]."""
    return lambda x: judge.features(x * 2 - 1)


def diversity(features, groups):
    """Mean distance between feature vectors (B, D) of images of one prompt, averaged over prompts."""
    return float(np.mean([torch.pdist(features[torch.from_numpy(groups == g)]).mean() for g in np.unique(groups) if (groups == g).sum() > 1]))


def votes(first, second, voters=9, threshold=2 / 3, noise=0.0, seed=0):
    """Win / tie / lose of `second` against `first`, as the paper's figure 4: each of `voters` compares two sets of images.

    first, second (P,) are the sets' scores (here: right images of four). A voter prefers the higher score and is undecided on
    equal ones, and with probability `noise` errs: votes for the other side, or for either on equal scores. A side wins where at
    least `threshold` of the voters chose it. Returns an array (P,) of "win", "tie", "lose".
    """
    rng = np.random.default_rng(seed)
    truth = np.sign(np.asarray(second, float) - np.asarray(first, float))[:, None]  # (P, 1)
    shape = (len(truth), voters)
    vote = np.where(rng.random(shape) < noise, np.where(truth == 0, rng.choice((-1, 1), shape), -truth), truth)
    won, lost = (vote > 0).mean(1) >= threshold, (vote < 0).mean(1) >= threshold
    return np.where(won, "win", np.where(lost, "lose", "tie"))
