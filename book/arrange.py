"""Executed copies as the pages show them: first the picture, what sets it up folded below; no dead widget."""

import copy

VIEW, STATE = (f"application/vnd.jupyter.widget-{part}+json" for part in ("view", "state"))
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
ALIVE = {  # what works on a page without a kernel, in `figures.live`
    f"{name}Model" for name in ("VBox", "HBox", "Stack", "Image", "Label", "IntSlider", "Play")
}
DEAD = "*In Jupyter a widget stands here. It needs a running program, so this page leaves it out.*"
LABORATORY = ' <a href="../lab/index.html">The laboratory</a> draws and labels in your browser.'


def folded(cell):
    """Whether a page shows the code of a cell only when it is asked for."""
    return "hide-input" in cell["metadata"].get("tags", ())


def _models(state, key):
    """The names of a widget's model and of those within it."""
    model = state[key]
    inner = (child.removeprefix("IPY_MODEL_") for child in model["state"].get("children") or ())
    return {model["model_name"]}.union(*(_models(state, child) for child in inner))


def _alive(outputs, state, instead):
    """Outputs without finished progress bars; for other widgets that need a kernel stands `instead`."""
    for output in outputs:
        view = output.get("data", {}).get(VIEW)
        models = _models(state, view["model_id"]) if view else set()
        if models <= ALIVE:
            yield output
        elif "FloatProgressModel" not in models:
            yield {"output_type": "display_data", "data": {"text/markdown": instead}, "metadata": {}}


def _pictured(cell):
    """Whether a cell shows a picture."""
    if cell["cell_type"] == "markdown":
        text = "".join(cell["source"])
        return any(mark in text for mark in ("![", "<img", "<svg", "{figure}", "{image}"))
    shown = [output.get("data", {}) for output in cell.get("outputs", ())]
    if any(VIEW in data or data.keys() & {*PICTURES} for data in shown):
        return True
    html = "".join("".join(data.get("text/html", "")) for data in shown)
    return any(mark in html for mark in ("<img", "<svg", "<canvas"))


def _described(cell):
    """A captioned picture that has no words in its place gets its caption for it."""
    told = cell["metadata"].get("mystnb", {})
    if caption := told.get("figure", {}).get("caption"):
        told.setdefault("image", {}).setdefault("alt", caption)


def _merged(cells):
    """Folded neighbours without outputs between them as one."""
    found = []
    for cell in cells:
        before = found[-1] if found else None
        if before and folded(before) and folded(cell) and not before["outputs"]:
            source = "\n\n".join("".join(of["source"]).strip() for of in (before, cell))
            found[-1] = {**cell, "source": source}
        else:
            found.append(cell)
    return found


def arranged(notebook, instead=DEAD):
    """An executed notebook (JSON as a dict) in the order of its page; what is given stays as it is.

    Folded cells without outputs that stand before the first picture move below it; folded neighbours without
    outputs between them become one; parameters that papermill added are folded. `instead` (Markdown) stands
    for each widget that needs a kernel.
    """
    made = copy.deepcopy(notebook)
    state = made["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [*_alive(cell["outputs"], state, instead)]
            tags = cell["metadata"].setdefault("tags", [])
            if "injected-parameters" in tags:
                tags.append("hide-input")
            _described(cell)
    cells = made["cells"]
    first = next((i for i, cell in enumerate(cells) if _pictured(cell)), 0)
    moved = [cell for cell in cells[:first] if folded(cell) and not cell["outputs"]]
    kept = [cell for cell in cells[:first] if cell not in moved]
    made["cells"] = _merged([*kept, *cells[first : first + 1], *moved, *cells[first + 1 :]])
    return made
