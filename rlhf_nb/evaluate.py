"""Measures of pictures and rewards: ranking, calibration, distance to real scenes, diversity, votes.

B images, P prompts, S training seeds, D features of an image.
"""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from . import bounds, config, data
from .files import ArtifactError
from .intervals import ENDS, interval, named
from .toy import world

MARGIN = 1.1  # what the claim lets a tuned model's Fréchet distance be, over the base's
LEAST = 4  # real pictures: two halves, each with a spread


def pairwise(scores, labels, prompts, against=None, across=False):
    """E2's accuracy: of all pairs of a good and a bad image of one prompt, the share in which the good one
    scores higher (ties count half).

    With `across` the two may be of different prompts, each scored under its own; with `against` the result is
    the difference from those scores' share on the same pairs. scores (B,), or (S, B) of S training seeds.
    Returns {"share", "low", "high", "pairs", "prompts", "seeds"}, NaN where there is no pair.
    """
    of = pd.get_dummies(prompts).to_numpy(float)  # (B, P): whose an image is
    good, bad = labels > 0.5, labels < 0.5
    pairs = np.outer(of[good].sum(0), of[bad].sum(0))  # (P, P): a good image of one, a bad one of another
    used = pairs.any(0) | pairs.any(1)

    def won(scores):
        """How many pairs the good one wins, (S, P, P)."""
        scores = np.atleast_2d(scores)
        gap = np.sign(scores[:, good, None] - scores[:, None, bad])
        return of[good].T @ (gap / 2 + 0.5) @ of[bad]

    wins = won(scores)
    if against is not None:
        wins = wins - won(against)
    if not across:
        wins, pairs = wins.diagonal(axis1=1, axis2=2), pairs.diagonal()
        used = pairs > 0
    share = named(interval(wins, pairs) if used.any() else (np.nan,) * 3)
    return share | {"pairs": int(pairs.sum()), "prompts": used.sum(), "seeds": len(wins)}


def calibration(scores, labels):
    """ECE over 10 equal bins of scores (B,) in [0, 1] against labels (B,) of 0 and 1."""
    from torchmetrics.functional.classification import binary_calibration_error

    scores, labels = (torch.as_tensor(np.asarray(v, np.float32)) for v in (scores, labels))
    return float(binary_calibration_error(scores, labels.int(), n_bins=10))


def fit_temperature(scores, labels):
    """The tau that makes sigmoid(logit(score) / tau) most likely under labels (B,) (Guo et al., 2017).

    It is one number, fit on validation data.
    """
    labels = np.asarray(labels, float)

    def loss(log_tau):
        p = tempered(scores, np.exp(log_tau))
        return -np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def tempered(scores, tau):
    """sigmoid(logit(score) / tau), kept off 0 and 1."""
    p = np.clip(np.asarray(scores, float), 1e-6, 1 - 1e-6)
    return np.clip(expit(logit(p) / tau), 1e-9, 1 - 1e-9)


def check(settings, pipe, pictures):
    """Raise a UserError, before any work, where real pictures are too few or memory is too small.

    It is to hold `pictures` drawn by the pipeline and the real ones, and some of their features.
    """
    side = pipe.unet.config.sample_size * 8
    try:
        bounds.fit((pictures + settings.renders) * side**2 * 3 / 2, "the pictures drawn and the real ones")
    except ValueError as error:
        raise config.ConfigError(f"{error}, or a smaller `renders`") from None
    if getattr(settings, "real", "world") != "world":
        real_images(settings.real, [], LEAST, 0, side)


def real_images(source, wants, n, seed, size=None):
    """`n` real pictures, uint8 (n, H, W, 3): with source "world" scenes of what `wants` ask for, in turn.

    Else the first of a captioned set (data.CaptionedImages) at `size`.
    """
    if source == "world":
        return world.render([wants[i % len(wants)] for i in range(n)], seed, range(n))
    found = [image for image, _ in data.CaptionedImages(source, n, size=size)]
    if len(found) < LEAST:
        raise ArtifactError(
            f"{source} has {len(found)} pictures, a distance to them takes {LEAST}: give more"
        )
    return np.stack(found)


