"""What the paper (E) and its review (R) claim, held against the run: notebooks/claims.yaml says what decides.

Every line has an effect and its interval, and is borne out where all of the interval lies above zero.
"""

import textwrap

import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import t

from .. import config, evaluate, figures, files, intervals
from ..study import points, record
from . import differences
from .tables import EFFECT, SPLITS, lead, read

CLAIMS = points.SWEEPS.with_name("claims.yaml")
WORDS = "code claim paper over where".split()
LINE = [*WORDS[:3], "here", "over", "verdict", "after Holm", "where"]
ORDER = ("borne out", "refuted", "undecided", "no result", "to see")  # the sure ones first
COLOURS = {"borne out": figures.GOOD, "refuted": figures.BAD, "undecided": "grey"}  # as pictures are framed


def weakest(run):
    """How much rarer the number is right than the attribute closest to it, in the base model's pictures."""
    whole = "condition == 'base' and category == 'combination' and split == 'heldout'"
    hits = read(run, "evaluate/verdicts").query(whole)
    others = hits[["colour", "background", "object"]].astype(float).sub(hits["count"], axis=0)
    return pd.DataFrame([intervals.over_seeds(others[a]) for a in others]).nsmallest(1, "difference")


def harder(run):
    """How many more pictures are good of other simple prompts, and of combinations, than of counts."""
    by_category = read(run, "feedback/labels").query("use == 'label'").groupby("category")
    shares = {c: intervals.clustered(of.truth, of.prompt) for c, of in by_category}
    shares = pd.DataFrame(shares).T
    simple = shares.share[["colour", "background"]].idxmin()
    more = intervals.apart(shares.loc[[simple, "combination"]], shares.loc["count"])
    return pd.DataFrame(more).rename_axis("than").reset_index()


def novelty(run):
    """How much better the reward ranks pictures of the prompts nearest to labelled ones than far ones."""
    quarters = read(run, "stress/novelty")
    return pd.DataFrame([intervals.apart(quarters.iloc[0], quarters.iloc[-1])])


def diversity(run):
    """How much farther apart pictures of one prompt lie after tuning, as a share of the base model's."""
    table = read(run, "evaluate/diversity")
    return table.assign(**table[EFFECT].div(table.base, axis=0))


def below(run):
    """How far below the claim's margin the tuned model's Fréchet distance is, over the base's."""
    numbers = files.read_json(run.read("evaluate", "numbers.json"))
    ratio = [evaluate.MARGIN - numbers[c] for c in ("frechet_ratio", "ratio_high", "ratio_low")]
    return pd.DataFrame([ratio], columns=EFFECT)


def trainings(run):
    """The same of models trained anew from several seeds, a row for each length of training."""
    rows = [record.sweep(run.settings.scale, name)[0] for name in ("headline", "longer")]
    by = ["arm", "updates", "seed"]
    seeds = record.effects(pd.concat(rows).query("split == 'heldout'"), by)
    seeds = record.once(seeds, by).query("arm == 'reward'").groupby("updates").ratio
    return pd.DataFrame(
        [{"updates": u, **record.over_trainings(evaluate.MARGIN - r)} for u, r in seeds]
    ).dropna()


OWN = {f.__name__: f for f in (weakest, harder, novelty, diversity, below, trainings)}


def table_of(run, name):
    """The table that a claim is about: one of those above, or another chapter's."""
    if name in OWN:
        return OWN[name](run)
    found = read(run, name)
    if "updates" in found:  # its splits have their short names
        found = found.replace({"split": SPLITS})
    return lead(found) if "win" in found else found


def rows_of(run, claim):
    """The rows that a claim is about, dicts; what points of a sweep reach is one."""
    if "table" in claim:
        return table_of(run, claim["table"]).query(claim.get("query", "index == index")).to_dict("records")
    row = {"over": "prompts", "where": f"sweep {claim['sweep']}"}
    gain = record.between(record.sweep(run.settings.scale, claim["sweep"])[0], claim["more"], claim["less"])
    if not gain:
        return [row | dict.fromkeys([*EFFECT, "seeds"], np.nan)]
    if gain["seeds"] > 1:
        row["over"] += f", {gain['seeds']} seeds"
    return [row | gain | {"where": f"{row['where']}, {gain['source']}"}]


