"""Readers of pictures: the judge of the toy world or a detector for photographs, and nobody asks which.

Both have `examine(images, wants)`, which of its prompt's attributes each image shows, and `features(images)`.
"""

from pathlib import Path

import numpy as np

from . import hub, photos
from .toy import judge


def load(name, clip):
    """A saved judge, or an open detector of the OWL-ViT family beside `clip` (a reward.Clip).

    `name` is a shipped one, a folder or a hub name; a folder of weights without config.json is a judge's.
    """
    folder = Path(hub.place(name))
    if (folder / "model.safetensors").exists() and not (folder / "config.json").exists():
        return judge.load(name)
    return photos.Detector(name, clip)


def duplicated(number, wants):
    """Which images show more objects (B,) than their prompt names, bool (B,): a failure that the paper names.

    False where no number is asked for.
    """
    return np.array([w.count is not None and n > w.count for n, w in zip(number, wants, strict=True)])
