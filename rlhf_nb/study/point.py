"""One point of an experiment weighs images in its own way, tunes on them, and measures: a few rows.

    python -m rlhf_nb.study.point settings.yaml      one point, resumably

Which points there are is written in notebooks/sweeps.yaml; `make sweeps` runs what is missing.
"""

import json
from functools import partial

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .. import (
    align,
    batches,
    config,
    data,
    diffusion,
    evaluate,
    files,
    generate,
    losses,
    methods,
    pictures,
    prompts,
    readers,
    reward,
    runs,
)
from ..methods.drawing import mixing
from ..toy import eye
from . import budget, heads, points


def labels_for(run, images):
    """The rows (N) of the labelled images, with their "truth" and this point's "label", NaN for none.

    Labels are the recorded ones or those of erring `raters`; then fewer of them, or shuffled.
    """
    s, rng = run.settings, np.random.default_rng([run.settings.seed, 31])
    recorded = files.read_table(run.read("feedback", "labels.csv"), ("file_name", "label", "truth"))
    rows = images.rows.query("use == 'label'").merge(recorded)
    label = rows.label
    if s.raters:
        errs = rng.random((s.raters, len(rows))) < s.error
        votes = ((rows.truth.to_numpy() > 0.5) ^ errs).mean(0)
        label = np.where(votes == 0.5, np.nan, votes.round())  # a tie is no label
    label = np.where(rng.random(len(rows)) < s.label_share, label, np.nan)
    if s.arm == "shuffled":
        label = rng.permutation(label)
    return rows.assign(label=label)


def draw_again(run, pipe, reader, table):
    """New images of the prompts to label, at guidance `drawing_guidance`, and their rows (N), without labels.

    A killed call goes on where it stopped.
    """
    s, folder = run.settings, run.path("work/drawn")
    asked = table.query("use == 'label' and category == 'combination'")
    asked = asked.iloc[np.arange(s.kept or len(asked)) % len(asked)]
    generate.draw(
        pipe,
        asked.prompt.tolist(),
        asked,
        folder,
        seed=s.seed + 51,
        guidance=s.drawing_guidance,
        steps=s.steps,
    )
    images = pictures.ImageFolder(folder)
    right = reader.examine(images[:], prompts.wants(asked))["all"]
    return images, images.rows.assign(label=np.nan, truth=right)


def features(clip, images):
    """CLIP features (N, D) of the images for labelled prompts, and (N, D) of these prompts."""
    use = align.labelled(images)
    of_images = clip.folder(images, runs.root() / "cache")[use]
    return of_images, clip.prompts(images.rows.prompt.iloc[use].tolist())


def learnt(run, clip, images, rows):
    """The reward trained as in notebook 04 on every image with a label, or on what an eye saw, with this
    point's seed; and how many labels these were.
    """
    s, seed = run.settings, run.settings.seed
    given = runs.settings_of(s.scale, "reward")
    if s.arm == "eye":
        pictures, rows, wants = eye.labelled("use == 'label'")
        of_images = clip.images(pictures)
    else:
        has, (of_images, _) = rows.label.notna(), features(clip, images)
        of_images, rows = of_images[has], rows[has]
        wants = prompts.wants(rows)
    labels = torch.tensor(rows.label.to_numpy()).float()
    among = reward.candidates(clip, wants, given["candidates"], seed, *heads.grammar(s.scale))
    how = {name: given[name] for name in points.HEAD}
    score, _ = reward.fit(clip, of_images, *among, labels, seed=seed, **how)
    return score, len(labels)


