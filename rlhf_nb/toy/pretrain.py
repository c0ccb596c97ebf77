"""The toy bundle's training: what each part of a small Stable Diffusion learns from the world's noisy pairs.

Every loss is a `loss_at(model, step)` for train.loop whose batch and noise follow from (seed, step) alone.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .. import batches, diffusion, files, flops, hub, losses, pictures, seeds, train
from ..prompts import BACKGROUNDS, COLOURS, COUNTS, TOY, plural
from . import world
from .judge import autocast

DROP = 0.1  # share of captions dropped, so that guidance works
PLURALS = tuple(map(plural, TOY.objects))


def untrained(cls, part, **changed):
    """A part of the shipped pipeline with new weights; `changed` is laid over its configuration."""
    return cls.from_config(cls.load_config(hub.ASSETS / "pipeline" / part), **changed)


def unfinished(path, model):
    """Whether a part that `fit` is to leave at `path` is not there yet; `model` gets its weights if it is."""
    if path.exists():
        model.load_state_dict(files.read_tensors(path))
        model.eval()
    return not path.exists()


def fit(model, loss_at, plan, folder, path):
    """Train one part in place, resumably in `folder`; its weights, as they are shipped, go to `path`.

    They are rounded to half precision, so that what is built on a part is built on what is shipped. Returns
    the log's rows, and what an update cost: {"seconds", "tflop"}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock, last = folder / "seconds.json", time.perf_counter()
    took = files.read_json(clock) if clock.exists() else {}  # of the steps up to each row of the log
    cost = flops.count(lambda: loss_at(model, 0)[0].backward())
    model.zero_grad()
    rows, bar = [], tqdm(total=plan.steps, desc=path.stem)
    for row in train.loop(model, [loss_at], plan, folder=folder):
        rows.append(row)
        now = time.perf_counter()
        if str(row["step"]) not in took:  # else it was done by an earlier start
            took[str(row["step"])] = now - last
            files.write_json(clock, took)
        last = now
        bar.update(row["step"] - bar.n)
    state = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    files.write_tensors(state, path)
    model.load_state_dict(state)
    return rows, {"seconds": sum(took.values()) / plan.steps, "tflop": cost / 1e12}


def taken(images, seed, step, batch, device):
    """The batch of `step` out of uint8 images (N, 64, 64, 3): its rows (B,) and pixels (B, 3, 64, 64)."""
    rows = seeds.rows_at(seed, step, batch, len(images))
    return rows, pictures.pixels(images[rows.numpy()]).to(device)


def reconstruction(x, y, posterior):
    """What is lost from pixels x (B, 3, H, W) to y, by latents of a posterior, and its terms."""
    l1, l2 = (y - x).abs().mean(), (y - x).square().mean()
    sharp = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    return l1 + l2 + sharp + 5e-4 * kl, {"l1": l1, "l2": l2, "kl": kl}


def autoencoder_loss(images, batch, seed):
    """L1 + L2 + edges + KL / 2,000 on reconstructions of uint8 images (N, 64, 64, 3)."""

    def loss_at(model, step):
        _, x = taken(images, seed, step, batch, model.device)
        with autocast(x.device):
            posterior = model.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=seeds.generator(seed, step)).to(x.device)
            y = model.decode(posterior.mean + posterior.std * noise).sample.float()
        return reconstruction(x, y, posterior)

    return loss_at


