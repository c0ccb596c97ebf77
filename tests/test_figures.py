"""Pictures as bytes, and the numbers that figures show."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from rlhf_nb import figures
from rlhf_nb.page import differences

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def test_pictures_are_enlarged_without_blur():
    shown = np.asarray(Image.open(io.BytesIO(figures.png(IMAGES[0], 16))))
    assert np.array_equal(shown[::2, ::2], IMAGES[0]) and np.array_equal(shown[1::2, 1::2], IMAGES[0])
    row = np.asarray(Image.open(io.BytesIO(figures.strip(IMAGES[:2]))))
    factor = row.shape[0] // 8
    assert row.shape == (8 * factor, (8 + 2 + 8) * factor, 4) and row.shape[1] >= 256
    assert np.array_equal(row[::factor, ::factor][:, 10:, :3], IMAGES[1])
    clear = row[::factor, ::factor, 3] == 0  # between the pictures the page shows through
    assert np.array_equal(np.flatnonzero(clear.all(0)), [8, 9]) and clear.sum() == 2 * 8


def luminance(colour):
    parts = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_colours_stand_out_on_light_and_on_dark_pages():
    """3 to 1 is what a line or a large word needs, and words as near to 4.5 as one colour for both can be."""
    for name, least in (("BASE", 3), ("TUNED", 3), ("ACCENT", 3), ("INK", 4.3)):
        of = luminance(getattr(figures, name)) + 0.05
        assert min((luminance("white") + 0.05) / of, of / (luminance("#121212") + 0.05)) >= least, name


def test_a_figure_lets_the_page_shine_through():
    _, axis = plt.subplots()
    axis.plot([0, 1], [0, 1])
    stream = io.BytesIO()
    plt.savefig(stream)
    plt.close()
    assert np.asarray(Image.open(stream))[:, :, 3].mean() < 0.2 * 255


def test_a_grid_frames_what_is_marked_and_leaves_cells_empty():
    figure = figures.grid([IMAGES[0], None, IMAGES[1]], ["a", "b", "c"], 2, [True, None, False])
    right, empty, wrong, rest = figure.axes
    assert len(right.images) == len(wrong.images) == 1 and not (empty.axison or rest.axison)
    colours = [axis.spines["left"].get_edgecolor() for axis in (right, wrong)]
    assert colours[0] != colours[1] and right.spines["left"].get_visible()
    plt.close(figure)


def test_whiskers_by_hand():
    rows = pd.DataFrame({"share": [0.5, 0.2], "low": [0.4, 0.2], "high": [0.7, 0.3]})
    assert np.allclose(figures.whiskers(rows), [[10, 0], [20, 10]])


def test_dots_stand_at_their_values_each_series_below_the_one_before():
    lines = ["a", "b"]
    ours = pd.DataFrame({"share": [0.5, 0.2], "low": [0.4, 0.2], "high": [0.7, 0.3]}, lines)
    series = {"ours": ("red", ours), "theirs": ("blue", pd.Series([0.25, np.nan], lines))}
    figures.dots(series, "What was found", "right, %")
    figure, [axis] = plt.gcf(), plt.gcf().axes
    values, others = ([*zip(*of[0].get_data(), strict=True)] for of in axis.containers)
    assert values == [(50, 0), (20, 1)] and others[0] == (25, 0.25)
    assert [label.get_text() for label in axis.get_yticklabels()] == lines
    assert [text.get_text() for text in axis.texts] == ["ours", "theirs"]
    assert figure.get_suptitle() == "What was found"
    plt.close(figure)


def test_a_forest_has_a_line_for_every_gain_and_a_heading_for_every_group():
    rows = [("a", "x", 0.1, "this run"), ("a", "y", -0.2, "recorded"), ("b", "z", 0.3, "this run")]
    table = pd.DataFrame(rows, columns=["group", "name", "difference", "source"])
    axis = differences.forest(table.assign(low=table.difference - 0.1, high=table.difference + 0.1), "f", "x")
    assert axis.get_yticks().tolist() == [1, 2, 4]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x", "y", "z"]
    assert {text.get_text(): text.get_position()[1] for text in axis.texts} == {"a": 0, "b": 3}
    points = {x for line in axis.get_lines() if line.get_marker() == "o" for x in line.get_xdata()}
    assert points == {10, -20, 30} and axis.figure.get_suptitle() == "f"
    plt.close(axis.figure)


def test_parts_of_a_whole_stand_one_after_the_other(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    figures.stacks({"one": {"a": 20, "b": 80}, "two": {"a": 95, "b": 5}}, {"a": "red", "b": "blue"}, "f")
    bars = [bar.get_bbox().intervalx.tolist() for bar in plt.gca().patches]
    assert bars == [[0, 20], [0, 95], [20, 100], [95, 100]]
    assert [text.get_text() for text in plt.gca().texts] == ["a\n20 %", "a\n95 %", "b\n80 %", ""]
    plt.close()
