"""The judge: reads count, object, colour and background off an image of the toy world, with a confidence.

It is trained on renders whose truth is known (and on blurred, reconstructed and broken ones), never on captions, CLIP or
rewards. It is the ground truth of every evaluation and the truth behind the simulated raters.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from . import config, diffusion, train, world
from .prompts import BACKGROUNDS, COLOURS, TOY

MIXED = "mixed"
CLASSES = {"object": (*TOY.objects, MIXED), "count": tuple(range(9)), "colour": (*COLOURS, MIXED), "background": BACKGROUNDS}


class Block(nn.Module):
    """Residual block: (B, C, H, W) -> (B, D, H / stride, W / stride)."""

    def __init__(self, c, d, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, d, 3, stride, 1), nn.Conv2d(d, d, 3, 1, 1)
        self.norm_a, self.norm_b = nn.GroupNorm(8, d), nn.GroupNorm(8, d)
        self.skip = nn.Conv2d(c, d, 1, stride) if stride > 1 or c != d else nn.Identity()

    def forward(self, x):
        h = F.silu(self.norm_a(self.a(x)))
        return F.silu(self.norm_b(self.b(h)) + self.skip(x))


class Judge(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] -> {attribute: logits (B, classes)}; `features` (B, 256) serve the Fréchet distance."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 32, 5, 2, 2), nn.SiLU(), Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2),
                                   Block(128, 128, 1))
        self.mix = nn.Linear(128 * 5, 256)
        self.heads = nn.ModuleDict({a: nn.Linear(256, len(c)) for a, c in CLASSES.items()})

    def features(self, x):
        h = self.trunk(x)                                                     # (B, 128, 8, 8)
        pooled = torch.cat((h.mean((2, 3)), F.adaptive_max_pool2d(h, 2).flatten(1)), 1)  # (B, 640)
        return F.silu(self.mix(pooled))

    def forward(self, x):
        h = self.features(x)
        return {a: head(h) for a, head in self.heads.items()}

    def save(self, folder):
        """Half-precision safetensors in `folder`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({k: v.half() for k, v in self.state_dict().items()}, Path(folder) / "model.safetensors")


def load(name):
    """A saved judge, from a shipped name or a folder. Raises ModelError where its file is missing or damaged."""
    judge, path = Judge(), Path(config.place(name)) / "model.safetensors"
    try:
        judge.load_state_dict(load_file(path))
    except Exception as error:
        raise diffusion.ModelError(f"judge {path} cannot be loaded ({type(error).__name__}): restore it (git checkout) or make it "
                                   "with notebook A1_pretrain") from error
    return judge.eval().requires_grad_(False)


def lessons(n, seed):
    """`n` scenes to learn from with their labels: uint8 (n, 64, 64, 3) and int64 {attribute: (n,)}.

    Half are ordinary; the rest hold no object, seven or eight, different shapes or colours, chimeras, or one or more shapes bent
    beyond recognition, so that a wrong picture is not read as a right one.
    """
    images = np.empty((n, world.SIZE, world.SIZE, 3), np.uint8)
    labels = {a: np.empty(n, np.int64) for a in CLASSES}
    for i in range(n):
        truth, rng = world.scene(seed, i, uniform=True), world.rng_of(seed, i)
        kind = rng.choice(7, p=(0.50, 0.04, 0.10, 0.08, 0.08, 0.06, 0.14))
        count = {1: 0, 2: int(rng.integers(7, 9))}.get(kind, max(truth.count, 2) if kind in (3, 4) else truth.count)
        objects, colours = [truth.object] * count, [truth.colour] * count
        odd = rng.choice(count, rng.integers(1, count), replace=False) if kind in (3, 4) else range(count) if kind in (5, 6) else ()
        for k in odd:
            stranger = TOY.objects[(TOY.objects.index(truth.object) + rng.integers(1, 12)) % 12]
            if kind == 6:
                objects[k] = (truth.object, int(rng.integers(48)))
            elif kind == 4:
                colours[k] = COLOURS[(COLOURS.index(truth.colour) + rng.integers(1, 9)) % 9]
            else:
                objects[k] = stranger if kind == 3 else (truth.object, stranger)
        images[i] = world.draw(objects, colours, truth.background, rng)
        labels["object"][i] = CLASSES["object"].index(MIXED if kind in (1, 3, 5, 6) else truth.object)
        labels["colour"][i] = CLASSES["colour"].index(MIXED if kind in (1, 4) else truth.colour)
        labels["count"][i], labels["background"][i] = count, BACKGROUNDS.index(truth.background)
    return images, labels


def loss(images, labels, batch, seed):
    """Cross-entropy over the attributes as a `loss_at` for train.loop, with blur, contrast and noise drawn per image."""
    labels = {a: torch.from_numpy(v) for a, v in labels.items()}

    def loss_at(model, step):
        g = train.generator(seed, step)
        rows = train.rows_at(seed, step, batch, len(images))
        x = diffusion.pixels(images[rows.numpy()])
        u = torch.rand(4, batch, 1, 1, 1, generator=g)
        x = torch.where(u[0] < 0.3, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)
        x = x * (0.8 + 0.4 * u[1]) + 0.2 * (u[2] - 0.5) + 0.08 * u[3] * torch.randn(x.shape, generator=g)
        x = x.to(next(model.parameters()).device)
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = model(x)
        terms = {a: F.cross_entropy(logits[a].float(), labels[a][rows].to(x.device), label_smoothing=0.02) for a in CLASSES}
        return sum(terms.values()), terms

    return loss_at


@torch.inference_mode()
def read(judge, images, batch=256):
    """What the judge sees in uint8 images (B, H, W, 3): {attribute: array (B,), "confidence": (B,)}.

    The confidence is the product of the four winning probabilities.
    """
    parts = [judge(diffusion.pixels(images[i:i + batch])) for i in range(0, len(images), batch)]
    best = {a: torch.cat([part[a] for part in parts]).float().softmax(1).max(1) for a in CLASSES}
    values = {a: np.array(CLASSES[a], dtype=object)[b.indices.numpy()] for a, b in best.items()}
    return values | {"confidence": torch.stack([b.values for b in best.values()]).prod(0).numpy()}


def right(answers, wants):
    """Which of its prompt's attributes each image shows: {attribute: bool (B,), "all": (B,)}; unasked ones count as shown."""
    shown = {a: np.array([getattr(w, a) is None or answers[a][i] == getattr(w, a) for i, w in enumerate(wants)])
             for a in CLASSES}
    return shown | {"all": np.logical_and.reduce(list(shown.values()))}


def examine(reader, images, wants):
    """Which of its prompt's attributes each image shows, as `right` says, with "number", the objects seen, int (B,); `reader` is from `reader_of`."""
    if not isinstance(reader, Judge):
        return reader.examine(images, wants)
    answers = read(reader, images)
    return right(answers, wants) | {"number": answers["count"].astype(int)}


def duplicated(number, wants):
    """Which images show more objects than their prompt names, bool (B,): the paper's failure mode; False where no number is asked for."""
    return np.array([w.count is not None and n > w.count for n, w in zip(number, wants, strict=True)])


def reader_of(name, clip):
    """What `examine` takes: a saved judge, or for photographs an open detector of the OWL-ViT family, by folder or hub name, beside `clip`."""
    if (Path(config.place(name)) / "model.safetensors").exists() and not (Path(config.place(name)) / "config.json").exists():
        return load(name)
    from . import detect

    return detect.Detector(name, clip)
