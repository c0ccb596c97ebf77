"""The judge: reads count, object, colour and background off a picture of the toy world, with a confidence.

It is trained on renders whose truth is known (and on blurred, reconstructed and broken ones), never on
captions, CLIP or rewards. It is the ground truth of every evaluation and the truth behind the simulated
raters.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import files, flops, hub, pictures, seeds
from ..prompts import BACKGROUNDS, COLOURS, TOY
from . import world

MIXED = "mixed"
CLASSES = {
    "object": (*TOY.objects, MIXED),
    "count": tuple(range(9)),
    "colour": (*COLOURS, MIXED),
    "background": BACKGROUNDS,
}
# Half of the lessons are ordinary. The rest teach that a wrong picture is not to be read as a right one: no
# object, seven or eight, one or more of another shape or colour, all of two halves, all bent beyond
# recognition.
KINDS = {
    "ordinary": 0.50,
    "none": 0.04,
    "crowd": 0.10,
    "shapes": 0.08,
    "colours": 0.08,
    "halves": 0.06,
    "bent": 0.14,
}


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
    """(B, 3, 64, 64) in [-1, 1] -> {attribute: logits (B, classes)}."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2),
            nn.SiLU(),
            Block(32, 32, 1),
            Block(32, 64, 2),
            Block(64, 128, 2),
            Block(128, 128, 1),
        )
        self.mix = nn.Linear(128 * 5, 256)
        self.heads = nn.ModuleDict({a: nn.Linear(256, len(c)) for a, c in CLASSES.items()})

    def penultimate(self, x):
        """(B, 3, 64, 64) in [-1, 1] -> (B, 256)."""
        h = self.trunk(x)  # (B, 128, 8, 8)
        pooled = torch.cat((h.mean((2, 3)), F.adaptive_max_pool2d(h, 2).flatten(1)), 1)  # (B, 640)
        return F.silu(self.mix(pooled))

    def forward(self, x):
        h = self.penultimate(x)
        return {a: head(h) for a, head in self.heads.items()}

    @torch.inference_mode()
    def features(self, images):
        """What the Fréchet distance compares, (B, 256) of uint8 images (B, 64, 64, 3)."""
        return torch.cat(in_chunks(self, "penultimate", images))

    def examine(self, images, wants):
        """Which of its prompt's attributes each of uint8 images (B, 64, 64, 3) shows, as `right` says.

        Beside them "number", the objects seen, int (B,).
        """
        answers = read(self, images)
        return right(answers, wants) | {"number": answers["count"].astype(int)}


def load(name):
    """A saved judge, by a shipped name or a folder. Raises ModelError where it is missing or damaged."""
    judge, path = Judge(), Path(hub.place(name)) / "model.safetensors"
    try:
        judge.load_state_dict(files.read_tensors(path))
    except Exception as error:
        raise hub.ModelError(
            f"judge {path} cannot be loaded ({type(error).__name__}): restore it (git checkout) or make it "
            "with notebook A1_pretrain"
        ) from error
    return hub.finite(judge, f"judge {path}").eval().requires_grad_(False)


def lesson(seed, index):
    """One scene to learn from: uint8 (64, 64, 3), and its labels {attribute: one of its CLASSES}."""
    truth, rng = world.scene(seed, index, uniform=True), world.rng_of(seed, index)
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    count = {"none": 0, "crowd": int(rng.integers(7, 9))}.get(kind, truth.count)
    odd = ()  # the places of those that are not as they should be
    if kind in ("shapes", "colours"):
        count = max(count, 2)
        odd = rng.choice(count, rng.integers(1, count), replace=False)
    if kind in ("halves", "bent"):
        odd = range(count)
    objects, colours, spoilt = [truth.object] * count, [truth.colour] * count, {}
    for k in odd:
        stranger = world.another(TOY.objects, truth.object, rng)
        if kind == "shapes":
            objects[k] = stranger
        elif kind == "halves":
            spoilt[k] = stranger, None
        elif kind == "bent":
            spoilt[k] = truth.object, int(rng.integers(48))
        else:
            colours[k] = world.another(COLOURS, truth.colour, rng)
    return world.paint(objects, colours, truth.background, rng, spoilt), {
        "object": truth.object if kind in ("ordinary", "crowd", "colours") else MIXED,
        "count": count,
        "colour": MIXED if kind in ("none", "colours") else truth.colour,
        "background": truth.background,
    }


def lessons(n, seed):
    """`n` lessons with their labels as numbers: uint8 (n, 64, 64, 3) and int64 {attribute: (n,)}."""
    images, labels = zip(*(lesson(seed, i) for i in range(n)), strict=True)
    return np.stack(images), {
        a: np.array([c.index(label[a]) for label in labels]) for a, c in CLASSES.items()
    }


def autocast(device):
    """bfloat16 on a GPU; many processors would only emulate it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def loss(images, labels, batch, seed):
    """Cross-entropy over the attributes as a `loss_at` for train.loop on blurred, dimmed, noisy images.

    images uint8 (N, 64, 64, 3) and labels {attribute: (N,)} as `lessons` gives them.
    """

    def loss_at(model, step):
        g = seeds.generator(seed, step)
        rows = seeds.rows_at(seed, step, batch, len(images)).numpy()
        x = pictures.pixels(images[rows])
        u = torch.rand(4, batch, 1, 1, 1, generator=g)
        blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = torch.where(u[0] < 0.3, blurred, x)
        noise = torch.randn(x.shape, generator=g)
        x = x * (0.8 + 0.4 * u[1]) + 0.2 * (u[2] - 0.5) + 0.08 * u[3] * noise
        x = x.to(next(model.parameters()).device)
        with autocast(x.device):
            logits = model(x)
        terms = {}
        for a in CLASSES:
            truth = torch.from_numpy(labels[a][rows]).to(x.device)
            terms[a] = F.cross_entropy(logits[a].float(), truth, label_smoothing=0.02)
        return sum(terms.values()), terms

    return loss_at


def in_chunks(judge, method, images):
    """What a method of the judge makes of uint8 images (B, H, W, 3), a few at once: a list."""
    parts = map(pictures.pixels, hub.chunks(images, 256))
    return [flops.spend(partial(getattr(judge, method), x), judge, method, x.shape) for x in parts]


@torch.inference_mode()
def read(judge, images):
    """What the judge sees in uint8 images (B, 64, 64, 3): {attribute: array (B,), "confidence": (B,)}.

    The confidence is the product of the four winning probabilities.
    """
    parts = in_chunks(judge, "forward", images)
    best = {a: torch.cat([part[a] for part in parts]).float().softmax(1).max(1) for a in CLASSES}
    values = {a: np.array(CLASSES[a], dtype=object)[b.indices.numpy()] for a, b in best.items()}
    return values | {"confidence": torch.stack([b.values for b in best.values()]).prod(0).numpy()}


def right(answers, wants):
    """Which of its prompt's attributes each image shows: {attribute: bool (B,), "all": (B,)}.

    What a prompt leaves open counts as shown.
    """
    shown = {}
    for a in CLASSES:
        pairs = zip(wants, answers[a], strict=True)
        shown[a] = np.array([getattr(want, a) in (None, seen) for want, seen in pairs])
    return shown | {"all": np.logical_and.reduce(list(shown.values()))}