def weigh(settings, clip, images, rows, score):
    """What each image weighs in this point's arm before the power, (N,) in [0, 1]; 0 if it is not used.

    rows (N) hold label and truth; `score` is the reward of the arms that train one.
    """
    s, good = settings, (rows.label > 0.5).to_numpy()
    if score:
        value = score.of_features(*features(clip, images))
        if not s.unlabelled:
            value = np.where(rows.label.isna(), 0.0, value)
    elif s.arm == "similarity":
        cosine = torch.cosine_similarity(*features(clip, images)).numpy()
        low, high = np.quantile(cosine, (0.01, 0.99))
        value = np.clip((cosine - low) / (high - low), 0, 1)
    else:
        value = {
            "labels": good,
            "random": np.random.default_rng([s.seed, 33]).permutation(good),
            "oracle": rows.truth > 0.5,
            "constant": np.ones(len(rows)),
        }[s.arm]
    objects = rows.object.unique()[: s.objects or None]
    may = np.flatnonzero(rows.object.isin(objects))
    used = np.random.default_rng([s.seed, 32]).permutation(may)[: s.kept or None]
    weight = np.zeros(len(rows))
    weight[used] = np.asarray(value)[used]
    return weight


def train(run, pipe, reader, clip, table):
    """The U-Net after this point's training, resumably, and what its rows tell of the training.

    {"purity": share of the weight that lies on truly right images, "labels", "images": how many it used}
    """
    s, images = run.settings, pictures.ImageFolder(run.read("generate", "images"))
    rows = labels_for(run, images)
    score, labels = None, rows.label.count() if s.arm in ("given", "labels") else 0
    if s.arm in ("reward", "shuffled", "eye"):
        score, labels = learnt(run, clip, images, rows)
    if s.arm == "given":
        score = reward.load(run.read("reward", "model"), clip)
    if s.drawing_guidance:
        images, rows = draw_again(run, pipe, reader, table)
    weight = weigh(s, clip, images, rows, score)
    power = s.knobs.get("power", 1.0)
    if not weight.all() and (power == 0 or s.knobs.get("baseline")):
        raise config.ConfigError(
            "a point that leaves images out needs a power above zero and no baseline: "
            "else their weight of 0 would not stay 0"
        )
    material, unet = align.material(run, pipe, images, weight), align.trainable(pipe, s)
    price = budget.cost(run, pipe, unet, material, score)
    run.settings = budget.bought(s, price)
    watch = align.Watch(run, pipe, score, clip) if s.tflop else None
    with tqdm(total=run.settings.updates, desc=f"{s.method} {s.arm} {s.seed}") as bar:
        for row in align.fit(run, pipe, unet, material, score, watch):
            bar.update(row["step"] - bar.n)
    pipe.to(unet.device)  # training needed the place of its other parts
    weight = weight**power * (weight > 0)
    updates, (spent, drawn) = run.settings.updates, price.of(run.settings)
    curve = [row | {"step": row["step"] / updates} for row in watch.curve] if watch else []
    return unet, {
        "purity": weight[rows.truth > 0.5].sum() / weight.sum(),
        "labels": labels,
        "images": s.kept or len(weight),
        "spent": spent,
        "drawn": drawn,
        "trained": updates,
        "curve": json.dumps(curve),
    }


@torch.inference_mode()
def apart(pipe, unet, count=256):
    """How far a U-Net's predictions are from the base's, and its error, on pre-training pairs of the world.

    {"drift": mean square of the difference, "denoising": mean error}, at timesteps spread evenly.
    """
    pairs = data.CaptionedImages("world", count, 77, size=pipe.unet.config.sample_size * 8)
    mean, _, text = batches.encode(pipe, pairs).take(torch.arange(count))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(78))
    forward = diffusion.forward_process(pipe.scheduler)
    timesteps = torch.linspace(0, forward.config.num_train_timesteps - 1, count).long()
    noisy, target, given, _ = losses.diffused(forward, mean, noise, timesteps)
    base, tuned = (diffusion.predictor(of)(noisy, given, text) for of in (pipe.unet, unet))
    drift, error = ((tuned - other).square().mean() for other in (base, target))
    return {"drift": float(drift), "denoising": float(error)}


