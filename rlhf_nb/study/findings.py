"""What a sweep says in words: the comparisons of comparisons.yaml as sentences, its tables folded away."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from .. import config, files, intervals
from ..page import tables
from ..page.tables import EFFECT, SPLITS
from . import points, record

COMPARED = points.SWEEPS.with_name("comparisons.yaml")
VERBS = {  # what a verdict says of a gain
    "borne out": "gained more than",
    "refuted": "gained less than",
    "undecided": "could not be told apart from",
}
DIALS = (  # settings that tell points apart
    "arm updates power beta baseline rows_by model_batch pre_batch raters error label_share unlabelled "
    "drawing_guidance objects"
).split()


def gains(scale, names):
    """What every setting of the named sweeps reaches above the base model, a line each: the record's, if it
    has it.
    """
    lines = [record.effects(record.sweep(scale, name)[0], DIALS) for name in names]
    return record.once(pd.concat(lines), [*DIALS, "split", "guidance"])


def compared(rows, name):
    """A line for each comparison of sweep `name` (comparisons.yaml): the "finding" in words, `between`."""
    form, lines = dict[str, dict[str, tuple[str, str]]], []
    every = files.typed(form, config.read(COMPARED), COMPARED, "restore it")
    for words, queries in every.get(name, {}).items():
        gain = record.between(rows, *queries) or {}
        said = gain and VERBS[intervals.verdict(gain["low"], gain["high"])]
        lines.append({"finding": words.format(said or "could not yet be compared with"), **gain})
    return pd.DataFrame(lines, columns=["finding", *EFFECT, "seeds", "n", "split", "updates", "source"])


def how(row):
    """An effect, with its prompts, updates, seeds and source; nothing where there is none."""
    if np.isnan(row["difference"]):
        return ""
    on = f"{row['n']:.0f} {SPLITS.get(row['split'], row['split'] + ' prompts')}, {row['updates']:.0f} updates"
    return f": {record.in_points(row)} ({on}, {record.trainings(row['seeds'])}, {row['source']})"


class Look(NamedTuple):
    """What a sweep has found: its rows, a line a setting, the `compared` lines, and all of it folded."""

    rows: pd.DataFrame
    table: pd.DataFrame
    found: pd.DataFrame
    more: HTML

    def so(self, *which):
        """The sentences that end a section: what those of the comparisons have found."""
        said = [f"{row['finding']}{how(row)}" for row in self.found.iloc[[*which]].to_dict("records")]
        return Markdown(f"**So:** {'. '.join(said)}.")


def look(run, name, by, *columns, among=lambda rows: rows):
    """A Look at sweep `name`, with a line for every value of `by`, which `run` keeps as a table.

    What is compared is what `among` makes of the rows; the folded view shows `columns` too.
    """
    rows, said = record.sweep(run.settings.scale, name)
    table = run.csv(f"{name}.csv", record.effects(rows, by).drop(columns="seconds"))
    found = compared(among(rows), name)
    in_percent = found.assign(**100 * found[EFFECT].astype(float))
    shown = {name: record.show(table, "split", *by, *columns), f"{name}_compared": in_percent}
    return Look(rows, table, found, tables.folded(said, **shown))
