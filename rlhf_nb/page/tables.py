"""Tables that the chapters show and keep: a line for each group of measured rows.

Rows are a DataFrame with a bool column for what was judged, and "group", the model that drew.
"""

import re
from base64 import b64encode

import numpy as np
import pandas as pd
from IPython.display import HTML

from .. import files, intervals

EFFECT = ["difference", "low", "high"]
SPLITS = {
    "seen": "seen prompts",
    "heldout": "held-out prompts",
    "unseen": "unseen objects",
    "ood": "out of distribution",
}


def read(run, place):
    """A table that another stage has kept, "stage/name"."""
    return files.read_table(run.read(*f"{place}.csv".split("/")))


def folded(summary, **tables):
    """Tables of any length by name under a line that opens them, each with its CSV to download."""
    parts = []
    for name, table in tables.items():
        packed = b64encode(table.to_csv(index=False).encode()).decode()
        link = f'<a download="{name}.csv" href="data:text/csv;base64,{packed}">{name}.csv</a>'
        with pd.option_context("display.max_colwidth", None):
            parts += link, table.to_html(index=False, float_format="{:.4g}".format, na_rep="")
    opened = f"<summary>{re.sub('[*`]', '', summary)}</summary>{''.join(parts)}"
    return HTML(f'<details style="overflow-x: auto">{opened}</details>')


def _grouped(rows, by, measure):
    """A line for each group of `rows`: by, then what `measure` says of the group, a dict."""
    found = rows.groupby(by, observed=True).apply(measure, include_groups=False)
    return pd.DataFrame([*found], found.index).reset_index()


def shares(rows, by, what="all"):
    """How often `what` is right in each group of `rows`: by, share, low, high, the mean reward, n."""

    def share(part):
        return {**intervals.proportion(part[what]), "reward": float(part.reward.mean()), "n": len(part)}

    return _grouped(rows, by, share)


def judged(verdicts):
    """Verdicts on the final prompts with "group", who drew, and their splits' names, both in their order."""
    return verdicts.assign(
        group=pd.Categorical(verdicts.condition, verdicts.condition.unique()),
        split=pd.Categorical(verdicts.split.map(SPLITS), SPLITS.values()),
    )


def paired(rows, by, what="all"):
    """The paired test of tuned against base model in each group of `rows`: by, then as `intervals.paired`."""

    def test(part):
        return intervals.paired(*(part[what][part.group == model] for model in ("base", "tuned")))

    return _grouped(rows, by, test)


def lead(votes):
    """Wins less losses in n comparisons, with a normal interval."""
    win, lose = votes.win / 100, votes.lose / 100
    gap = win - lose
    width = 1.96 * np.sqrt((win + lose - gap**2) / votes.n)
    return votes.assign(difference=gap, low=gap - width, high=gap + width)


def stacked(tables, name):
    """Tables by name, {name: DataFrame}, one below the other."""
    return pd.concat(tables, names=[name]).droplevel(1).reset_index()
