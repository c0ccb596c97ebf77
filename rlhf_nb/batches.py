"""Encoded samples, and which of them a step trains on with which noise: a function of (seed, step) alone."""

import hashlib
import itertools
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from . import config, diffusion, files, seeds
from .hub import ModelError
from .train import NotFinite

SHARD = 256  # images; at Stable Diffusion's size 0.2 GB


class Encoded:
    """Images and prompts after the frozen encoders, as shards of equal size that are mapped from disk, not
    read.

    A shard is {"mean", "std" (n, C, h, w), "text" (u, L, D) of its unique prompts, "prompt" (n,) rows into
    them}.
    """

    def __init__(self, shards):
        self.shards, self.size = shards, len(shards[0]["mean"])

    def __len__(self):
        return self.size * (len(self.shards) - 1) + len(self.shards[-1]["mean"])

    def take(self, rows):
        """mean and std (B, C, h, w) and text (B, L, D) of rows (B,)."""
        places = [(self.shards[r // self.size], r % self.size) for r in rows.tolist()]
        mean, std = (torch.stack([shard[name][k] for shard, k in places]).float() for name in ("mean", "std"))
        return mean, std, torch.stack([shard["text"][shard["prompt"][k]] for shard, k in places]).float()


def encode(pipe, pairs, cache=None, half=False, engine=None, progress=None):
    """All that a training needs of `pairs`, an iterable of (image uint8 (H, W, 3), prompt): it then touches
    the U-Net only.

    In `cache` a shard is a file named by the content of its pictures, its prompts and the encoders: what is
    there is not encoded again, and of several processes each makes its share. Without `cache` all stays in
    memory. `half` stores half precision. Raises ModelError for latents that are not finite or do not fit the
    U-Net.
    """
    encoders = files.weights_digest(pipe.vae, pipe.text_encoder) if cache else ""
    processes, rank = (engine.num_processes, engine.process_index) if engine else (1, 0)
    pairs, made = iter(pairs), []
    while chunk := list(itertools.islice(pairs, SHARD)):
        pictures, prompts = zip(*chunk, strict=True)
        images = np.stack(pictures)
        if cache:
            head = f"{encoders} {half} {images.shape} {len(made)}\n" + "\n".join(prompts)
            content = hashlib.sha256(head.encode() + images.tobytes()).hexdigest()
            place = Path(cache) / f"{content[:32]}.safetensors"
        if not cache or len(made) % processes == rank and not files.cached_tensors(place):
            shard = encode_shard(pipe, images, prompts, half, first=len(made) * SHARD)
            if cache:
                files.write_tensors(shard, place)
        made.append(place if cache else shard)
        if progress:
            progress(len(chunk))
    if not made:
        raise ModelError("there are no images to encode: give a folder with images")
    if engine:
        engine.wait_for_everyone()
    return Encoded([files.read_tensors(place) for place in made] if cache else made)


def encode_shard(pipe, images, prompts, half, first):
    """One shard of `Encoded` from uint8 images (n, H, W, 3) and their prompts; `first` is its first image's
    number.
    """
    mean, std = diffusion.encode_images(pipe.vae, images)
    text, rows = diffusion.encode_prompts(pipe, prompts)
    size = diffusion.latent_size(pipe.unet)
    if mean.shape[1:] != size:
        raise ModelError(
            f"images of {images.shape[1]} x {images.shape[2]} give latents {tuple(mean.shape[1:])}, the "
            f"U-Net takes {size}: give images of its size"
        )
    finite = (mean.isfinite() & std.isfinite()).flatten(1).all(1)
    bad = (~finite).nonzero()[:5, 0]
    if len(bad):
        raise ModelError(
            f"latents of images {(first + bad).tolist()} are not finite: look at these pictures, or use an "
            "autoencoder in full precision"
        )
    kind, made = torch.float16 if half else torch.float32, {"mean": mean, "std": std, "text": text}
    return {name: value.to(kind) for name, value in made.items()} | {"prompt": rows}


class Samples:
    """Model-generated images as a method sees them: `encoded`, and columns with a value for each of N
    samples.

    reward (N,); prompt (N,) their prompts' numbers; group (N,) of the images of one prompt in one round; with
    a recorded way states (N, S + 1, C, h, w), times (N, S + 1) and log_probs (N, S).
    """

    def __init__(self, encoded, **columns):
        self.encoded, self.columns = encoded, columns
        self.__dict__.update(columns)

    def __len__(self):
        return len(self.encoded)


@dataclass
class Material:
    """What a training rests on: D_model and D_pre, encoded once, and the distinct prompts of D_model."""

    samples: Samples
    pre: Encoded | None
    prompts: list  # of str
    empty: torch.Tensor  # (L, D), the text of ""
    skipped: dict = field(default_factory=dict)  # what D_pre left out, and how often


@dataclass
class Batches:
    """What each step trains on: rows of D_model, which a method's `rows` describe, and rows of D_pre.

    rows: {"row": (M,) into the samples, and whatever its loss needs, (M,) each}. With "chance" (M,) entries
    are drawn in proportion to it; else each comes once an epoch, and with "group" (M,) whole groups come, of
    equal size. With "low" and "high" (M,) an entry's timesteps are of that part of all, [0, 1). size = (rows
    of D_model, of D_pre) a step; empty (L, D) is the text of "", which replaces a prompt with chance `drop`.
    With `shared` a group has one timestep, one noise, and drops its prompt together. Everything drawn for row
    i of step s depends on (seed, s, i) alone. Raises ConfigError where a step has no whole groups.
    """

    samples: Samples
    rows: dict
    pre: Encoded | None
    size: tuple
    _: KW_ONLY
    total: int
    empty: torch.Tensor
    drop: float
    seed: int
    shared: bool = False

    def __post_init__(self):
        self.rows = {name: torch.as_tensor(value) for name, value in self.rows.items()}
        step = torch.arange(sum(self.size))
        self.is_model, self.unit = step < self.size[0], 1
        if "group" in self.rows and self.size[0]:
            _, count = self.rows["group"].unique(return_counts=True)
            self.unit = int(count[0]) if len(count) else 1
            self.by_group = self.rows["group"].argsort(stable=True).view(-1, self.unit)
        model, pre = step.split(self.size)
        # whose timestep and noise each has: its own, or its group's first one's
        self.first = torch.cat([model - model % self.unit, pre]) if self.shared else step
        units = [*model.split(self.unit), *pre.split(1)]  # what one process computes together
        self.units = [unit for unit in units if len(unit)]
        self.check()

    def check(self):
        """Raise NotFinite for a value that is not, or for no weight at all; ConfigError for split groups."""
        if self.size[0] % self.unit:
            raise config.ConfigError(
                f"groups of {self.unit} images do not fill a model_batch of {self.size[0]}: "
                f"make it a multiple of {self.unit}"
            )
        if self.size[0] and not len(self.rows["row"]):
            raise NotFinite(
                "the method finds nothing to train on: it needs more images of one prompt, rewards that "
                "differ, or more steps"
            )
        told = {"reward": (torch.arange(len(self.samples.reward)), self.samples.reward)}
        told |= {name: (self.rows["row"], value) for name, value in self.rows.items()}
        for name, (row, value) in told.items():
            bad = row[~value.isfinite()][:5].tolist()
            if bad:
                raise NotFinite(f"{name}s of images {bad} are not finite: run notebook 04_reward again")
        if "weight" in self.rows and not self.rows["weight"].any():
            raise NotFinite(
                "every image weighs nothing: no label or reward calls one good, so there is nothing to "
                "learn from; see notebook 04_reward"
            )

    def plan(self, step):
        """The global batch of `step`: {"row" of each source, "timesteps", "dropped", the method's own}, (B,)
        each.
        """
        g = seeds.generator(self.seed, step)
        model, pre = self.size
        entries = self.entries(step, model, g) if model else torch.zeros(0, dtype=torch.long)
        plan = {name: torch.cat([of[entries], of.new_zeros(pre)]) for name, of in self.rows.items()}
        if pre:
            rows = seeds.rows_at(self.seed + 1, step, pre, len(self.pre))
            plan["row"] = torch.cat([self.rows["row"][entries], rows])
        plan["timesteps"] = torch.randint(self.total, (model + pre,), generator=g)
        plan["dropped"] = torch.rand(model + pre, generator=g) < self.drop
        if "low" in plan:
            low, high = (plan.pop(name)[:model] * self.total for name in ("low", "high"))
            plan["timesteps"][:model] = low + (high - low) * plan["timesteps"][:model] / self.total
        for name in ("timesteps", "dropped"):
            plan[name] = plan[name][self.first]
        return plan

    def entries(self, step, count, g):
        """Which `count` entries of the method's rows step `step` trains on."""
        if "chance" in self.rows:
            return torch.multinomial(self.rows["chance"], count, replacement=True, generator=g)
        places = len(self.rows["row"]) // self.unit
        chosen = seeds.rows_at(self.seed, step, count // self.unit, places)
        return chosen if self.unit == 1 else self.by_group[chosen].flatten()

    def positions(self, processes=1, rank=0, parts=1):
        """The positions of the batch that a process computes, whole groups, in micro-batches: [(b,)].

        Raises ConfigError where there are fewer groups.
        """
        if len(self.units) < processes * parts:
            raise config.ConfigError(
                f"{len(self.units)} groups of images do not fill {processes} processes with {parts} "
                "micro-batches: lower either or raise the batch"
            )
        return [torch.cat(self.units[rank::processes][part::parts]) for part in range(parts)]

    def take(self, step, positions, device):
        """The samples at `positions` of step `step` on `device`.

        latents, noise (B, C, h, w), text (B, L, D), timesteps, is_model, reward, prompt and the method's rows
        (B,); unit, the size of a group.
        """
        plan = {name: values[positions] for name, values in self.plan(step).items()}
        is_model = self.is_model[positions]
        sources = ((True, self.samples.encoded), (False, self.pre))
        taken = [of.take(plan["row"][is_model == kind]) for kind, of in sources if (is_model == kind).any()]
        mean, std, text = (torch.cat(parts) for parts in zip(*taken, strict=True))  # D_model comes first
        shape, noisy = (2, *mean.shape[1:]), self.first[positions].tolist()
        drawn = torch.stack(
            [torch.randn(shape, generator=seeds.generator(self.seed, step, row)) for row in noisy]
        )
        plan["latents"] = mean + std * drawn[:, 0]
        plan["noise"] = drawn[:, 1]
        plan["text"] = torch.where(plan.pop("dropped")[:, None, None], self.empty, text)
        plan["is_model"] = is_model
        for name, values in self.samples.columns.items():
            if name not in plan:
                plan[name] = values[torch.where(is_model, plan["row"], 0)]
        moved = {name: value.to(device, non_blocking=True) for name, value in plan.items()}
        return SimpleNamespace(**moved, unit=self.unit)

    def named(self, step, positions):
        """Which samples stand at `positions` of step `step`, in words."""
        rows = self.plan(step)["row"]
        named = [f"{int(rows[i])} of {'D_model' if self.is_model[i] else 'D_pre'}" for i in positions]
        return ", ".join(named)
