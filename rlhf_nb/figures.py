"""Figures that teach: contact sheets, accuracy with intervals, curves, and pictures that move without a kernel."""

import io
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

BASE, TUNED, ACCENT = "#7f8fa6", "#d1495b", "#2e86ab"   # the same three colours for the same three things in every chapter
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
                     "font.size": 10, "figure.constrained_layout.use": True, "legend.frameon": False, "svg.hashsalt": "rlhf_nb"})


def sheet(images, titles=None, columns=8, marks=None, size=1.1):
    """Show a grid of uint8 images (N, H, W, 3), enlarged without blur; `marks` (N,) of True / False / None frame right and wrong ones."""
    grid(images, titles, columns, marks, size)
    plt.show()


def grid(images, titles, columns, marks, size):
    """The figure behind `sheet`, for those who want to keep it."""
    count, rows = len(images), -(-len(images) // columns)
    titles, marks = ([None] * count if given is None else given for given in (titles, marks))
    lines = -(-max((len(t or "") for t in titles), default=0) // 17)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.15 * lines)), squeeze=False)
    for axis in axes.flat[count:]:
        axis.axis("off")
    for axis, image, title, mark in zip(axes.flat, images, titles, marks, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.set_title(textwrap.fill(title or "", 17), fontsize=6.5)
        for spine in axis.spines.values():
            spine.set(visible=mark is not None, color="#2a9d4a" if mark else "#c0392b", linewidth=2.5)
    return figure


def bars(table, label, groups, ylabel):
    """Show grouped bars with intervals. table: DataFrame with columns `label`, group, share, low, high; groups: {group: colour}."""
    labels = list(dict.fromkeys(table[label]))
    _, axis = plt.subplots(figsize=(max(5, 1.6 * len(labels) + 1.2), 3))
    width = 0.8 / len(groups)
    for k, (group, colour) in enumerate(groups.items()):
        rows = table[table["group"] == group].set_index(label).reindex(labels)
        x = np.arange(len(labels)) + (k - (len(groups) - 1) / 2) * width
        error = np.abs(np.stack([rows.share - rows.low, rows.high - rows.share])) * 100
        axis.bar(x, rows.share * 100, width * 0.92, yerr=error, color=colour, label=group, error_kw={"elinewidth": 1, "capsize": 2})
    axis.set(xticks=range(len(labels)), xticklabels=labels, ylabel=ylabel, ylim=(0, 105))
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=len(groups))
    plt.show()


def curve(axis, x, rows, colour, label):
    """A line of shares in percent with its interval as a band; rows: DataFrame with share, low, high."""
    axis.plot(x, rows.share * 100, "o-", color=colour, label=label, markersize=4)
    axis.fill_between(x, rows.low * 100, rows.high * 100, color=colour, alpha=0.18, linewidth=0)


def effects(table, names):
    """Show differences from the base model, a line each of `names`; table: DataFrame with name, difference, low, high and source, or an empty one."""
    _, axis = plt.subplots(figsize=(6.4, 0.42 * len(names) + 0.9))
    for k, (source, colour) in enumerate((("recorded", ACCENT), ("this run", TUNED))):
        of = table[table.source == source].set_index("name").reindex(names) if len(table) else table
        if len(of) and of.difference.notna().any():
            error = np.stack([of.difference - of.low, of.high - of.difference]) * 100
            axis.errorbar(of.difference * 100, np.arange(len(names)) + 0.14 * (2 * k - 1), xerr=error, fmt="o", color=colour, capsize=2, label=source)
    axis.axvline(0, color="grey", linewidth=1, linestyle=":")
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="all attributes right, points above the base model", ylim=(len(names) - 0.5, -0.5))
    if axis.containers:
        axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    else:
        axis.text(0.5, 0.5, "no rows yet", transform=axis.transAxes, ha="center", color="grey")
    plt.show()


def png(image, pixels=256):
    """PNG bytes of a uint8 image (H, W, 3), enlarged without blur to at least `pixels` across."""
    stream, factor = io.BytesIO(), -(-pixels // image.shape[1])
    Image.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor), Image.NEAREST).save(stream, "png")
    return stream.getvalue()


def strip(images, pixels=128):
    """PNG bytes of several uint8 images side by side, each enlarged as `png` does."""
    gap = np.full((images.shape[1], 2, 3), 255, np.uint8)
    return png(np.concatenate([part for image in images for part in (image, gap)][:-1], 1), pixels * len(images))


def live(frames, labels, name, play=False):
    """A slider over ready-made PNGs that works on a static page, with no kernel: one picture per value of `labels`."""
    import ipywidgets as w

    stack = w.Stack([w.Image(value=f, format="png", layout=w.Layout(max_width="100%", object_fit="contain")) for f in frames], selected_index=0)
    slider = w.IntSlider(min=0, max=len(frames) - 1, description=name, readout=False, layout=w.Layout(width="340px"))
    words = w.Stack([w.Label(str(t)) for t in labels], selected_index=0)
    w.jslink((slider, "value"), (stack, "selected_index"))
    w.jslink((slider, "value"), (words, "selected_index"))
    controls = [slider, words]
    if play:
        player = w.Play(min=0, max=len(frames) - 1, interval=350)
        w.jslink((player, "value"), (slider, "value"))
        controls.insert(0, player)
    return w.VBox([w.HBox(controls), stack])


def thresholds(images, prompts, value, label, columns=6):
    """Frames and words for `live`: at each threshold the worst accepted and the best refused images, with precision and recall."""
    frames, words = [], []
    order = np.argsort(value)
    for threshold in np.linspace(0.1, 0.9, 9):
        accepted, refused = order[value[order] >= threshold][:columns], order[value[order] < threshold][::-1][:columns]
        cells = [*accepted, *[None] * (columns - len(accepted)), *refused, *[None] * (columns - len(refused))]
        figure = grid([np.full_like(images[0], 255) if i is None else images[i] for i in cells], columns=columns, size=1.25,
                       titles=["" if i is None else f"{value[i]:.2f} {prompts[i]}" for i in cells],
                       marks=[None if i is None else bool(label[i] > 0.5) for i in cells])
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=80)
        plt.close(figure)
        frames.append(stream.getvalue())
        yes, good = value >= threshold, label > 0.5
        precision, recall = (yes & good).sum() / max(yes.sum(), 1), (yes & good).sum() / max(good.sum(), 1)
        words.append(f"{threshold:.1f}: accepts {yes.mean():.0%} of the images; precision {precision:.0%}, recall {recall:.0%}")
    return frames, words