def measure(draw, guidances, reader, score, asked, settings, mixed=1.0):
    """A row for every guidance: what the judge and the reward say of images of `asked`, a split's prompts.

    draw(sentences, **options) -> images, options as in `diffusion.sample`; `mixed` is how far from the base
    to the tuned model it goes.

    There are `repeats` images of each prompt; how they compare with real scenes is told, too. "hits" holds
    every single verdict, in the order of the prompts, so that tests can be paired afterwards.
    """
    n = len(asked)
    asked = pd.concat([asked] * settings.repeats)
    wants, sentences, which = prompts.wants(asked), asked.prompt.tolist(), np.arange(len(asked)) % n
    scenes = evaluate.real_images("world", wants, settings.renders, 42)
    real, limit = reader.features(scenes), np.quantile(evaluate.saturation(scenes), 0.95)
    for guidance in guidances:
        options = {"guidance": guidance, "steps": settings.steps, "seed": 41}  # one noise for all points
        images = draw(sentences, **options)
        hits, fake = reader.examine(images, wants), reader.features(images)
        number = hits.pop("number")
        yield {
            "split": asked.split.iloc[0],
            "mixed": mixed,
            "guidance": guidance,
            "n": n,
            **{name: hit.mean() for name, hit in hits.items()},
            "reward": float(score(images, sentences).mean()),
            "frechet": evaluate.frechet(real, fake),
            "frechet_error": evaluate.frechet_error(real, fake),
            "vendi": evaluate.vendi(fake),
            "diversity": evaluate.diversity(fake, which).mean(),
            "saturated": (evaluate.saturation(images) > limit).mean(),
            "duplicated": readers.duplicated(number, wants).mean(),
            "hits": "".join(np.where(hits["all"], "x", ".")),
        }


def main(settings):
    """Train and measure one point; its rows and manifest are in runs/<scale>/study/<key>."""
    if settings.scale == "sd15":
        raise config.ConfigError("experiments know the toy world only: run them at scale 'smoke' or 'toy'")
    run = runs.Run(f"study/{points.key(settings)}", settings, ["prompts", "generate", "feedback", "reward"])
    table = files.read_table(run.read("prompts", "prompts.csv"), ("prompt", "use", "category", "split"))
    pipe, clip = diffusion.load(settings.pipeline), reward.Clip(settings.clip)
    evaluate.check(settings, pipe, settings.kept + settings.prompts * settings.repeats)
    reader, unet, about = readers.load(settings.judge, clip), pipe.unet, {}
    if settings.arm != "none":
        unet, about = train(run, pipe, reader, clip, table)
    about["settings"] = settings.model_dump_json()
    about |= apart(pipe, unet)
    score, rows = reward.load(run.read("reward", "model"), clip), []
    table = table.query("category == 'combination' and use != 'test'")
    guidances, draw = settings.guidances, partial(diffusion.sample, pipe, unet=unet)
    method = methods.load(settings.method)
    if settings.arm != "none" and hasattr(method, "draw"):  # one that draws in a way of its own
        draw = partial(method.draw, pipe, knobs=method.Knobs(**settings.knobs), unet=unet)
    for split in settings.splits:
        asked = table.query("split == @split").head(settings.prompts)
        rows += measure(draw, guidances, reader, score, asked, settings)
        if settings.own_best and split == "validation":
            guidances = sorted({1.0, max(rows, key=lambda row: row["all"])["guidance"]})
            for lam in settings.mixing:
                mixed = partial(mixing.draw, pipe, knobs=mixing.Knobs(lam=lam), unet=unet)
                rows += measure(mixed, guidances[-1:], reader, score, asked, settings, lam)
    run.csv("rows.csv", [row | about for row in rows])
    run.finish()


def make(scale, name):
    """Run the points of sweep `name` that this machine's runs do not hold yet."""
    for key, given in points.points(points.SWEEPS, scale, [name]).items():
        try:
            runs.manifest(scale, f"study/{key}")
        except files.ArtifactError:
            main(config.settings("study", **given))


if __name__ == "__main__":
    config.command("study", main)
