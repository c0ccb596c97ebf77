"""Figures of differences from the base model, with their intervals: lines, curves and a forest of them."""

import numpy as np

from .. import figures

GAIN = "points above the base model"
SOURCES = {"recorded": figures.ACCENT, "this run": figures.TUNED}


def steps(axis, updates):
    """An axis of updates, which count on a logarithmic scale, with a tick at each of some numbers of them."""
    axis.set(xscale="log", xlabel="updates")
    axis.set_xticks(updates, updates, rotation=90)
    axis.minorticks_off()


def lines(table, names, findings, by="source", colours=SOURCES, xlabel=GAIN):
    """Show differences from the base model under `findings`, a line each of `names`, a colour each of `by`.

    table: DataFrame with name, difference, low, high and `by`.
    """
    axis, drawn = figures.panel(0.42 * len(names) + 1.4), {}
    for (kind, colour), shift in zip(colours.items(), np.linspace(-0.14, 0.14, len(colours)), strict=True):
        of = table.query(f"`{by}` == @kind and name in @names")
        if len(of):
            drawn[kind] = colour
            figures.marks(axis, of.name.map(names.index) + shift, of, colour, "difference")
    axis.axvline(0, **figures.RULE)
    axis.set_xlabel(xlabel)
    figures.named(axis, names)
    figures.keys(axis, drawn)
    figures.show(axis, *findings)


def curves(table, x, by, inks, findings):
    """Show differences from the base model over the setting `x`, a curve for each value of `by`.

    table: DataFrame with `x`, `by`, difference, low and high; inks: {value: (words, colour)}.
    """
    axis = figures.panel(3.6)
    for value, (words, colour) in inks.items():
        of = table[table[by] == value].sort_values(x)
        if len(of):
            figures.curve(axis, of[x], of, colour, words, "difference")
    axis.axhline(0, **figures.RULE)
    axis.set(xlabel="guidance of sampling", ylabel=GAIN)
    if x == "updates":
        steps(axis, table[x].unique())
    figures.show(axis, *findings)


def forest(table, finding, xlabel):
    """Differences in percent with their intervals, a line each, under the heading of its group.

    table: DataFrame with group, name, difference, low, high and source. Returns the axis.
    """
    table = table.sort_values("group", kind="stable", key=lambda of: of.factorize()[0])
    heads = ~table.group.duplicated().to_numpy()
    y = np.arange(len(table)) + heads.cumsum()  # a line of its own for each heading
    axis = figures.panel(0.2 * (len(table) + heads.sum()) + 1.1)
    for source, colour in SOURCES.items():
        of = (table.source == source).to_numpy()
        figures.marks(axis, y[of], table[of], colour, "difference")
    for place, group in zip(y[heads] - 1, table.group[heads], strict=True):
        axis.text(0.01, place, group, transform=axis.get_yaxis_transform(), va="center", weight="bold")
    axis.axvline(0, **figures.RULE)
    axis.set_yticks(y, table.name, fontsize=8.5)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=xlabel, ylim=(y.max() + 0.7, -0.7))
    figures.titled(axis.figure, finding)
    return axis
