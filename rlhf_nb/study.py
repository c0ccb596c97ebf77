"""Experiments: one point = (settings, seed) weighs the images of stage `generate` in its own way, tunes on them, and measures; its result is a few rows.

    python -m rlhf_nb.study settings.yaml      one point, resumably
    python -m rlhf_nb.study --record           every finished point into book/records/study.csv

Which points there are is written in notebooks/sweeps.yaml; `make sweeps` runs what is missing.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from . import align, config, diffusion, evaluate, judge, prompts, reward, runs

MEASURES = ("frechet", "reward", "vendi", "diversity", "saturated", "duplicated", "purity", "labels", "images", "seconds")
BEHIND = {"generate": ("seed", "guidance", "steps", "per_simple", "per_combination"), "feedback": ("seed", "raters", "careless", "aggregation"),
          "reward": ("candidates", "updates", "lr", "hidden", "lam", "temperature", "batch")}  # settings of other stages that a point's rows rest on
HERE = Path(config.__file__).parents[1]
RECORD, SWEEPS = HERE / "book" / "records" / "study.csv", HERE / "notebooks" / "sweeps.yaml"


class Pictures:
    """Pictures (N) of labelled prompts with what is known of them: `rows` (label, NaN where there is none, and truth), wants, CLIP features of both sides."""

    def __init__(self, images, rows, clip):
        self.images, self.rows, self.of = images, rows, np.flatnonzero((images.rows.use == "label").to_numpy())
        self.wants = [prompts.attributes(r) for r in images.rows.iloc[self.of].to_dict("records")]
        self.features = clip.folder(images, runs.root() / "cache")[self.of]
        self.texts = clip.prompts(images.rows.prompt.iloc[self.of].tolist())


def labelled(run, clip):
    """The pictures of stage `generate` with this point's labels: the recorded ones or those of erring `raters`; then fewer of them, or shuffled."""
    s, rng = run.settings, np.random.default_rng([run.settings.seed, 31])
    rows = runs.table(run.read("feedback", "labels.csv"), ("prompt", "use", "label", "truth")).query("use == 'label'").reset_index(drop=True)
    if s.raters:
        votes = ((rows.truth.to_numpy() > 0.5) ^ (rng.random((s.raters, len(rows))) < s.error)).mean(0)
        rows["label"] = np.where(votes == 0.5, np.nan, votes.round())  # a tie is no label
    rows.loc[rng.random(len(rows)) >= s.labelled, "label"] = np.nan
    if s.arm == "shuffled":
        rows["label"] = rng.permutation(rows.label)
    return Pictures(runs.Images(run.read("generate", "images")), rows, clip)


def drawn(run, pipe, reader, clip, table):
    """New pictures of labelled prompts at guidance `drawn`, resumably; nobody has labelled them."""
    s = run.settings
    asked = table[(table.use == "label") & (table.category == "combination")]
    asked = asked.iloc[np.arange(s.kept or len(asked)) % len(asked)]
    folder = run.path("work/drawn")
    diffusion.draw(pipe, asked.prompt.tolist(), asked, folder, guidance=s.drawn, steps=s.steps, seed=s.seed + 51)
    images = runs.Images(folder)
    truth = judge.examine(reader, images[:], [prompts.attributes(r) for r in asked.to_dict("records")])["all"]
    return Pictures(images, pd.DataFrame({"label": np.nan, "truth": truth.astype(float)}), clip)


def learnt(run, known, clip):
    """The reward trained as in notebook 04 on every labelled picture, with this point's seed."""
    s, given, chosen = run.settings, *(runs.manifest(run.settings.scale, stage)["settings"] for stage in ("reward", "prompts"))
    vocabulary, rows = prompts.VOCABULARIES[chosen["vocabulary"]], np.flatnonzero(known.rows.label.notna())
    allowed = {w for split in prompts.splits(vocabulary, chosen["seed"]).values() for w in split["seen"]}
    texts, where = reward.candidates(clip, [known.wants[i] for i in rows], given["candidates"], s.seed, vocabulary.seen, allowed)
    labels = torch.tensor(known.rows.label.to_numpy()[rows], dtype=torch.float32)
    return reward.fit(clip, known.features[rows], texts, where, labels, seed=s.seed,
                      **{k: given[k] for k in ("updates", "lr", "hidden", "lam", "temperature", "batch")})[0]


