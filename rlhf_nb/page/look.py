"""The look that the widgets share with the laboratory page: look.css."""

from pathlib import Path

import ipywidgets as w

LOOK = Path(__file__).with_name("look.css")


class Panel(w.VBox):
    """Widgets, one below the other, that look as the laboratory page does."""

    def __init__(self, children):
        style = w.HTML(f"<style>{LOOK.read_text()}</style>", layout={"display": "none"})
        super().__init__([*children, style])
        self.add_class("look")
