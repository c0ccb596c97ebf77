"""Threshold-guided optimisation (2026, arXiv 2605.04653): a classifier of good and bad by likelihood, with
the median reward as the threshold; what is far from it counts more. No public code.
"""

import torch
import torch.nn.functional as F

from .. import losses
from . import NotNegative, Numbers, Positive

FROZEN = ("reference",)


class Knobs(Numbers):
    beta_tgo: Positive = 500.0  # beta / T; the paper's 1 / 0.001; see dpo
    confidence: NotNegative = 5.0  # c, as the paper's
    per_prompt: bool = False  # the threshold is that of each prompt (not in the paper)


def rows(samples, knobs):
    """Every image, with how far its reward lies above the threshold."""
    of = samples.prompt if knobs.per_prompt else torch.zeros_like(samples.prompt)
    row = of.argsort(stable=True)
    parts = samples.reward[row].split(of.bincount().tolist())
    return {"row": row, "above": torch.cat([part - part.quantile(0.5) for part in parts if len(part)])}


def loss(nets, batch, knobs):
    """(1 + c |R - tau|) cross-entropy of [R >= tau] under the logit beta / T (d_ref - d), d the error."""
    noised = losses.Noised(nets, batch)
    gained = noised.error_of("reference") - noised.error_of("policy")
    logit, good = knobs.beta_tgo * gained, (batch.above >= 0).float()
    terms = F.binary_cross_entropy_with_logits(logit, good, reduction="none")
    log = {"logit": logit.abs(), "right": ((logit > 0) == (good > 0)).float()}
    return terms * (1 + knobs.confidence * batch.above.abs()), log