def weigh(run, known, pictures, clip):
    """What each of `pictures` weighs in this point's arm, (N,) in [0, 1], before the coefficient; 0 for those the point does not use."""
    s, rng, label = run.settings, np.random.default_rng([run.settings.seed, 33]), pictures.rows.label
    if s.arm in ("reward", "shuffled"):
        value = learnt(run, known, clip).of_features(pictures.features, pictures.texts)
        value = value if s.unlabelled else np.where(label.isna(), 0.0, value)
    elif s.arm == "similarity":
        cosine = torch.cosine_similarity(pictures.features, pictures.texts).numpy()
        low, high = np.quantile(cosine, (0.01, 0.99))
        value = np.clip((cosine - low) / (high - low), 0, 1)
    else:
        good = (label > 0.5).to_numpy()
        value = {"labels": good, "random": rng.permutation(good), "oracle": pictures.rows.truth > 0.5, "constant": np.ones(len(label))}[s.arm]
    names = list(dict.fromkeys(w.object for w in pictures.wants))
    may = np.flatnonzero([w.object in names[:s.objects or len(names)] for w in pictures.wants])
    used = np.isin(np.arange(len(label)), np.random.default_rng([s.seed, 32]).permutation(may)[:s.kept or len(may)])
    return np.asarray(value, float) * used


def tuned(run, pipe, pictures, weight):
    """The U-Net after this point's training, resumably."""
    model_data, rewards, pre_data, _ = align.material(run, pipe, weight, images=pictures.images)
    unet = align.trainable(pipe, run.settings)
    with tqdm(total=run.settings.updates, desc=f"{run.settings.arm} {run.settings.seed}") as bar:
        for row in align.tune(run, unet, align.objective(run, pipe, model_data, rewards, pre_data)):
            bar.update(row["step"] - bar.n)
    for part in (pipe.vae, pipe.text_encoder):  # training needed their place
        part.to(unet.device)
    return unet


def measure(pipe, unet, reader, score, rows, settings):
    """A row for every guidance: what the judge and the reward say of pictures of `rows`, one a prompt and repeat, and how they compare with real scenes.

    "hits" holds every single verdict, in the order of the prompts, so that tests can be paired afterwards.
    """
    asked, n, extract = pd.concat([rows] * settings.repeats, ignore_index=True), len(rows), evaluate.extractor(reader, score.clip)
    wants, groups = [prompts.attributes(r) for r in asked.to_dict("records")], np.tile(np.arange(n), settings.repeats)
    scenes = evaluate.real_images("world", wants, settings.renders, 42)
    real, limit = extract(scenes), np.quantile(evaluate.saturation(scenes), 0.95)
    for guidance in settings.guidances:
        base, pipe.unet = pipe.unet, unet
        images = diffusion.sample(pipe, asked.prompt.tolist(), guidance=guidance, steps=settings.steps, seed=41)   # the same noise for every point
        pipe.unet = base
        hits, fake = judge.examine(reader, images, wants), extract(images)
        number = hits.pop("number")
        yield {"guidance": guidance, "n": n, **{a: float(h.mean()) for a, h in hits.items()}, "reward": float(score(images, asked.prompt.tolist()).mean()),
               "frechet": evaluate.frechet(real, fake), "frechet_error": evaluate.frechet_error(real, fake), "vendi": evaluate.vendi(fake),
               "diversity": evaluate.diversity(fake, groups).mean() if settings.repeats > 1 else np.nan,
               "saturated": float((evaluate.saturation(images) > limit).mean()), "duplicated": float(judge.duplicated(number, wants).mean()),
               "hits": "".join(".x"[int(h)] for h in hits["all"])}


