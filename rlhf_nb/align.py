"""Eq. 2 end to end: encode the frozen parts once, weigh the images, train the U-Net or adapters on it."""

import copy
import hashlib
import itertools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from . import data, diffusion, judge, losses, prompts, reward, runs, train

SHARD = 256  # images; at Stable Diffusion's size 0.2 GB
NEEDS = ["prompts", "generate", "reward"]


class Encoded:
    """Images and prompts after the frozen encoders, as shards of equal size that are mapped from disk, not read.

    A shard is {"mean", "std" (n, C, h, w), "text" (u, L, D) of its unique prompts, "prompt" (n,) rows into them}.
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


def encode(pipe, pairs, cache=None, half=False, accelerator=None, progress=None):
    """Everything Eq. 2 needs of `pairs`, an iterable of (image uint8 (H, W, 3), prompt), so that training touches the U-Net only.

    In `cache` a shard is a file named by the content of its pictures, its prompts and the encoders: what is there is not encoded
    again, and of several processes each makes its share. Without `cache` all stays in memory. `half` stores half precision. Raises
    ModelError for latents that are not finite or do not fit the U-Net.
    """
    encoders = runs.weights_digest(pipe.vae, pipe.text_encoder) if cache else ""
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    pairs, made = iter(pairs), []
    while chunk := list(itertools.islice(pairs, SHARD)):
        images, sentences = np.stack([image for image, _ in chunk]), [prompt for _, prompt in chunk]
        content = hashlib.sha256(f"{encoders} {half} {images.shape} {len(made)}\n".encode() + "\n".join(sentences).encode() + images.tobytes()).hexdigest()
        path = Path(cache) / f"{content[:32]}.safetensors" if cache else None
        if path is None or len(made) % world == rank and not path.exists():
            shard = encode_shard(pipe, images, sentences, half, first=len(made) * SHARD)
            if path:
                train.write(shard, path)
        made.append(path or shard)
        if progress:
            progress(len(chunk))
    if not made:
        raise diffusion.ModelError("there are no images to encode: give a folder with images")
    if accelerator:
        accelerator.wait_for_everyone()
    return Encoded([load_file(m) for m in made] if cache else made)


def encode_shard(pipe, images, sentences, half, first):
    mean, std = diffusion.encode_images(pipe.vae, images)
    text, rows = diffusion.encode_prompts(pipe, sentences)
    unet = pipe.unet.config
    if mean.shape[1:] != (unet.in_channels, unet.sample_size, unet.sample_size) or text.shape[2] != unet.cross_attention_dim:
        raise diffusion.ModelError(f"images of {images.shape[1]} x {images.shape[2]} give latents {tuple(mean.shape[1:])} and prompts states of width "
                                   f"{text.shape[2]}, the U-Net takes {(unet.in_channels, unet.sample_size, unet.sample_size)} and "
                                   f"{unet.cross_attention_dim}: give images of its size, and encoders that belong to it")
    if not (mean.isfinite() & std.isfinite()).all():
        bad = first + (~(mean.isfinite() & std.isfinite()).flatten(1).all(1)).nonzero()[:, 0]
        raise diffusion.ModelError(f"latents of images {bad[:5].tolist()} are not finite: look at these pictures, or use an autoencoder in full precision")
    kind = torch.float16 if half else torch.float32
    return {name: value.to(kind).contiguous() for name, value in (("mean", mean), ("std", std), ("text", text))} | {"prompt": rows}


class Eq2:
    """Eq. 2 as a `loss_at(unet, step, rows)` for train.loop, with prompts dropped so that guidance keeps working.

    batch = (rows of D_model, rows of D_pre) a step; weight (N,) of the images in D_model; empty (L, D) the embedding of "", which
    replaces a prompt with chance `drop`. With draw = "uniform" every image is seen equally often and its error weighed; with "weight"
    images are drawn in proportion to the size of their weight and weigh the same: the expectation is equal, the variance smaller.
    Everything drawn for row i of step s depends on (seed, s, i) alone. Logged: each expectation without weights.
    """

    def __init__(self, scheduler, empty, model_data, pre_data, *, batch, beta, drop, seed, weight=None, draw="uniform", min_snr=0.0):
        from diffusers import DDPMScheduler

        if weight is not None and not weight.isfinite().all():
            raise train.NotFinite(f"weights of images {(~weight.isfinite()).nonzero()[:5, 0].tolist()} are not finite: run notebook 04_reward again")
        if weight is not None and not weight.any():
            raise train.NotFinite("every image weighs nothing: no label or reward calls one good, so there is nothing to learn from; see notebook 04_reward")
        flow = scheduler.config.prediction_type == "flow_prediction"  # a sampler's own add_noise knows only the few steps it samples at
        self.scheduler = scheduler if flow else DDPMScheduler.from_config(scheduler.config)
        self.sources, self.batch, self.weight, self.empty = (model_data, pre_data), batch, weight, empty
        self.beta, self.drop, self.seed, self.draw, self.min_snr = beta, drop, seed, draw, min_snr
        self.is_model = torch.arange(sum(batch)) < batch[0]

    def plan(self, step):
        """The global batch of `step`: {"row" of each source, "coefficient" of Eq. 2, "timesteps", "dropped"}, (B,) each."""
        g, (m, p) = train.generator(self.seed, step), self.batch
        rows, weight = [], torch.zeros(m + p)
        if m and self.draw == "weight":
            rows.append(torch.multinomial(self.weight.abs(), m, replacement=True, generator=g))
            weight[:m] = self.weight[rows[0]].sign() * self.weight.abs().mean()
        elif m:
            rows.append(train.rows_at(self.seed, step, m, len(self.sources[0])))
            weight[:m] = self.weight[rows[0]]
        if p:
            rows.append(train.rows_at(self.seed + 1, step, p, len(self.sources[1])))
        return {"row": torch.cat(rows), "coefficient": losses.eq2(weight, self.is_model, self.beta),
                "timesteps": torch.randint(self.scheduler.config.num_train_timesteps, (m + p,), generator=g),
                "dropped": torch.rand(m + p, generator=g) < self.drop}

    def errors(self, unet, step, rows):
        """Denoising errors (B,) of `rows` of step `step`, with their coefficients and sources."""
        plan = {name: values[rows] for name, values in self.plan(step).items()}
        is_model = self.is_model[rows]
        taken = [data.take(plan["row"][is_model == kind]) for kind, data in zip((True, False), self.sources, strict=True) if (is_model == kind).any()]
        mean, std, text = (torch.cat(parts) for parts in zip(*taken, strict=True))  # rows are in order: D_model first
        drawn = torch.stack([torch.randn(2, *mean.shape[1:], generator=train.generator(self.seed, step, r)) for r in rows.tolist()])
        text = torch.where(plan["dropped"][:, None, None], self.empty, text)
        device = next(unet.parameters()).device
        latents, text, timesteps, noise, coefficient, is_model = (v.to(device, non_blocking=True) for v in (
            mean + std * drawn[:, 0], text, plan["timesteps"], drawn[:, 1], plan["coefficient"], is_model))
        return losses.denoising(unet, self.scheduler, latents, text, timesteps, noise, self.min_snr), coefficient, is_model

    def __call__(self, unet, step, rows=None):
        error, coefficient, is_model = self.errors(unet, step, torch.arange(sum(self.batch)) if rows is None else rows)
        log = {name: torch.where(is_model == kind, error, 0).sum() / n
               for name, kind, n in zip(("model", "pre"), (True, False), self.batch, strict=True) if n}
        return (coefficient * error).sum(), log

    @torch.no_grad()
    def blame(self, unet, step):
        """Which samples of step `step` have errors that are not finite, as words for a message."""
        bad = [r for part in torch.arange(sum(self.batch)).split(32) for r, e in zip(part.tolist(), self.errors(unet, step, part)[0].tolist(), strict=True)
               if not np.isfinite(e)]
        rows = self.plan(step)["row"]
        return f" (samples {', '.join(f'{int(rows[r])} of ' + ('D_model' if self.is_model[r] else 'D_pre') for r in bad[:5])})" if bad else ""


def trainable(pipe, settings):
    """A copy of the U-Net to train: all of it, or with settings.lora > 0 adapters of that rank on `lora_targets` (peft)."""
    unet = copy.deepcopy(pipe.unet).requires_grad_(not settings.lora)
    if settings.lora:
        from peft import LoraConfig

        torch.manual_seed(settings.seed)  # the adapters' first weights
        unet.add_adapter(LoraConfig(r=settings.lora, lora_alpha=settings.lora, init_lora_weights="gaussian", target_modules=list(settings.lora_targets)))
    if "checkpointing" in settings.extras:
        unet.enable_gradient_checkpointing()
    if "compile" in settings.extras:
        unet.compile()
    return unet


def accelerator(settings):
    """accelerate's engine in the asked precision, on as many processes as `accelerate launch` started, with TensorBoard files if asked for."""
    from accelerate import Accelerator, InitProcessGroupKwargs

    tracked = "tensorboard" in settings.extras
    patience = InitProcessGroupKwargs(timeout=diffusion.PATIENCE)
    engine = Accelerator(mixed_precision=settings.precision, cpu=not torch.cuda.is_available(), kwargs_handlers=[patience],
                         log_with="tensorboard" if tracked else None,
                         project_dir=runs.root() / settings.scale / "tensorboard" if tracked else None)
    if tracked:
        engine.init_trackers("align")
    return engine


