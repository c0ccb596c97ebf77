"""What the points have found: their rows, this machine's and the recorded ones, sweeps and comparisons.

python -m rlhf_nb.study.record      every finished point into book/records/study.csv
"""

import contextlib
import sys
from itertools import compress
from operator import itemgetter

import numpy as np
import pandas as pd
from pydantic import Json
from scipy.stats import ttest_1samp

from .. import config, files, intervals, runs
from ..bounds import Split
from ..stages import Study
from . import points

MEASURES = "frechet reward vendi diversity saturated duplicated purity labels images seconds".split()
BEHIND = {  # settings of other stages that a point's rows rest on
    "generate": "seed guidance steps per_simple per_combination".split(),
    "feedback": "seed raters careless aggregation".split(),
    "reward": ["candidates", *points.HEAD],
}
RECORD = points.SWEEPS.parents[1] / "book" / "records" / "study.csv"
POINT = ["key", "split", "guidance", "mixed"]  # what a row is of
ROW = {"settings": str, "split": Split, "guidance": float, "n": float, "hits": str}
ORIGIN = {"asked": str, "made": str, "device": str, "seconds": float}  # of a recorded row


def basis(scale):
    """What the points of a scale rest on, in 12 characters alike on all machines.

    It stands for prompts, base model, the settings behind images, labels and reward, and the people among
    the raters.
    """
    given = {}
    for stage, names in BEHIND.items():
        settings = runs.settings_of(scale, stage)
        given[stage] = {name: settings[name] for name in names}
    parts = [given, runs.manifest(scale, "generate")["inputs"]]
    raters = files.read_table(runs.result(scale, "feedback", "raters.csv"), {"rater": str, "labels": int})
    people = raters[~raters.rater.str.fullmatch(r"simulated-\d+|careless")]
    if len(people):
        parts.append(people[["rater", "labels"]].to_numpy().tolist())
    return files.json_digest(parts)[:12]


def finished(scale):
    """The manifest of every point that this machine's runs hold, the newest last.

    Left out are points of an older reward, and of settings that are no more.
    """
    found, folder = [], runs.root() / scale / "study"
    with files.reading(folder):
        there = list(folder.glob("*/rows.csv"))
    for rows in there:
        with contextlib.suppress(files.ArtifactError):
            made = runs.manifest(scale, f"study/{rows.parent.name}")
            if made["settings"].keys() <= Study.model_fields.keys():
                found.append(made)
    return sorted(found, key=itemgetter("finished"))


def known(scale):
    """The recorded rows and those of this machine's finished points, which "source" tells apart."""
    parts = [files.read_table(RECORD, ROW | ORIGIN, "restore it").assign(source="recorded")]
    here = finished(scale)
    asked = basis(scale) if here else ""
    for made in here:
        rows = files.read_table(runs.result(scale, made["stage"], "rows.csv"), ROW)
        rows = rows.assign(made=made["finished"][:10], device=made["device"], seconds=made["seconds"])
        parts.append(rows.assign(asked=asked, source="this run"))
    rows = pd.concat(parts, ignore_index=True)
    whole = 1.0  # of the way from base to tuned model; older rows know no other
    return rows.assign(mixed=rows.mixed.fillna(whole) if "mixed" in rows else whole)


def described(rows):
    """`rows` with their point's "key" and, as the last columns, its settings, those of the method among them.

    A knob bears its name, after "knobs." where a setting has the same; a setting that is newer than a row has
    its default. Raises a UserError where a row is not whole.
    """
    texts = files.typed(
        list[Json[dict]], rows.settings.tolist(), "settings of points", f"restore {RECORD.name}"
    )
    given = [config.settings("study", **settings) for settings in texts]
    for hits, n, settings in zip(rows.hits, rows.n, given, strict=True):
        if len(hits) != n * settings.repeats:
            raise files.ArtifactError(
                f"a point of {n:.0f} prompts, {settings.repeats} pictures each, has {len(hits)} verdicts: "
                f"restore {RECORD.name}, or delete that point below study/ in your runs"
            )
    dials = pd.json_normalize([settings.model_dump(mode="json") for settings in given])
    short = {name: name.removeprefix("knobs.") for name in dials}
    dials = dials.rename(columns={name: own for name, own in short.items() if own not in dials})
    of_point = dials.drop(columns=["scale", "splits", "prompts", "guidances"])
    return rows.assign(key=[points.key(settings) for settings in given]).join(of_point)


def record(scale="toy"):
    """Add every finished point to the record, in place of earlier rows of the same point and `basis`.

    A JSON beside it says how. Raises ArtifactError where no point is finished.
    """
    new = finished(scale)
    if not new:
        raise files.ArtifactError(f"no finished point at scale {scale!r} to record: run `make sweeps` first")
    rows = known(scale)
    kept = described(rows).drop_duplicates([*POINT, "asked"], keep="last")
    rows = rows.loc[kept.index].drop(columns="source")
    last = {name: new[-1][name] for name in ("inputs", "versions", "device", "finished")}
    about = {"command": "make sweeps", "points": kept.key.nunique(), "last added": last}
    files.write_text(RECORD, rows.to_csv(index=False))
    files.write_json(RECORD.with_suffix(".json"), about)
    print(f"{len(kept)} rows of {kept.key.nunique()} points in {RECORD.name}")