def main(settings):
    """Train and measure one point; its rows and manifest are in runs/<scale>/study/<key>."""
    if settings.scale == "sd15":
        raise config.ConfigError("experiments know the toy world only: run them at scale 'smoke' or 'toy'")
    if settings.precision != "no":
        raise config.ConfigError("experiments train in single precision: leave `precision` at 'no'")
    run = runs.Run(f"study/{config.key(settings)}", settings, needs=["prompts", "generate", "feedback", "reward"])
    if runs.manifest(settings.scale, "reward")["settings"]["weighted"]:
        raise config.ConfigError("experiments train the reward on labels of equal weight: run notebook 04_reward without `weighted`")
    table = runs.table(run.read("prompts", "prompts.csv"), ("prompt", "use", "category", "split"))
    pipe, clip = diffusion.load(settings.pipeline), reward.Clip(settings.clip)
    reader, unet, about = judge.reader_of(settings.judge, clip), pipe.unet, {}
    if settings.arm != "none":
        known = labelled(run, clip)
        pictures = drawn(run, pipe, reader, clip, table) if settings.drawn else known
        weight = weigh(run, known, pictures, clip)
        if not weight.all() and (settings.coefficient == 0 or settings.baseline):
            raise config.ConfigError("a point that leaves images out needs a coefficient above zero and no baseline: else their weight of 0 would not stay 0")
        power = weight**settings.coefficient * (weight > 0)
        about = {"purity": float(power[pictures.rows.truth > 0.5].sum() / power.sum()),   # share of the weight on truly right images
                 "labels": int(known.rows.label.notna().sum()) if settings.arm in ("reward", "shuffled", "labels") else 0,
                 "images": settings.kept or len(weight)}
        unet = tuned(run, pipe, pictures, weight)
    score, rows = reward.load(run.read("reward", "model"), clip), []
    for split in settings.splits:
        use = {"validation": "tune", "seen": "label"}.get(split, "evaluate")
        of = table[(table.use == use) & (table.split == split) & (table.category == "combination")].head(settings.prompts)
        rows += [{"split": split, **row} for row in measure(pipe, unet, reader, score, of, settings)]
    run.csv("rows.csv", [row | about | {"settings": json.dumps(config.as_dict(settings))} for row in rows])
    run.finish()


def make(scale, name):
    """Run the points of sweep `name` that this machine's runs do not hold yet."""
    for point, given in config.points(SWEEPS, scale, [name]).items():
        try:
            runs.manifest(scale, f"study/{point}")
        except runs.ArtifactError:
            main(config.settings("study", **given))


