"""Heads of the reward, learnt from all or some of the labels, and how well they rank new pictures."""

import numpy as np
import pandas as pd
import torch

from .. import evaluate, prompts, reward, runs
from ..page import tables
from ..pictures import ImageFolder
from .points import HEAD

NEW = "all new prompts"
SPLITS = {split: name.removesuffix(" prompts") for split, name in tables.SPLITS.items()}


def grammar(scale):
    """Which objects wrong sentences may name, and the seen sentences, of the prompts of a scale's run."""
    chosen = runs.settings_of(scale, "prompts")
    vocabulary = prompts.VOCABULARIES[chosen["vocabulary"]]
    pools = prompts.splits(vocabulary, chosen["seed"]).values()
    return vocabulary.seen, {want for pool in pools for want in pool["seen"]}


class Bench:
    """Labelled pictures to learn from, calibrate with and test on, as a frozen CLIP sees them, and sentences.

    run: a Run that needs stages `generate` and `feedback`; how: settings of stage `reward`, a dict.
    """

    def __init__(self, run, how):
        self.how, self.images = how, ImageFolder(run.read("generate", "images"))
        self.wants = prompts.wants(self.images.rows)
        labels = reward.labelled(run.read("feedback", "labels.csv"), self.images)
        self.learn, self.check, test = reward.parted(labels, how["seed"])
        self.test, self.tests = test, {name: test[test.split == key] for key, name in SPLITS.items()}
        self.tests[NEW] = test[test.split != "seen"]
        self.clip = reward.Clip(how["clip"])
        self.features = self.clip.folder(self.images, runs.root() / "cache")  # (N, D)
        self.objects, self.allowed = grammar(how["scale"])
        self.allowed -= {self.wants[i] for i in self.check.index}
        self.own = [self.wants[i] for i in self.learn.index]
        self.allowed |= {*self.own}  # sentences outside the grammar, too
        self.among = {}

    def sentences(self, n):
        """Features (U, D) of sentences, and which are the own and the wrong ones of `learn`, (M, n)."""
        if n not in self.among:
            seed = self.how["seed"]
            self.among[n] = reward.candidates(self.clip, self.own, n, seed, self.objects, self.allowed)
        return self.among[n]

    def fit(self, rows, seed, candidates=None, **change):
        """A head learnt from `rows` of `learn`, with changes of its settings: (Reward, log rows)."""
        texts, where = self.sentences(candidates or self.how["candidates"])
        where = where[self.learn.index.get_indexer(rows.index)]
        label = torch.tensor(rows.label.to_numpy(), dtype=torch.float32)
        how = {name: self.how[name] for name in HEAD} | change
        image = self.features[rows.index.tolist()]
        return reward.fit(self.clip, image, texts, where, label, seed=seed, **how)

    def scores(self, rewards, rows):
        """Scores (S, B), by S rewards on this CLIP, of the images and prompts of `rows`."""
        given = self.features[rows.index.tolist()], self.clip.prompts(rows.prompt)
        return pd.DataFrame(np.stack([score.of_features(*given) for score in rewards]), columns=rows.index)


def ranked(score, rows, against=None, across=False):
    """evaluate.pairwise of scores by image, (S, B) or (B,), on the test images `rows`."""
    against = None if against is None else against[rows.index]
    return evaluate.pairwise(score[rows.index], rows.label.to_numpy(), rows.prompt, against, across)
