"""Figures and words of chapter 12, from the tables of study.standings; without rows they say so."""

import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

from .. import figures
from ..study import record
from ..study.standings import CONTROL, PAPER
from . import differences
from .rewards import panels

NONE = "No rows yet: `make sweeps sweep=league` makes them, an hour or so each."
TRUTH, REWARD = "points of truly right pictures", "hundredths of learnt reward"


def marks(stand):
    """{row: colour} of those that figures name: the first three, the paper's and the control."""
    first = stand.row[~stand.row.isin([PAPER, CONTROL])].head(3)
    return {**dict.fromkeys(first, figures.ACCENT), PAPER: figures.TUNED, CONTROL: figures.BASE}


def dots(table, group, finding, xlabel=differences.GAIN):
    """Show differences with intervals, from the top, under the heading `group`, words or a column."""
    if len(table):
        differences.forest(table.assign(name=table.row, group=group), finding, xlabel)
    else:
        panels("No rows yet", width=4.6, height=0.6)[0].set_axis_off()
    plt.show()


def lines(named, table, *parts):
    """Show a panel for each of `parts`, (finding, x, y, label of x, label of y), with a line a "row".

    named: {row: colour} of those that have a colour and a name.
    """
    axes = panels(*(part[0] if len(table) else "No rows yet" for part in parts), width=4.6, height=3.4)
    for axis, (_, x, y, xlabel, ylabel) in zip(axes, parts, strict=True):
        axis.axhline(0, **figures.RULE)
        axis.margins(x=0.15)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        above = {}  # where names stand, which must not overlap
        for row, of in sorted(table.groupby("row"), key=lambda group: group[1][y].iloc[-1]):
            ink = named.get(row, "#8884")
            axis.plot(of[x], 100 * of[y], ".-", color=ink)
            if row in named:
                least = max(above.values(), default=-np.inf) + 0.05 * np.ptp(100 * table[y])
                above[row] = max(100 * of[y].iloc[-1], least)
                axis.text(of[x].iloc[-1], above[row], f" {row.split(' (')[0]}", color=ink, fontsize=8)
    plt.show()


def rising(named, curves, truth, reward):
    """Show `standings.curves` of truth and learnt reward over compute, each under what it found."""
    lines(
        named, curves, (truth, "tflop", "true", "TFLOP", TRUTH), (reward, "tflop", "reward", "TFLOP", REWARD)
    )


def listed(table):
    """The first of the league's `gains`, the paper's row and the control: at most eight rows."""
    held = table[table.split == "heldout"].set_index("row")
    if not len(held):
        return Markdown(NONE)
    held = held[held.index.isin([*held.index[:6], PAPER, CONTROL])]
    shown = 100 * table.pivot(index="row", columns="split", values="difference").loc[held.index]
    rest = held[["drift", "ratio", "seconds"]].map("{:.4g}".format).agg("; ".join, axis=1)
    shown = shown.assign(**{"reward gap": 100 * held.gap, "drift; Fréchet; seconds": rest})
    return shown.drop(columns="validation").round(1)


def seen(stand, rows, knob, lead, hold):
    """The bullets that answer the page: what to try first, what to watch, and what the sources say of it.

    lead: the first of `stand` and those that cannot be told apart from it; knob: {row: its tuned knob}.
    """
    if not {*lead} & {*stand.row}:
        return Markdown(f"- {NONE}")
    quick = stand[stand.row.isin(lead) & (stand.row != CONTROL)].sort_values("seconds")
    first, worst = quick.iloc[0], stand.loc[stand.gap.idxmax()]
    value = json.loads(rows[rows.row == first.row].settings.iloc[0])["knobs"][knob[first.row]]
    none = "; the control is among these, so no method has shown its worth" * (CONTROL in lead)
    return Markdown(
        f"- Try first: **{first.row}**, the quickest of the {len(lead)} rows that lead or cannot be told "
        f"apart from the leader{none}. Learning rate {first.lr:g}, `{knob[first.row]}` {value}, guidance "
        f"{first.own:g}: {record.in_points(first)} on {first.n} held-out prompts after {first.spent:.0f} "
        f"TFLOP, {first.seconds / 60:.0f} minutes, {record.trainings(first.seeds)}.\n"
        f"- Watch the drift, {first.drift:.1g} in that row, and the learnt reward beside some pictures "
        f"judged by eye: it is farthest above the truth in {worst.row}, by {100 * worst.gap:.1f} "
        f"hundredths.\n- {hold}."
    )