def material(run, pipe, score, engine=None, progress=None, images=None):
    """D_model and D_pre of stage `align`, encoded once: (Encoded, its rewards (N,), Encoded, the stream behind D_pre).

    D_model is every image drawn for a labelled prompt, whether or not raters agreed on it: of stage `generate`, or of another folder `images`. `score` is
    a reward, or the rewards (N,) themselves. Both encoders leave the device afterwards.
    """
    s, images = run.settings, images or runs.Images(run.read("generate", "images"))
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    stream = data.Pairs(s.pretraining if s.pre_batch else "world", s.pre_images, s.seed + 500, size=side, min_score=s.min_score)
    use = np.flatnonzero((images.rows.use == "label").to_numpy())
    sentences = images.rows.prompt.to_numpy()
    rewards = [score(images[part], sentences[part].tolist()) for part in np.array_split(use, -(-len(use) // SHARD))] if callable(score) else [score]
    cache, half = runs.root() / "cache" / "encoded", s.precision != "no"
    model_data = encode(pipe, ((images[[i]][0], sentences[i]) for i in use), cache, half, engine, progress)
    pre_data = encode(pipe, stream, cache, half, engine, progress) if s.pre_batch else None
    for part in (pipe.vae, pipe.text_encoder):
        part.to("cpu")
    return model_data, torch.from_numpy(np.concatenate(rewards)).float(), pre_data, stream


def objective(run, pipe, model_data, rewards, pre_data):
    """Eq. 2 with the settings of stage `align`."""
    s = run.settings
    if not rewards.isfinite().all():
        raise train.NotFinite(f"rewards of images {(~rewards.isfinite()).nonzero()[:5, 0].tolist()} are not finite: run notebook 04_reward again")
    return Eq2(pipe.scheduler, diffusion.encode_prompts(pipe, [""])[0][0], model_data, pre_data, batch=(s.model_batch, s.pre_batch), beta=s.beta, drop=s.drop,
               seed=s.seed, weight=losses.weights(rewards, s.coefficient, s.baseline), draw=s.draw, min_snr=s.min_snr)


class Watch:
    """Draws the same validation prompts from the same noise at intervals: `pictures` (P, H, W, 3) each, and `curve`, rows of step, reward and, with a
    judge, true. What was drawn is kept in the run's work folder, so that a resumed run has the looks of every step."""

    def __init__(self, run, pipe, score, clip, count=96):
        table = runs.table(run.read("prompts", "prompts.csv"), ("prompt", "use", "category")).query("use == 'tune' and category == 'combination'").head(count)
        self.run, self.pipe, self.score, self.prompts = run, pipe, score, table.prompt.tolist()
        self.wants = [prompts.attributes(row) for row in table.to_dict("records")]
        self.reader = judge.reader_of(run.settings.judge, clip) if run.settings.judge else None
        self.options = {k: v for k, v in runs.manifest(run.settings.scale, "generate")["settings"].items() if k in ("guidance", "steps")}
        self.pictures, self.curve = [], []

    def __call__(self, unet, step):
        kept = self.run.path(f"work/look-{step}.npy")
        if not kept.exists():
            base, training, self.pipe.unet = self.pipe.unet, unet.training, unet.eval()
            for part in (self.pipe.vae, self.pipe.text_encoder):
                part.to(unet.device)
            np.save(kept.with_suffix(".part.npy"), diffusion.sample(self.pipe, self.prompts, seed=self.run.settings.seed + 2, **self.options))
            kept.with_suffix(".part.npy").replace(kept)
            for part in (self.pipe.vae, self.pipe.text_encoder):
                part.to("cpu")
            self.pipe.unet = base
            unet.train(training)
        drawn = np.load(kept)
        self.pictures.append(drawn)
        row = {"step": step, "reward": float(self.score(drawn, self.prompts).mean())}
        if self.reader:
            row["true"] = float(judge.examine(self.reader, drawn, self.wants)["all"].mean())
        self.curve.append(row)


def tune(run, unet, loss_at, watch=None, engine=None):
    """Train `unet` by stage `align`'s settings and yield log rows, some eighty in all; `watch(unet, step)` sees about eight models and the averaged one."""
    s = run.settings
    log_every = max(1, s.updates // 80)
    every = 10 * log_every
    if watch:
        watch(watch.pipe.unet, 0)
    for row in train.loop(unet, loss_at, steps=s.updates, lr=s.lr, batch=s.model_batch + s.pre_batch, accumulate=s.accumulate, warmup=s.updates // 20,
                          ema=s.ema, folder=run.path("work"), save_every=2 * log_every, log_every=log_every, accelerator=engine or accelerator(s)):
        if watch and row["step"] % every == 0 and row["step"] < s.updates:
            watch(unet, row["step"])
        yield row
    if watch:
        watch(unet, s.updates)


def main(settings):
    """`accelerate launch -m rlhf_nb.train settings.yaml`: encode and train stage `align` on all processes, resumably.

    The file holds parameters of notebook 05 by name. That notebook, run with the same settings afterwards, finds all done, draws the
    figures and finishes the stage.
    """
    from tqdm.auto import tqdm

    engine = accelerator(settings)
    with engine.main_process_first():
        run = runs.Run("align", settings, needs=NEEDS)
    pipe, quiet = diffusion.load(settings.pipeline), not engine.is_main_process
    clip = reward.Clip(settings.clip)
    score = reward.scorer(settings.scorer, run.read("reward", "model"), clip)
    with tqdm(desc="encoded", disable=quiet) as bar:
        model_data, rewards, pre_data, stream = material(run, pipe, score, engine, bar.update)
    left_out = ", ".join(f"{n} {why}" for why, n in stream.skipped.items()) or "none"
    engine.print(f"D_model {len(model_data)} images, D_pre {len(pre_data) if pre_data else 0} pairs; left out: {left_out}")
    loss_at, unet = objective(run, pipe, model_data, rewards, pre_data), trainable(pipe, settings)
    watch = None if quiet else Watch(run, pipe, score, clip)
    for row in tune(run, unet, loss_at, watch, engine):
        engine.print(" · ".join(f"{name} {value:.4g}" for name, value in row.items()))
    engine.end_training()
