"""Alignment end to end: encode the frozen parts once, train the U-Net by a method, watch it on the way.

accelerate launch -m rlhf_nb.align settings.yaml     the training that notebook 05 runs, on all processes
"""

import numpy as np
import torch

from . import config, data, diffusion, files, generate, losses, pictures, prompts, readers, reward, runs
from .batches import SHARD, Material, Samples, encode
from .nets import check_targets, trainable
from .objective import Objective
from .train import Plan, loop

NEEDS = ["prompts", "generate", "reward"]


def labelled(images):
    """Rows of an image folder that stand for D_model: every image drawn for a labelled prompt.

    Raises ArtifactError where there is none.
    """
    found = np.flatnonzero(images.rows.get("use") == "label")
    if not len(found):
        raise files.ArtifactError(
            f"{images.folder / 'metadata.csv'} has no picture of use 'label' to train on: run notebook "
            "02_generate again"
        )
    return found


def rewards_of(images, score):
    """What a reward says of the labelled images of a folder, (N,)."""
    use, prompts = labelled(images), images.rows.prompt.to_numpy()
    parts = np.array_split(use, -(-len(use) // SHARD))
    return np.concatenate([score(images[part], prompts[part].tolist()) for part in parts])


def material(run, pipe, images, rewards, engine=None, progress=None):
    """The Material of stage `align`: D_model is what is labelled in the image folder `images`, rewards (N,).

    Whether or not raters agreed on it. Both encoders leave the device afterwards. Raises ModelError where the
    images do not fit the models, ConfigError where the adapters do not.
    """
    check_targets(pipe.unet, run.settings)
    s, use, sentences = run.settings, labelled(images), images.rows.prompt.to_numpy()
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    source = s.pretraining if s.pre_batch else "world"
    stream = data.CaptionedImages(source, s.pre_images, s.seed + 500, size=side, min_score=s.min_score)
    options = (runs.root() / "cache" / "encoded", s.precision != "no", engine, progress)
    encoded = encode(pipe, ((images[[i]][0], sentences[i]) for i in use), *options)
    pre = encode(pipe, stream, *options) if s.pre_batch else None
    distinct, number = np.unique(sentences[use], return_inverse=True)
    empty = diffusion.encode_prompts(pipe, [""])[0][0]
    diffusion.move(pipe, "cpu")
    reward = torch.as_tensor(rewards).float()
    samples = Samples(encoded, reward=reward, prompt=torch.from_numpy(number))
    return Material(samples, pre, distinct.tolist(), empty, stream.skipped)


def accelerator(settings):
    """accelerate's engine in the asked precision, on as many processes as `accelerate launch` started.

    Raises ConfigError where this machine lacks it, or this kernel has trained in another.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    tracked = "tensorboard" in settings.extras
    try:
        engine = Accelerator(
            mixed_precision=settings.precision,
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=generate.PATIENCE)],
            log_with="tensorboard" if tracked else None,
            project_dir=runs.root() / settings.scale / "tensorboard" if tracked else None,
        )
    except ValueError as error:
        raise config.ConfigError(
            f"precision {settings.precision!r} cannot be had ({config.cause(error)}): give another, or "
            "restart the kernel if it has trained before"
        ) from None
    if tracked:
        engine.init_trackers("align")
    return engine


def plan(settings):
    """How stage `align` trains: some eighty log rows in all."""
    log_every = max(1, settings.updates // 80)
    return Plan(
        steps=settings.updates,
        lr=settings.lr,
        warmup=settings.updates // 20,
        ema=settings.ema,
        log_every=log_every,
        save_every=2 * log_every,
    )


def fit(run, pipe, unet, material, score=None, watch=None, engine=None):
    """Train `unet` by the method of stage `align` and yield log rows.

    score: the reward, for methods that draw. `watch(unet, step)` sees about eight models and the averaged
    one.
    """
    engine, how, work = engine or accelerator(run.settings), plan(run.settings), run.path("work")
    objective = Objective(run.settings, pipe, unet, material, engine, score, work)
    if watch:
        watch(pipe.unet, 0)
    for row in loop(
        unet,
        objective.micro_batches(),
        how,
        folder=work,
        engine=engine,
        summed=True,
        kept=objective.nets.kept,
        blame=objective.blame,
    ):
        if watch and row["step"] % (10 * how.log_every) == 0 and row["step"] < how.steps:
            watch(unet, row["step"])
        yield row
    if watch:
        watch(unet, how.steps)


class Watch:
    """Draws the same validation prompts from the same noise at intervals.

    `pictures` (P, H, W, 3) each, and `curve`, rows of step, reward and, with a reader, true, the share of
    `right` (P,). What was drawn is kept in the run's work folder, so that a resumed run has the looks of
    every step.
    """

    def __init__(self, run, pipe, score, clip):
        table = prompts.read(run).query("use == 'tune' and category == 'combination'").head(96)
        self.run, self.pipe, self.score, self.prompts = run, pipe, score, table.prompt.tolist()
        self.wants = prompts.wants(table)
        self.reader = readers.load(run.settings.judge, clip) if run.settings.judge else None
        drawing = run.made("generate")
        self.options = {name: drawing[name] for name in ("guidance", "steps")}
        self.pictures, self.right, self.curve = [], [], []

    def __call__(self, unet, step):
        kept = self.run.path(f"work/look-{step}.safetensors")
        if not files.cached_tensors(kept):
            seed = self.run.settings.seed + 2
            with diffusion.at_work(self.pipe, unet):
                drawn = diffusion.sample(self.pipe, self.prompts, unet=unet, seed=seed, **self.options)
            files.write_tensors({"drawn": torch.from_numpy(drawn)}, kept)
        drawn = files.read_tensors(kept)["drawn"].numpy()
        self.pictures.append(drawn)
        row = {"step": step, "reward": float(self.score(drawn, self.prompts).mean())}
        self.right.append(self.reader.examine(drawn, self.wants)["all"] if self.reader else ())
        if self.reader:
            row["true"] = float(self.right[-1].mean())
        self.curve.append(row)


@torch.inference_mode()
def surprise(pipe, unet, encoded, draws=8):
    """Mean denoising error (B,) of all samples of batches.Encoded under a U-Net, at evenly spread timesteps.

    All models get the same noise.
    """
    forward, predict = diffusion.forward_process(pipe.scheduler), diffusion.predictor(unet)
    g, found = torch.Generator().manual_seed(0), []
    rows = torch.arange(len(encoded) * draws)
    times = (rows % draws + 0.5) / draws * forward.config.num_train_timesteps
    for part, time in zip(rows.split(32), times.long().split(32), strict=True):
        mean, _, text = encoded.take(part // draws)
        batch = (v.to(unet.device) for v in (mean, text, time, torch.randn(mean.shape, generator=g)))
        found.append(losses.denoising(predict, forward, *batch).cpu())
    return torch.cat(found).view(-1, draws).mean(1)


def main(settings):
    """Encode and train stage `align` on all processes, resumably.

    Notebook 05, run with the same settings afterwards, finds all done, draws the figures and finishes the
    stage.
    """
    from tqdm.auto import tqdm

    engine = accelerator(settings)
    with engine.main_process_first():
        run = runs.Run("align", settings, needs=NEEDS)
    pipe, quiet = diffusion.load(settings.pipeline), not engine.is_main_process
    clip, score = reward.chosen(run)
    images = pictures.ImageFolder(run.read("generate", "images"))
    with tqdm(desc="encoded", disable=quiet) as bar:
        encoded = material(run, pipe, images, rewards_of(images, score), engine, bar.update)
    left_out = ", ".join(f"{n} {why}" for why, n in encoded.skipped.items()) or "none"
    engine.print(
        f"D_model {len(encoded.samples)} images, D_pre {len(encoded.pre or ())} pairs; left out: {left_out}"
    )
    watch = None if quiet else Watch(run, pipe, score, clip)
    for row in fit(run, pipe, trainable(pipe, settings), encoded, score, watch, engine):
        engine.print(" · ".join(f"{name} {value:.4g}" for name, value in row.items()))
    engine.end_training()


if __name__ == "__main__":
    config.command("align", main)