def lines_of(run, claim):
    """The lines of a claim; their effects are positive where it is right."""
    words = {"paper": "", "over": "{over}", "where": "{where}", "effect": "difference"} | claim
    sign = words.get("sign", 1)
    for row in rows_of(run, claim):
        line = {name: words[name].format(**row) for name in WORDS}
        line["difference"] = sign * row[words["effect"]]
        line["low"], line["high"] = sorted((sign * row["low"], sign * row["high"]))
        yield line | {"free": row["seeds"] - 1 if "student" in claim else np.inf}


def found(run):
    """Every line of every claim: `LINE`, the effect, and p by its interval as of a normal or Student's law.

    The verdict "after Holm" is what remains when all lines are corrected together.
    """
    lines = [line for claim in config.read(CLAIMS)["claims"] for line in lines_of(run, claim)]
    table = pd.DataFrame(lines)
    table = table.sort_values("code", kind="stable", ignore_index=True)
    table = table.replace(" prompt classification", " L_pc", regex=True)
    known = table.query("high > low")
    scaled = 2 * known.difference.abs() / (known.high - known.low)
    p = 2 * t.sf(scaled * t.ppf(0.975, known.free), known.free)
    table.loc[known.index, "p"] = intervals.holm(p)
    table["here"] = [record.in_points(row).replace(" points", "") for row in table.to_dict("records")]
    table["verdict"] = [*map(intervals.verdict, table.low, table.high)]
    table.loc[table.difference.isna(), ["here", "verdict"]] = "no rows yet", "no result"
    weak = table.verdict.isin(("borne out", "refuted")) & ~(table.p < 0.05)
    return table.assign(**{"after Holm": table.verdict.mask(weak, "undecided")})


def main_lines(table):
    """One line for each result and demand, its first of `found`, the surest first.

    Adds "see", where to look, "said", the verdict in words, and "lines", how all its lines ended.
    """
    lines = []
    for code, about in config.read(CLAIMS)["main"].items():
        of = table.query("code == @code")
        ends = of["after Holm"].value_counts()
        first = of.iloc[0] if len(of) else {"here": "", "after Holm": "to see"}
        verdict = first["after Holm"]
        said = f"**not reproduced** ({verdict})" if code < "R" and verdict in ORDER[1:3] else verdict
        ended = ", ".join(f"{ends[word]} {word}" for word in ORDER if word in ends)
        lines.append({**first, "code": code, **about, "said": said, "lines": ended})
    main = pd.DataFrame(lines)
    rank = main["after Holm"].map(ORDER.index)
    return main.assign(rank=rank).sort_values(["rank", "p"], ignore_index=True)


def summary(table):
    """How many lines of a table ended how, in words."""
    ends = table["after Holm"].value_counts()
    told = [f"{ends.get(word, 0)} {word}" for word in ORDER if word in ends or word in ORDER[:3]]
    return ", ".join(told)


def listed(main):
    """The `main_lines` as a list to read."""
    heads = "| | claim | this run | verdict | all its lines | look |\n|---|---|---|---|---|---|\n"
    columns = main[["code", "claim", "here", "said", "lines", "see"]]
    return Markdown(heads + "".join(f"| {' | '.join(row)} |\n" for row in columns.to_numpy()))


def forest(main):
    """Show how far each of the `main_lines` is from being undecided, in half-widths of its interval."""
    known = main.query("`after Holm` != 'to see'")
    names = [textwrap.fill(f"{row.code} {row.claim}", 36) for row in known.itertuples()]
    scaled = known[EFFECT].mul(0.02 / (known.high - known.low), axis=0).assign(name=names)
    differences.lines(
        scaled.join(known["after Holm"]),
        names,
        [f"Of {len(known)} claims: {summary(known)}"],
        "after Holm",
        COLOURS,
        "effect, in half-widths of its interval",
    )