def contrastive(logits, captions, missed):
    """The symmetric contrastive loss (Radford et al., 2021), of which equal captions are no negatives.

    logits (B, B) of images and captions, which are ids or features (B, D); missed (B, K) are each image's
    logits of altered captions.
    """
    same = (captions[:, None] == captions[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    wide = F.pad(target, (0, missed.shape[1]))
    of_image = F.cross_entropy(torch.cat([logits, missed], 1), wide)
    return (of_image + F.cross_entropy(logits.T, target)) / 2


def clip_loss(images, input_ids, batch, seed):
    """The contrastive loss on noisy pairs: images uint8 (N, 64, 64, 3), input_ids (N, L)."""

    def loss_at(model, step):
        rows, x = taken(images, seed, step, batch, model.device)
        ids = input_ids[rows].to(x.device)
        with autocast(x.device):
            logits = model(input_ids=ids, pixel_values=x).logits_per_image.float()  # (B, B)
        return contrastive(logits, ids, logits[:, :0]), {}

    return loss_at


def hard_clip_loss(images, pooled, near, batch, seed):
    """The contrastive loss with near misses (Yuksekgonul et al., 2023): an image must tell its caption from
    captions altered in one thing.

    The text tower is fixed, so captions come as its outputs: pooled (N, D), near (N, K, D) of K altered ones
    each.
    """

    def loss_at(model, step):
        rows, x = taken(images, seed, step, batch, model.device)
        texts = pooled[rows].to(x.device)
        with autocast(x.device):
            image = model.visual_projection(model.vision_model(x).pooler_output)
            text, misses = model.text_projection(texts), model.text_projection(near[rows].to(x.device))
        image, text, misses = (F.normalize(v.float(), dim=-1) for v in (image, text, misses))
        scale = model.logit_scale.exp()
        logits, missed = scale * image @ text.T, scale * (misses @ image[:, :, None]).squeeze(-1)
        return contrastive(logits, texts, missed), {}

    return loss_at


def altered(caption, rng, n=4):
    """`n` captions that differ from `caption` in one thing it names, every other time its count if it names
    one.
    """
    words = " " + caption.lower().rstrip(".") + " "
    kinds = (COUNTS, COLOURS, BACKGROUNDS, TOY.objects, PLURALS)
    named = [(kind, value) for kind in kinds for value in kind if f" {value.lower()} " in words]
    nouns, noun = named[-1]
    out = []
    for i in range(n):
        kind, value = named[0]
        if kind is not COUNTS or i % 2:
            kind, value = named[rng.integers(len(named))]
        others = [v for v in kind if v != value]
        new = others[rng.integers(len(others))]
        text = words.replace(f" {value.lower()} ", f" {new} ")
        if kind is COUNTS:  # a noun follows its number
            form = TOY.objects if new == "one" else PLURALS
            text = text.replace(f" {noun} ", f" {form[nouns.index(noun)]} ")
        out.append(text.strip().capitalize() + ".")
    return out


def token_ids(tokenizer, captions):
    """What the text tower reads of captions, (N, L)."""
    return tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.inference_mode()
def near_misses(clip_model, tokenizer, captions, seed):
    """Text states (N, D) of captions, and (N, K, D) of K captions each that are `altered`.

    They are outputs of the text tower before its projection; each unique caption is encoded once.
    """
    rng = np.random.default_rng(seed)
    wrong = [other for caption in captions for other in altered(caption, rng)]

    def states(tokens):
        return clip_model.text_model(tokens.input_ids).pooler_output

    given = tokenizer, states, clip_model.device, 1024
    pooled, near = (table[rows] for table, rows in (hub.each_once(of, *given) for of in (captions, wrong)))
    return pooled, near.view(len(pooled), -1, pooled.shape[1])


@torch.inference_mode()
def broken(vae, images, seed):
    """Two thirds of `images` replaced by reconstructions, half of those from disturbed latents: what a
    sampler's flaws look like.
    """
    images, flawed = images.copy(), np.flatnonzero(np.arange(len(images)) % 3)
    for part in np.array_split(flawed, max(1, len(images) // 64)):
        mean, std = diffusion.encode_images(vae, images[part])
        g = seeds.generator(seed, int(part[0]))
        strength = 0.5 * torch.rand(len(part), generator=g) * (torch.from_numpy(part) % 3 == 2)
        deviation = std + strength.view(-1, 1, 1, 1) * mean.std()
        images[part] = diffusion.decode(vae, mean + deviation * torch.randn(mean.shape, generator=g))
    return images


def unet_loss(pipe, encoded, density, min_snr, batch, seed):
    """The denoising error (section 4.3) on `encoded` pairs, or with None on scenes rendered for their step.

    Timesteps have a density that is "uniform" or "logit-normal" (Esser et al., 2024); min_snr is the gamma of
    Min-SNR weighting (Hang et al., 2023), 0 for none.
    """
    scheduler, empty = pipe.scheduler, diffusion.encode_prompts(pipe, [""])[0]
    total = scheduler.config.num_train_timesteps

    def loss_at(model, step):
        pairs, g = encoded, seeds.generator(seed, step)
        if not pairs:
            images, captions, _ = world.pairs(batch, seed, step * batch)
            pairs = batches.encode(pipe, zip(images, captions, strict=True))
        rows = seeds.rows_at(seed + 1, step, batch, len(pairs))
        mean, std, text = pairs.take(rows)
        timesteps = torch.randint(total, (batch,), generator=g)
        dropped = torch.rand(batch, 1, 1, generator=g) < DROP
        if density == "logit-normal":
            timesteps = (total * torch.randn(batch, generator=g).sigmoid()).long()
        each = (seeds.generator(seed, step, row) for row in range(batch))
        both = [torch.randn(2, *mean.shape[1:], generator=g) for g in each]
        drawn, noise = torch.stack(both, 1)
        inputs = mean + std * drawn, torch.where(dropped, empty, text), timesteps, noise
        inputs = (x.to(model.device) for x in inputs)
        predict = diffusion.predictor(model)
        error = losses.denoising(predict, scheduler, *inputs, min_snr)
        return error.mean(), {}

    return loss_at
