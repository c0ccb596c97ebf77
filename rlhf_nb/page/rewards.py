"""Figures of chapters 04 and 10: what a reward ranks rightly. Every panel's title says what it found."""

import textwrap

import matplotlib.pyplot as plt

from .. import figures, intervals

ACCURACY, GAIN = "pairs ranked rightly, %", "gain in points"
PALETTE = (figures.BASE, figures.ACCENT, figures.TUNED)


def told(row, value="share"):
    """A gain with its interval and the word for it; row: a dict or a DataFrame's row."""
    ends = row["low"], row["high"]
    word = intervals.verdict(*ends, ("better", "worse", "not told apart"))
    return f"{intervals.in_points(row[value], *ends)}, {word}"


def counted(words, rows):
    """`words`, and how many of the gains `rows` have an interval on one side of zero."""
    return f"{words}: {(rows.low > 0).sum()} better, {(rows.high < 0).sum()} worse"


def panels(*titles, width=3.7, height=2.6, **shared):
    """Axes side by side, each under its title."""
    size = width * len(titles), height
    _, axes = plt.subplots(1, len(titles), figsize=size, squeeze=False, **shared)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(textwrap.fill(title, round(10 * width)), fontsize=9, loc="left")
    return axes[0]


def dotted(parts, name, xlabel=ACCURACY, colours=(figures.TUNED,), **size):
    """Show a panel for each of `parts` {title: rows of share, low, high}, a line a row, named by `name`."""
    for axis, rows in zip(panels(*parts, **size), parts.values(), strict=True):
        for y in range(len(rows)):
            figures.marks(axis, [y], rows[y : y + 1], colours[y % len(colours)])
        figures.named(axis, rows[name])
        axis.set_xlabel(xlabel)
        if xlabel == GAIN:
            axis.axvline(0, **figures.RULE)
    plt.show()


def curves(title, xlabel, parts, x="value", **look):
    """The axis of curves of `parts` {name: rows} over their column `x`, each named at its end."""
    [axis] = panels(title, width=4.8, height=3)
    for (name, rows), colour in zip(parts.items(), PALETTE[::-1], strict=False):
        figures.curve(axis, rows[x], rows, colour, name)
        if len(rows) == 1:  # which has no band
            axis.errorbar(rows[x], 100 * rows.share, figures.whiskers(rows), color=colour)
    axis.margins(x=0.2)
    axis.set(xlabel=xlabel, **{"ylabel": ACCURACY, **look})
    return axis


def learning(log, floor):
    """Show both losses over the updates, and the least that prompt classification can reach."""
    words = {"mse": "the label error", "pc": "prompt classification"}
    titles = [f"{words[w]} goes from {log[w].iloc[0]:.2f} to {log[w].iloc[-1]:.2f}" for w in words]
    axes = panels(*titles, height=2.4)
    for axis, name in zip(axes, words, strict=True):
        axis.plot(log.step, log[name], color=figures.ACCENT)
        axis.set(xlabel="update", ylabel="loss")
    axes[1].axhline(floor, **figures.RULE)
    plt.show()


def sheet(images, rows, title):
    """Show pictures with their reward (`value`) and prompt, framed by their label."""
    names = [f"{row.value:.2f} {row.prompt}" for row in rows.itertuples()]
    figures.sheet(images[rows.index], names, 8, rows.label > 0.5, 1.1, title)
