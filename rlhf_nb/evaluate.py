"""Metrics and statistics: accuracy with intervals, paired tests, votes, Fréchet distance, diversity."""

import numpy as np
import torch


def proportion(hits, level=0.95):
    """Share of True with its Wilson interval: (share, low, high)."""
    from statsmodels.stats.proportion import proportion_confint

    hits = np.asarray(hits, bool)
    share, (low, high) = hits.mean(), proportion_confint(hits.sum(), len(hits), 1 - level, "wilson")
    return float(share), float(min(low, share)), float(max(high, share))  # rounding must not put the share outside


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


def pairwise(scores, labels, prompts, draws=4000, seed=0):
    """E2's accuracy: of all pairs of a good and a bad image of one prompt, the share in which the good one scores higher (ties
    count half), with a bootstrap interval over prompts: {"share", "low", "high", "pairs", "prompts"}.
    """
    counted = []
    for prompt in np.unique(prompts):
        of = prompts == prompt
        difference = scores[of & (labels > 0.5)][:, None] - scores[of & (labels < 0.5)][None]
        if difference.size:
            counted.append(((difference > 0).sum() + 0.5 * (difference == 0).sum(), difference.size))
    if not counted:
        return {"share": np.nan, "low": np.nan, "high": np.nan, "pairs": 0, "prompts": 0}
    wins, pairs = np.array(counted, float).T
    picks = np.random.default_rng(seed).integers(len(wins), size=(draws, len(wins)))
    low, high = np.quantile(wins[picks].sum(1) / pairs[picks].sum(1), (0.025, 0.975))
    return {"share": wins.sum() / pairs.sum(), "low": low, "high": high, "pairs": int(pairs.sum()), "prompts": len(wins)}


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