def sweep(scale, name):
    """The rows of sweep `name`, described, that rest on what this machine's do; and a sentence on them."""
    wanted, rows = points.points(points.SWEEPS, scale, [name]), described(known(scale))
    rows = rows.query("key in @wanted and mixed == 1")
    same = rows.asked == (basis(scale) if len(rows) else "")
    here = rows[same].drop_duplicates([*POINT, "source"], keep="last")
    here.loc[here.arm == "constant", "power"] = 0.0  # one weight for all is any weight to the power 0
    how = f"sweep *{name}* (`make sweeps sweep={name}`)"
    said = f"{here.key.nunique()} of the {len(wanted)} points of {how} are here"
    for source, of in here.groupby("source"):
        said += f"; {source}: {of.key.nunique()}"
        if source == "recorded":
            said += f" ({', '.join(sorted(set(of.made)))}; {', '.join(sorted(set(of.device)))})"
    if not same.all():
        said += f"; {(~same).sum()} rows are left out, for they rest on other prompts, images or labels"
    return here, said + "."


def once(rows, by=POINT):
    """One of the rows that are alike in `by`: the record's, if it has it."""
    return rows.sort_values("source", kind="stable").drop_duplicates(by)


def per_prompt(rows):
    """Share of right pictures of every prompt in each of S rows, (S, P)."""
    hits = np.array([list(text) for text in rows.hits]) == "x"
    return hits.reshape(len(rows), rows.repeats.iloc[0], -1).mean(1)


def effects(rows, by):
    """What all seeds' models reach for every value of the settings `by`, split, guidance and source, and how
    far they are from the base model.

    The difference is taken prompt by prompt, from rows of the same source where there are some. Adds Holm's
    correction over all lines of one source.
    """
    groups, table = [*by, "split", "guidance", "source"], []
    for _, part in rows[rows.arm != "none"].groupby(groups, sort=False):
        of = part.iloc[0][groups]
        base = rows.query("arm == 'none' and split == @of.split and guidance == @of.guidance")
        base = pd.concat([base[base.source == of.source], base]).head(1)
        if len(base):
            share = per_prompt(part)
            effect = intervals.over_seeds(share - per_prompt(base))
            ratio = part.frechet.mean() / base.frechet.item()
            table.append({**of, "share": share.mean(), **effect, **part[MEASURES].mean(), "ratio": ratio})
    columns = [*groups, "share", *intervals.over_seeds([[0, 0]]), *MEASURES, "ratio"]
    table = pd.DataFrame(table, columns=columns)
    return table.assign(holm=table.groupby("source").p.transform(intervals.holm))


def pairs(rows, more, less):
    """Tuned points `more` beside those `less` (both queries) of the same seed, split, guidance and source.

    The columns of the latter end in "_less". All are of one source: the record if it has any.
    """
    tuned = rows[rows.arm != "none"]  # the base model's settings mean nothing
    same = ["seed", "split", "guidance", "source"]
    found = tuned.query(more).merge(tuned.query(less), on=same, suffixes=("", "_less"))
    return found[found.source == found.source.min()]


def only(rows, of):
    """`rows` with their verdicts on the prompts `of` (bool, in their order) alone."""
    kept, of = [], np.asarray(of)
    for hits, n in zip(rows.hits, rows.repeats, strict=True):
        each = of[: len(hits) // n]  # the split may hold more prompts than were measured
        kept.append("".join(compress(hits, np.tile(each, n))))
    return rows.assign(hits=kept)


def parted(rows, groups):
    """`rows` with their verdicts on groups of prompts alone, {words: bool, as `only` takes it}, as splits."""
    return pd.concat([only(rows, of).assign(split=words) for words, of in groups.items()])


def between(rows, more, less):
    """What points `more` reach above points `less`, prompt by prompt and seed by seed.

    `intervals.over_seeds`, and the former's "source", "split" and "updates"; None without a pair.
    """
    found = pairs(rows, more, less)
    if not len(found):
        return None
    gain = per_prompt(found) - per_prompt(found.assign(hits=found.hits_less))
    return intervals.over_seeds(gain) | dict(found.iloc[0][["source", "split", "updates"]])


def trainings(seeds):
    """A number of training seeds in words."""
    return "1 seed" if seeds == 1 else f"{seeds:.0f} seeds"


def in_points(row):
    """The difference of a row, a dict or Series, and its interval as words."""
    return intervals.in_points(row["difference"], row["low"], row["high"])


def over_trainings(values):
    """Mean of one value a training seed (S,), with its t-interval; all NaN for fewer than two seeds."""
    found = [np.nan] * 4
    if len(values) > 1:
        found = [values.mean(), *ttest_1samp(values, 0).confidence_interval(), len(values)]
    return dict(zip(("difference", "low", "high", "seeds"), found, strict=True))


def show(table, *columns):
    """The named columns of `effects` and the effect of every line, in points."""
    effect = (100 * table[["share", "difference", "low", "high", "sd"]]).round(1)
    told = table[["source", *columns]].join(effect)
    return told.assign(p=[f"{p:.1g}" for p in table.holm], seeds=table.seeds).round(2)


if __name__ == "__main__":
    try:
        record()
    except config.UserError as error:
        sys.exit(f"error: {error}")