def basis(scale):
    """What the points of a scale rest on, in 12 characters alike on all machines: prompts, base model, the settings behind images, labels and
    reward, and the people among the raters."""
    given = {stage: {name: runs.manifest(scale, stage)["settings"][name] for name in names} for stage, names in BEHIND.items()}
    raters = runs.table(runs.result(scale, "feedback", "raters.csv"), ("rater", "labels"))
    people = raters[~raters.rater.astype(str).str.fullmatch(r"simulated-\d+|careless")][["rater", "labels"]].to_numpy().tolist()
    parts = [given, runs.manifest(scale, "generate")["inputs"], *[people] * bool(people)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def held(scale):
    """The table and manifest of every point that this machine's runs hold, the newest last; points of an older reward are left out."""
    found = []
    for path in (runs.root() / scale / "study").glob("*/rows.csv"):
        try:
            found.append((path, runs.manifest(scale, f"study/{path.parent.name}")))
        except runs.ArtifactError:
            continue
    return sorted(found, key=lambda point: point[1]["finished"])


def finished(scale):
    """The rows of every point `held`, with where and when they were made."""
    found = [runs.table(path, ("settings", "split", "hits")).assign(made=made["finished"][:10], device=made["device"], seconds=made["seconds"])
             for path, made in held(scale)]
    return pd.concat(found, ignore_index=True).assign(asked=basis(scale)) if found else pd.DataFrame()


def settings_of(rows):
    """The settings behind each of `rows`; a parameter that is newer than the row has its default."""
    return [config.settings("study", **{k: v for k, v in json.loads(text).items() if k in config.Study.__dataclass_fields__}) for text in rows.settings]


def record(scale="toy"):
    """Add every finished point to the record, in place of earlier rows of the same point and `basis`. A JSON beside it says how."""
    points, new = held(scale), finished(scale)
    if not points:
        raise runs.ArtifactError(f"no finished point at scale {scale!r} to record: run `make sweeps` first")
    both = pd.concat([runs.table(RECORD, ("settings", "split", "asked")), new], ignore_index=True) if RECORD.exists() else new
    both = both.assign(key=[config.key(s) for s in settings_of(both)]).drop_duplicates(["key", "split", "guidance", "asked"], keep="last")
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    part = RECORD.with_suffix(".part")
    both.sort_values(["settings", "split", "guidance"]).drop(columns="key").to_csv(part, index=False)
    part.replace(RECORD)
    made = {k: points[-1][1][k] for k in ("inputs", "versions", "device", "finished")}
    RECORD.with_suffix(".json").write_text(json.dumps({"command": "make sweeps", "points": both.key.nunique(), "last added": made}, indent=1) + "\n")
    print(f"{len(both)} rows of {both.key.nunique()} points in {RECORD.name}")


def sweep(scale, name):
    """The rows of sweep `name`, the record's and those of this machine's runs, with a column for every setting; and a sentence on what is there."""
    wanted, other = config.points(SWEEPS, scale, [name]), 0
    kept = runs.table(RECORD, ("settings", "split", "hits", "asked")) if RECORD.exists() else pd.DataFrame()
    parts = [part.assign(source=source) for part, source in ((kept, "recorded"), (finished(scale), "this run")) if len(part)]
    rows = pd.DataFrame(columns=["key", "split", "guidance", "source", "hits", *prompts.ATTRIBUTES, *MEASURES, *config.Study.__dataclass_fields__])
    if parts:
        rows = pd.concat(parts, ignore_index=True)
        given = settings_of(rows)
        told = pd.DataFrame([config.as_dict(g) for g in given], rows.index).drop(columns=["splits", "guidances", "scale", "prompts"])
        rows = rows.drop(columns="settings").join(told).assign(key=[config.key(g) for g in given])
        rows = rows[rows.key.isin(wanted)]
        same = rows.asked == (basis(scale) if len(rows) else "")
        other, rows = (~same).sum(), rows[same].drop_duplicates(["key", "split", "guidance", "source"], keep="last").copy()
        rows.loc[rows.arm == "constant", "coefficient"] = 0.0  # one weight for all is any weight to the power 0
    said = f"{rows.key.nunique()} of the {len(wanted)} points of sweep *{name}* (`make sweeps sweep={name}`) are here"
    for source, of in rows.groupby("source"):
        said += f"; {source}: {of.key.nunique()}" + f" ({', '.join(sorted(set(of.made)))}; {', '.join(sorted(set(of.device)))})" * (source == "recorded")
    return rows, said + f"; {other} rows are left out, for they rest on other prompts, images or labels" * bool(other) + "."


def per_prompt(row):
    """Share of right pictures of every prompt, (P,)."""
    hits = np.array(list(row.hits)) == "x"
    return hits.reshape(row.repeats, -1).mean(0)


def effects(rows, by):
    """For every value of the settings `by`, split, guidance and source: what all seeds' models reach, and how far they are from the base model.

    The difference is taken prompt by prompt, from rows of the same source where there are some. Adds Holm's correction over all lines of one source.
    """
    table = []
    for values, part in rows[rows.arm != "none"].groupby([*by, "split", "guidance", "source"], sort=False):
        names = dict(zip((*by, "split", "guidance", "source"), values, strict=True))
        base = rows[(rows.arm == "none") & (rows.split == names["split"]) & (rows.guidance == names["guidance"])]
        if not len(base):
            continue
        own = base[base.source == names["source"]]
        base = (own if len(own) else base).iloc[0]
        share = np.stack([per_prompt(r) for r in part.itertuples()])
        table.append({**names, "share": share.mean(), **evaluate.over_seeds(share - per_prompt(base)), **{c: part[c].mean() for c in MEASURES if c in part},
                      "ratio": part.frechet.mean() / base.frechet})
    columns = [*by, "split", "guidance", "source", "share", *evaluate.over_seeds([[0, 0]]), *MEASURES, "ratio"]
    table = pd.DataFrame(table, columns=columns)
    return table.assign(holm=table.groupby("source").p.transform(lambda p: evaluate.holm(p.to_numpy())))


def pairs(rows, more, less):
    """Tuned points `more` beside those `less` (both queries) of the same seed, split and guidance, whose columns end in "_less"; the record's if it has any."""
    tuned = rows[rows.arm != "none"]  # the base model's settings mean nothing
    for _, of in tuned.groupby("source"):
        found = of.query(more).merge(of.query(less), on=["seed", "split", "guidance"], suffixes=("", "_less"))
        if len(found):
            return found
    return tuned.head(0)


def between(rows, more, less, of=None):
    """What points `more` reach above points `less`, prompt by prompt and seed by seed, on the prompts `of` (bool, in their order) or all of them:
    `evaluate.over_seeds` and the rows' "source"; None without a pair."""
    found = pairs(rows, more, less)
    each = [per_prompt(r) - per_prompt(r._replace(hits=r.hits_less)) for r in found.itertuples()]
    if not each:
        return None
    kept = slice(None) if of is None else of[:len(each[0])]
    return evaluate.over_seeds(np.stack(each)[:, kept]) | {"source": found.source.iloc[0]}


def spoken(rows, more, less, of=None):
    """`between` as words."""
    gain = between(rows, more, less, of)
    if not gain:
        return "no rows yet"
    return f"{evaluate.in_points(*(gain[c] for c in ('difference', 'low', 'high')))} ({gain['seeds']} seed{'s' * (gain['seeds'] > 1)}, {gain['source']})"


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        config.command("study", main)
    else:
        try:
            record()
        except config.UserError as error:
            sys.exit(f"error: {error}")
