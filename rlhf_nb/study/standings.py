"""How the league stands: what the final points of its rows, and of the trainings beside them, gain."""

import json

import pandas as pd

from .. import intervals
from ..page.tables import EFFECT
from . import league, points, record

BASE, PAPER, CONTROL = "the base model", "reward weighting (the paper)", "control: random weights"
MEASURES = "reward drift denoising frechet diversity seconds spent drawn trained lr own".split()
GROUP = ["study", "row", "split", "mixed"]
GAINS = [*GROUP, *EFFECT, "p", "seeds", "n", *MEASURES, "ratio", "gap", "moved", "source"]


def rows(scale):
    """The final rows of all points, one a point, split, guidance and step of mixing, with their "study"
    ("league", or one beside it), "row", and "own", the guidance that is best for it on validation prompts.
    """
    known, plan = record.once(league.known(scale), record.POINT), league.plan()
    made = {
        (study, words): of
        for study in plan.beside
        for words, of in league.beside(scale, study, known).items()
    }
    made |= {("league", name): league.Line(scale, name, known).final(plan.again.seeds) for name in plan.rows}
    made["league", BASE] = [league.base(scale, pipeline=of) for of in known.pipeline.unique()]
    names = {points.key(settings): name for name, of in made.items() for settings in of}
    known = known[known.key.isin(names)]
    whole = known[(known.split == "validation") & (known.mixed == 1)]
    best = whole.loc[whole.groupby("key")["all"].idxmax()].set_index("key").guidance
    study, row = ([names[key][i] for key in known.key] for i in (0, 1))
    return known.assign(study=study, row=row, own=known.key.map(best))


def gains(rows):
    """What every row gains above its base model, the most first: a line for each study, row, split and step.

    rows: one guidance a point. "reward" is the gain in learnt reward, "gap" what it has above the true one,
    "ratio" that of Fréchet distances, "moved" the drift of the step.
    """
    lines = []
    for group, part in rows[rows.row != BASE].groupby(GROUP, sort=False):
        base = rows[(rows.row == BASE) & (rows.split == group[2]) & (rows.pipeline == part.pipeline.iloc[0])]
        if len(base):
            effect = intervals.over_seeds(record.per_prompt(part) - record.per_prompt(base))
            more = part[[*GROUP, "source"]].iloc[0]
            lines.append({**more, **effect, **part[MEASURES].mean()})
            lines[-1]["reward"] -= base.reward.item()
            lines[-1]["ratio"] = part.frechet.mean() / base.frechet.item()
    table = pd.DataFrame(lines, columns=GAINS).astype(dict.fromkeys([*EFFECT, *MEASURES], float))
    table = table.assign(gap=table.reward - table.difference, moved=table.drift * table.mixed**2)
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def pair(a, b):
    """Queries of two rows, as `compared` takes them."""
    return f"row == {a!r}", f"row == {b!r}"


def compared(rows, pairs, study="league"):
    """What the first of two queries gains above the second, a line for each of `pairs`, {words: queries}.

    On held-out prompts, each at its own best guidance, in the league and `study`; "holm" is p after Holm's
    correction for all pairs, those without points among them.
    """
    held = rows[rows.study.isin(["league", study]) & (rows.split == "heldout") & (rows.guidance == rows.own)]
    held = held.assign(guidance=0.0)  # or `between` would not take them for a pair
    lines = [
        {"row": words.format("above"), **(record.between(held, *queries) or {"p": 1.0})}
        for words, queries in pairs.items()
    ]
    table = pd.DataFrame(lines, columns=["row", *EFFECT, "p", "seeds", "n", "source"])
    return table.assign(holm=intervals.holm(table.p))


def beside(rows, study):
    """`compared` of the trainings of a study with the rows that they change; those that are there."""
    pairs = {words: pair(words, of.row) for words, of in league.plan().beside[study].items()}
    return compared(rows, pairs, study).dropna(subset="difference")


def curves(rows):
    """What truth and learnt reward have risen by, means over seeds: a line for each study, row and "step",
    the share of its compute, which is "tflop".
    """
    each = [
        pd.DataFrame(json.loads(row.curve)).assign(study=row.study, row=row.row, tflop=row.spent)
        for row in rows[rows.row != BASE].drop_duplicates("key").itertuples()
    ]
    columns = ["study", "row", "step", "tflop", "true", "reward"]
    table = pd.concat([pd.DataFrame(columns=columns), *each])
    table = table.groupby(columns[:3], sort=False, as_index=False).mean()
    start = table.groupby(columns[:2])[columns[4:]].transform("first")
    return table.assign(tflop=table.tflop * table.step, **table[columns[4:]] - start)
