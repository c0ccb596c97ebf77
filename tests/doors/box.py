"""A finished smoke run's own copy, to damage: its folder, runs to read it with, and the shipped models."""

import gc
import json
import os
import shutil

import pandas as pd
import torch
from conftest import ROOT

from rlhf_nb import align, batches, config, diffusion, reward, runs
from rlhf_nb.files import digest
from rlhf_nb.pictures import ImageFolder
from rlhf_nb.stages import NOTEBOOKS, STAGES
from rlhf_nb.study import findings, record
from rlhf_nb.toy import judge

UNREAD = ("align", "verdicts", "pretrain")
NEEDS = tuple(stage for stage in NOTEBOOKS if stage not in UNREAD)
PASSING = (".locks", ".partial")


class Box:
    """The copy of a smoke run in `folder`, where RLHF_NB_RUNS points to from now on (monkeypatch `patch`)."""

    def __init__(self, smoke, folder, patch):
        self.folder, self.runs = folder, folder / "runs"
        self.scale = self.runs / "smoke"
        leave = shutil.ignore_patterns(*PASSING, "*.partial", "cache")
        shutil.copytree(smoke / "runs", self.runs, ignore=leave)
        patch.setenv("RLHF_NB_RUNS", str(self.runs))
        by_eye = ("eye.csv", "eye.json", "eye.webp", "pairs.csv")
        for name in (*by_eye, "processors.csv", "study.json", "benchmark-toy.json"):
            self.copied(ROOT / "book" / "records" / name, folder / "records" / name)
        short = pd.read_csv(record.RECORD).groupby("split").head(2)
        short.to_csv(folder / "records" / "study.csv", index=False)
        patch.setattr(record, "RECORD", folder / "records" / "study.csv")
        self._fill()
        self.defaults = {stage: config.settings(stage, scale="smoke") for stage in STAGES}
        self.clip, self.pipe = reward.Clip("toy/clip"), diffusion.load("toy/pipeline")
        self.judge = judge.load("toy/judge")
        self.images = ImageFolder(self.result("generate", "images"))
        self.engine = align.accelerator(self.defaults["align"])
        self.run = runs.Run("verdicts", self.defaults["verdicts"], NEEDS)
        self.align = runs.Run("align", self.defaults["align"], align.NEEDS)
        self.study = runs.Run(
            "study/box", self.defaults["study"], ("prompts", "generate", "feedback", "reward")
        )
        self.material = self._material()
        findings.look(self.run, "live", ["arm"])  # imports what it needs
        gc.collect()
        gc.freeze()  # statsmodels collects garbage at every correction: a second each in a full memory

    def _fill(self):
        """A row in the tables that a run of this size leaves empty: they have values to damage."""
        row = pd.read_csv(self.scale / "data" / "controls.csv").iloc[0].to_dict()
        row |= {"split": "heldout", "model_batch": 8, "updates": 7, "lr": 6e-4, "beta": 0.06, "power": 3.0}
        for path in self.scale.rglob("*.csv"):
            if (table := pd.read_csv(path)).empty:
                pd.DataFrame([{name: row.get(name, 1) for name in table}]).to_csv(path, index=False)
                made = path.parent / "manifest.json"
                found = json.loads(made.read_text())
                found["files"][path.name] = digest(path)
                made.write_text(json.dumps(found))

    def copied(self, source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return target

    def result(self, stage, name):
        return self.scale / stage / name

    def _material(self):
        """Four samples, as a training has them."""
        prompts = self.images.rows.prompt.tolist()[:4]
        pairs = list(zip(self.images[0:4], prompts, strict=True))
        encoded = batches.encode(self.pipe, pairs)
        rewards, number = torch.tensor([0.1, 0.9, 0.5, 0.7]), torch.tensor([0, 0, 1, 1])
        samples = batches.Samples(encoded, reward=rewards, prompt=number, group=number)
        empty = diffusion.encode_prompts(self.pipe, [""])[0][0]
        return batches.Material(samples, encoded, prompts[:2], empty)

    def kept(self):
        """What all finished results and records are like from outside, {place: (bytes, time)}."""
        found = {}
        for top in (self.scale, self.folder / "records"):
            for where, inside, names in os.walk(top):
                inside[:] = [name for name in inside if not name.endswith(PASSING)]
                for name in names:
                    told = os.lstat(os.path.join(where, name))
                    found[where, name] = (told.st_size, told.st_mtime_ns)
        return found
