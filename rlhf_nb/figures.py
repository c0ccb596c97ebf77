"""Figures that teach: contact sheets, shares with intervals, and pictures that move without a kernel."""

import io
import textwrap
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

# the same three colours for the same three things in every chapter
BASE = "#7f8fa6"
TUNED = "#d1495b"
ACCENT = "#2e86ab"
GOOD, BAD = "#2a9d4a", "#c0392b"  # pictures, by people or the judge
ELSEWHERE = "#b7791f"  # what others measured, beside our own
RIGHT, REST = "#8fc79c", "#e3e3e3"  # of what is shared out: what all find right, and what decides nothing
INK = "#737a86"  # of words and axes: as readable on a light page as on a dark one, through a clear ground
RULE = {"color": "grey", "linewidth": 1, "linestyle": ":"}  # where nothing is gained
PARTS = "text.color axes.edgecolor axes.labelcolor xtick.color ytick.color".split()
plt.rcParams.update(
    {
        **dict.fromkeys(PARTS, INK),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "figure.dpi": 110,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
)


def sheet(*images, **look):
    """Show a `grid`."""
    grid(*images, **look)
    plt.show()


def panel(height):
    """An axis as wide as the page."""
    return plt.subplots(figsize=(5.2, height))[1]


def titled(figure, *findings):
    """Head a figure with what it found, a line or two for each finding."""
    lines = [textwrap.fill(words, 62) for words in findings]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10.5)


def show(axis, *findings):
    """Show the figure of an axis under its findings."""
    titled(axis.figure, *findings)
    plt.show()


def grid(images, titles=(), columns=4, marks=(), size=1.6, finding=""):
    """A figure of uint8 images (N, H, W, 3), enlarged without blur, each `size` inches wide, under a finding.

    `marks` (N,) of True and False frame right and wrong ones; an image that is None leaves its cell empty.
    """
    rows = -(-len(images) // columns)
    lines = -(-max(map(len, titles), default=0) // 17)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * size * (1 + 0.15 / 1.1 * lines)), squeeze=False
    )
    if finding:
        titled(figure, finding)
    for axis, image, title, mark in zip_longest(axes.flat, images, titles, marks):
        if image is None:
            axis.axis("off")
            continue
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(textwrap.fill(title or "", 17), fontsize=7.1 * size)
        axis.spines[:].set(visible=mark is not None, color=GOOD if mark else BAD, linewidth=2.5)
    return figure


def whiskers(rows, value="share", most=100):
    """How far an interval reaches below and above its value, in percent (2, N), by a DataFrame's columns."""
    return most * np.abs([rows[value] - rows.low, rows.high - rows[value]])


def marks(axis, y, rows, colour, value="share", most=100):
    """Dots of `rows`, a DataFrame, at the heights `y` (N,), with their intervals where they have some."""
    ends = whiskers(rows, value, most) if "low" in rows else None
    axis.errorbar(most * rows[value], y, xerr=ends, fmt="o", color=colour, capsize=2)


def named(axis, names):
    """A line for each of `names`, from the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def keys(axis, inks):
    """Write what the lines of an axis are above it, {words: colour}."""
    for k, (words, ink) in enumerate(inks.items()):
        axis.text(k / max(3, len(inks)), 1.02, words, color=ink, transform=axis.transAxes)


def stacks(rows, colours, finding):
    """Show how whole things are shared out: {row: {part: percent}} as bars, large parts with their names.

    colours: {part: colour}, from left to right.
    """
    axis = panel(0.6 * len(rows) + 0.8)
    left = np.zeros(len(rows))
    for part, colour in colours.items():
        width = np.array([of[part] for of in rows.values()])
        bar = axis.barh(list(rows), width, left=left, color=colour)
        name = textwrap.fill(part, 8, break_long_words=False)
        words = [f"{name}\n{percent:.0f} %" if percent >= 7 else "" for percent in width]
        axis.bar_label(bar, words, label_type="center", fontsize=8, color="black")
        left += width
    axis.invert_yaxis()
    axis.set_axis_off() if len(rows) == 1 else axis.spines[:].set_visible(False)
    axis.set(xlim=(0, 100), xticks=[])
    show(axis, finding)


def dots(series, finding, xlabel, most=100):
    """Show values up to `most` in lines under what they tell.

    series: {name: (colour, DataFrame of share, low, high, or Series without intervals)}, all of one index,
    the lines.
    """
    [lines, *_] = [rows.index for _, rows in series.values()]
    axis = panel(0.36 * len(lines) + 1.3)
    for k, (colour, rows) in enumerate(series.values()):
        rows = rows if rows.ndim > 1 else rows.to_frame("share")
        marks(axis, np.arange(len(lines)) + 0.5 * k / len(series), rows, colour, most=most)
    for end in (0, most):
        axis.axvline(end, **RULE)
    axis.set_xlabel(xlabel)
    keys(axis, {name: colour for name, (colour, _) in series.items()})
    named(axis, lines)
    show(axis, finding)


def curve(axis, x, rows, colour, name="", value="share"):
    """A line of values in percent with their intervals as a band, and its name at the end.

    rows: DataFrame with `value`, low and high.
    """
    y = 100 * rows[value]
    axis.plot(x, y, "o-", color=colour, markersize=4)
    axis.fill_between(x, rows.low * 100, rows.high * 100, color=colour, alpha=0.18, linewidth=0)
    end, look = (x.iloc[-1], y.iloc[-1]), {"color": colour, "va": "center", "fontsize": 9}
    axis.annotate(name, end, (6, 0), textcoords="offset points", **look)


def png(image, pixels=256):
    """PNG bytes of a uint8 image (H, W, 3), enlarged without blur to at least `pixels` across."""
    stream, factor = io.BytesIO(), -(-pixels // image.shape[1])
    Image.fromarray(image.repeat(factor, 0).repeat(factor, 1)).save(stream, "png")
    return stream.getvalue()


def still(figure):
    """PNG bytes of a figure, which is closed."""
    stream = io.BytesIO()
    figure.savefig(stream, dpi=120)
    plt.close(figure)
    return stream.getvalue()


def strip(images):
    """PNG bytes of several uint8 images (N, H, W, 3) side by side, each enlarged to at least 128 pixels."""
    clear = np.insert(images, 3, 255, axis=3)
    parts = [part for image in clear for part in (image, np.zeros_like(image[:, :2]))]
    return png(np.hstack(parts[:-1]), 128 * len(images))


def live(frames, labels, name, play=False):
    """A slider over ready-made PNGs that works on a static page, with no kernel: one picture per label."""
    import ipywidgets as w

    last = len(frames) - 1
    slider = w.IntSlider(max=last, description=name, readout=False, layout=w.Layout(width="340px"))
    layout = w.Layout(max_width="100%", object_fit="contain")
    pictures = w.Stack([w.Image(value=frame, layout=layout) for frame in frames])
    words = w.Stack([w.Label(str(label)) for label in labels])
    for stack in (pictures, words):
        stack.selected_index = 0
        w.jslink((slider, "value"), (stack, "selected_index"))
    controls = [slider, words]
    if play:
        player = w.Play(max=last, interval=350)
        w.jslink((player, "value"), (slider, "value"))
        controls.insert(0, player)
    return w.VBox([w.HBox(controls), pictures])
