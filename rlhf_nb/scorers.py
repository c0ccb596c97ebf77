"""Public preference scorers as rewards: a function of images and prompts, and its affine map to [0, 1].

A scorer here is anything called as `score(images, prompts) -> (B,)`, images uint8 (B, H, W, 3). Its scale is
its own, so it becomes the reward clip((score - low) / (high - low), 0, 1), where low and high are quantiles
of what it says of the base model's pictures: found once, by `ends`, then written down as two numbers, since a
scale that moved with the pictures would be another reward at every look.

    scorer        what is called                                                its scores, about
    PickScore     transformers' CLIPModel of yuvalkirstain/PickScore_v1         a cosine, 0.18 to 0.24
    HPS v2.1      hpsv2.score(PIL images, prompt, hps_version="v2.1")           a cosine, 0.20 to 0.35
    ImageReward   ImageReward.load("ImageReward-v1.0").score(prompt, images)    standardised, -2 to 2
    VQAScore      t2v_metrics.VQAScore(model)(images=[path], texts=[prompt])    a chance, needs no map

The first is a folder or hub name of CLIP's architecture, and so is HPS v2.1 once converted (A2_gpu says how):
`-p scorer yuvalkirstain/PickScore_v1` reads it as (1 + cosine) / 2, whose spread is some hundredths: good to
rank by, and next to a constant as a weight. With a map, that and every other scorer is named as
module:function, `-p scorer mine:pickscore`, where mine.py, in the folder that Python is started in, has
(the ends are examples: find yours)

    from rlhf_nb import reward, scorers

    def pickscore(clip):
        score = reward.scorer("yuvalkirstain/PickScore_v1", None, clip)
        return scorers.Affine(score, low=0.59, high=0.62)

    def imagereward(clip):
        model = ImageReward.load("ImageReward-v1.0")
        one = lambda image, prompt: model.score(prompt, [Image.fromarray(image)])
        return scorers.Affine(scorers.each(one), low=-1.8, high=1.4)

The function takes the stage's reward.Clip and returns the reward. What has a gradient, as PickScore's, keeps
it (`of_pixels`, which methods that follow the reward's gradient need). Compare two scores of HPS or
PickScore within one prompt only; scorers that write text and parse it tie often, and groups that tie teach
nothing.
"""

import importlib
import sys

import numpy as np

from . import config


class ScorerError(config.UserError, ValueError):
    """A scorer cannot be had or says what is no score; the message names it and the remedy."""


class Affine:
    """The reward clip((score - low) / (high - low), 0, 1) of a scorer; without low and high its own values.

    Raises ScorerError for ends in the wrong order and for scores that are not finite or not one an image.
    """

    def __init__(self, score, low=0.0, high=1.0):
        if not low < high < float("inf"):
            raise ScorerError(f"a reward's ends must be two numbers in order, not {low} and {high}")
        self.score, self.low, self.high = score, low, high

    def __call__(self, images, prompts):
        return self.of(checked(self.score(images, prompts), len(images))).clip(0, 1)

    def of(self, scores):
        return (scores - self.low) / (self.high - self.low)

    @property
    def clip(self):
        """What the scorer looks through. Raises ScorerError for one that has no gradient."""
        if not hasattr(self.score, "of_pixels"):
            raise ScorerError(
                "this scorer has no gradient, and the method follows it: take another of either"
            )
        return self.score.clip

    def of_pixels(self, x, text):
        """Scores (B,) with their gradient, which does not end at 0 and 1; arguments as reward.Reward's."""
        return self.of(self.score.of_pixels(x, text))


def each(one):
    """A scorer from `one(image, prompt)` -> a number, for models that take a picture at a time."""
    return lambda images, prompts: [one(*pair) for pair in zip(images, prompts, strict=True)]


def checked(scores, count):
    """Scores as (count,) float32. Raises ScorerError where they are something else."""
    try:
        found = np.asarray(scores, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ScorerError(
            f"the scorer gave values of shape {found.shape} for {count} images, or some are not finite: it "
            "must return one finite number an image"
        )
    return found


def ends(score, images, prompts, shares=(0.05, 0.95)):
    """(low, high) for `Affine`: quantiles of a scorer over pictures of the base model."""
    low, high = np.quantile(checked(score(images, prompts), len(images)), shares)
    return float(low), float(high)


def named(name, clip):
    """The reward that "module:function" makes of a reward.Clip. Raises ScorerError where it cannot be had."""
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), function)(clip)
    except config.UserError:
        raise
    except Exception as error:  # whatever the person's own code raises
        raise ScorerError(
            f"scorer {name!r} cannot be made ({type(error).__name__}: {config.cause(error)}): name a "
            "function of one argument in a module that Python finds, as module:function"
        ) from error
    finally:
        sys.path.remove("")
    return made if isinstance(made, Affine) else Affine(made)