def frechet(real, fake):
    """Fréchet distance between two sets of features (N, D); it falls with N, so compare sets of one size."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = torch.nn.Identity()
    given.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=given)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def _frechets(real, fakes, draws):
    """Fréchet distances (draws, F) of bootstrap samples of the real features (N, D) and F sets (M, D).

    Every draw takes the same real pictures and the same rows of all sets, so what they share cancels.
    """
    g = torch.Generator().manual_seed(0)
    distances = []
    for _ in range(draws):
        scenes, rows = (torch.randint(len(f), (len(f),), generator=g) for f in (real, fakes[0]))
        distances.append([frechet(real[scenes], fake[rows]) for fake in fakes])
    return np.array(distances)


def frechet_error(real, fake):
    """Sampling error of `frechet`: its standard deviation over bootstrap samples of both sets.

    The samples' mean lies too high and is not used.
    """
    return _frechets(real, [fake], 20).std(ddof=1)


def frechet_ratio(real, base, tuned):
    """How much farther from the real features (N, D) `tuned` (M, D) are than `base`, of the same M prompts.

    Returns (ratio, low, high), a 95 % bootstrap interval over real pictures and prompts.
    """
    ratio = frechet(real, tuned) / frechet(real, base)
    distances = _frechets(real, [base, tuned], 100)
    logs = np.log(distances[:, 1] / distances[:, 0])
    # the samples' own distances all lie too high: only their spread counts
    return ratio, *(ratio * np.exp(np.quantile(logs - logs.mean(), ENDS)))


def vendi(features):
    """How many different pictures a set (B, D) amounts to: from 1, all alike, to B, none alike.

    The Vendi score of Friedman and Dieng (2023) under the cosine kernel.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    share = torch.linalg.eigvalsh(unit.T @ unit / len(unit)).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


def plausible(real, fake):
    """Fidelity whatever the prompt: which of `fake` (B, D) lie as near to real ones as 95 % of these, (B,).

    Near is the Mahalanobis distance from a Gaussian that is fitted on one half of the real features; the
    limit is read off the other half.
    """
    fitted, other = real[np.random.default_rng(0).permutation(len(real))].double().chunk(2)
    centre, spread = fitted.mean(0), torch.cov(fitted.T)
    ridge = 1e-3 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64)
    inverse = torch.linalg.inv(spread + ridge)

    def distance(x):
        return ((x - centre) @ inverse * (x - centre)).sum(1)

    return (distance(fake.double()) <= distance(other).quantile(0.95)).numpy()


def saturation(images):
    """Mean saturation (B,) of uint8 images (B, H, W, 3), as in HSV: (largest - least channel) / largest."""
    most = images.max(-1).astype(np.float32)
    return ((most - images.min(-1)) / np.maximum(most, 1)).mean((1, 2))


def diversity(features, groups):
    """Mean distance between the features (B, D) of each prompt's images, if there are several.

    groups (B,) names their prompts. A Series by prompt.
    """
    rows = pd.Series(range(len(groups))).groupby(groups)
    return rows.agg(lambda of: float(torch.pdist(features[of.to_list()]).mean())).dropna().astype(float)


def best_of(value, n):
    """Which of every n tries in turn has the highest value (P, K): rows (P, K // n) into the K tries."""
    groups = value[:, : value.shape[1] // n * n].reshape(len(value), -1, n)
    return groups.argmax(-1) + np.arange(groups.shape[1]) * n


def votes(first, second, noise=0.0, seed=0):
    """Win, tie or lose of `second` against `first`, as the paper's figure 4: nine voters compare two sets.

    first, second (P,) are the sets' scores, say right images of four. A voter prefers the higher score and is
    undecided on equal ones. With probability `noise` he errs: votes for the other side, or for either on
    equal scores. `tally` counts. Returns an array (P,) of "win", "tie", "lose".
    """
    rng = np.random.default_rng(seed)
    truth = np.sign(np.subtract(second, first))[:, None]  # (P, 1)
    errs = rng.random((len(truth), 9)) < noise
    error = np.where(truth == 0, rng.choice((-1, 1), errs.shape), -truth)
    return tally(np.where(errs, error, truth))


def tally(vote):
    """ "win", "tie" or "lose" (P,) of the second side from votes (P, V) of +1, 0 and -1.

    NaN where a voter was not asked; a side needs two thirds of those who were.
    """
    asked = np.maximum((~np.isnan(vote)).sum(1), 1)
    won, lost = ((side > 0).sum(1) / asked >= 2 / 3 for side in (vote, -vote))
    return np.select([won, lost], ["win", "lose"], "tie")


def outcomes(vote):
    """Percent of prompts that the second side wins, ties and loses, from words (P,), and their number.

    Returns {"win", "tie", "lose", "n"}.
    """
    shares = pd.Series(vote).value_counts(normalize=True)
    return {**100 * shares.reindex(["win", "tie", "lose"], fill_value=0), "n": len(vote)}
