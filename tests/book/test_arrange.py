"""Pages begin with a picture: what an executed copy sets up first moves below it, folded, in one block."""

import copy

import arrange


def cell(source, *outputs, tags=(), kind="code", **metadata):
    made = {"cell_type": kind, "id": source, "source": source, "metadata": {"tags": [*tags], **metadata}}
    return made | ({"outputs": [*outputs], "execution_count": 1} if kind == "code" else {})


def shows(kind, content=""):
    return {"output_type": "display_data", "data": {kind: content}, "metadata": {}}


def widget(key):
    return shows(arrange.VIEW, {"model_id": key})


MODELS = {
    "bar": ("HBox", "text", "progress"),
    "slider": ("VBox", "number", "image"),
    "labels": ("VBox", "image", "button"),
    "text": ("HTML",),
    "progress": ("FloatProgress",),
    "number": ("IntSlider",),
    "image": ("Image",),
    "button": ("Button",),
}
STATE = {
    key: {"model_name": f"{name}Model", "state": {"children": [f"IPY_MODEL_{i}" for i in inner]}}
    for key, (name, *inner) in MODELS.items()
}


def page(*cells):
    """The arranged page of some cells: the cells, which are given as they were."""
    notebook = {"cells": [*cells], "metadata": {"widgets": {arrange.STATE: {"state": STATE}}}}
    before = copy.deepcopy(notebook)
    made = arrange.arranged(notebook)["cells"]
    assert notebook == before
    return made


def test_what_sets_up_moves_below_the_first_picture_as_one():
    made = page(
        cell("title", kind="markdown"),
        cell("a = 1", tags=["parameters", "hide-input"]),
        cell("a = 2", tags=["injected-parameters"]),
        cell("import b", tags=["hide-input"]),
        cell("told", shows("text/plain"), tags=["hide-input"]),
        cell("shown"),
        cell("draw(b)", widget("bar"), shows("image/png"), tags=["hide-input"]),
        cell("c = 3", tags=["hide-input"]),
        cell("d", shows("text/plain"), tags=["hide-input"]),
        cell("e = 4", tags=["hide-input"]),
        cell("after", kind="markdown"),
        cell("f = 5", tags=["hide-input"]),
    )
    setup = "a = 1\n\na = 2\n\nimport b\n\nc = 3\n\nd"
    order = ["title", "told", "shown", "draw(b)", setup, "e = 4", "after", "f = 5"]
    assert [of["source"] for of in made] == order
    assert [len(of.get("outputs", ())) for of in made] == [0, 1, 0, 1, 1, 0, 0, 0]
    assert arrange.folded(made[4]) and "injected-parameters" not in made[4]["metadata"]["tags"]


def test_a_page_without_a_picture_keeps_its_order():
    made = page(cell("a = 1", tags=["hide-input"]), cell("text", kind="markdown"), cell("b", widget("bar")))
    assert [of["source"] for of in made] == ["a = 1", "text", "b"] and not made[2]["outputs"]


def test_a_slider_is_a_picture_and_what_needs_a_kernel_is_not_shown():
    made = page(cell("a = 1", tags=["hide-input"]), cell("b", widget("slider")), cell("c", widget("labels")))
    assert [of["source"] for of in made] == ["b", "a = 1", "c"]
    assert made[0]["outputs"] == [widget("slider")]
    assert [output["data"] for output in made[2]["outputs"]] == [{"text/markdown": arrange.DEAD}]


def test_a_picture_without_words_in_its_place_has_its_caption():
    named = {"figure": {"caption": "What to see."}}
    told = {**named, "image": {"alt": "Two lines that cross."}}
    made = page(cell("a", shows("image/png"), mystnb=named), cell("b", shows("image/png"), mystnb=told))
    assert [of["metadata"]["mystnb"]["image"]["alt"] for of in made] == ["What to see.", told["image"]["alt"]]
