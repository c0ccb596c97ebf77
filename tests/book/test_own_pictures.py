"""A person's own pictures and labels, of any wording, run from 02 to 05 by two parameters."""

import csv

import numpy as np
import pandas as pd
import pytest
import shells
from PIL import Image

SAID = ("my dog, on the sofa", "ein Haus am See", "猫が二匹", "[V] dog", "NA", "two red cats", "a hut " * 60)
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


@pytest.fixture
def own(tmp_path):
    """An image folder, and labels by two people who call every picture by its names there."""
    rng, rows, labels = np.random.default_rng(0), [], []
    (tmp_path / "own/sub").mkdir(parents=True)
    for i in range(6 * len(SAID)):
        suffix, said = list(KINDS)[i % 3], SAID[i % len(SAID)].strip()
        name = f"sub/{i} é.{suffix}" if i % 2 else f"{i}.{suffix}"
        image = Image.fromarray(rng.integers(0, 255, (70 + i, 90, 3), dtype=np.uint8))
        image.save(tmp_path / "own" / name, KINDS[suffix])
        rows.append((name, said))
        labels += [(who, name, said, ("good", "bad")[i // len(SAID) % 2]) for who in ("anna", "ben")]
    for file, head, table in (
        ("own/metadata.csv", ("file_name", "prompt"), rows),
        ("labels.csv", ("rater", "image", "prompt", "label"), labels),
    ):
        with open(tmp_path / file, "w", newline="") as stream:
            csv.writer(stream).writerows([head, *table])
    return tmp_path


@pytest.mark.slow
def test_two_parameters_take_own_pictures_and_labels_through_the_book(own):
    given = dict.fromkeys(("01_prompts", "02_generate", "03_feedback", "04_reward", "05_align"), {})
    given["02_generate"] = {"pictures": str(own / "own")}
    given["03_feedback"] = {"imported": str(own / "labels.csv")}
    shells.executed(given, RLHF_NB_RUNS=f"{own}/runs")
    labels = pd.read_csv(own / "runs/smoke/feedback/labels.csv")
    assert len(labels) == 6 * len(SAID) and labels.label.notna().all()
    assert (own / "runs/smoke/align/manifest.json").exists()
