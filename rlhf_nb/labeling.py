"""The labelling widget: three images of one prompt at a time, good / bad / skip each, written to the store at the click."""

import html
import io
import time

import ipywidgets as w
import numpy as np
from PIL import Image

from .feedback import LABELS

QUESTION = ("Does the picture show what the sentence says? Judge only that: how many, which colour, which object, where. Beauty does "
            "not count. <b>Skip</b> if you cannot tell.")


def png(image, pixels=192):
    """PNG bytes of a uint8 image, enlarged without blur."""
    stream = io.BytesIO()
    factor = max(1, pixels // image.shape[1])
    Image.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor), Image.NEAREST).save(stream, "png")
    return stream.getvalue()


class Labeler(w.VBox):
    """Show the groups of three that `rater` has not judged yet, in an order of the rater's own that hides categories.

    images: anything indexable by an array of rows; prompts: one per image; store: a feedback.Store.
    """

    def __init__(self, images, prompts, store, rater, seed=0):
        self.images, self.prompts, self.store, self.rater = images, np.asarray(prompts), store, rater
        done = set(store.table().query("rater == @rater").image)
        groups = [g[i:i + 3] for p in np.unique(self.prompts) for g in [np.flatnonzero(self.prompts == p)] for i in range(0, len(g), 3)]
        order = np.random.default_rng([seed, *rater.encode()]).permutation(len(groups))
        self.total = len(groups)
        self.queue = [groups[i] for i in order if not done.issuperset(groups[i].tolist())]
        self.history = []
        self.caption, self.progress = w.HTML(), w.HTML()
        self.pictures = [w.Image(format="png", layout=w.Layout(width="192px", height="192px")) for _ in range(3)]
        self.choices = [w.ToggleButtons(options=LABELS, value=None, style={"button_width": "56px"}) for _ in range(3)]
        for choice in self.choices:
            choice.observe(self._chosen, "value")
        self.back = w.Button(description="undo", icon="undo", tooltip="take back the last three labels")
        self.back.on_click(lambda _: self.undo())
        columns = w.HBox([w.VBox([p, c]) for p, c in zip(self.pictures, self.choices, strict=True)])
        super().__init__([w.HTML(f"<p>{QUESTION}</p>"), self.caption, columns, w.HBox([self.back, self.progress])])
        self._show()

    def _show(self):
        self.progress.value = f"{self.total - len(self.queue)} of {self.total} groups done by {html.escape(self.rater)}"
        rows = self.queue[0] if self.queue else ()
        self.caption.value = f"<h3>{html.escape(str(self.prompts[rows[0]]))}</h3>" if len(rows) else "<h3>All done. Thank you.</h3>"
        for k, (picture, choice) in enumerate(zip(self.pictures, self.choices, strict=True)):
            on = k < len(rows)
            with choice.hold_trait_notifications():
                choice.value = None
            choice.disabled, picture.layout.visibility = not on, "visible" if on else "hidden"
            if on:
                picture.value = png(self.images[rows[k:k + 1]][0])
        self.shown = time.time()

    def _chosen(self, change):
        if change["new"] is None:
            return
        rows = self.queue[0]
        labels = [c.value for c in self.choices[:len(rows)]]
        if None in labels:
            return
        seconds = time.time() - self.shown
        together = ",".join(map(str, rows))
        self.history.append((rows, self.store.add([{"rater": self.rater, "image": int(i), "prompt": str(self.prompts[i]), "label": label,
                                                    "shown_with": together, "seconds": seconds} for i, label in zip(rows, labels, strict=True)])))
        self.queue.pop(0)
        self._show()

    def undo(self):
        """Take back the last group and show it again."""
        if self.history:
            rows, ids = self.history.pop()
            for identity in ids:
                self.store.undo(identity, self.rater)
            self.queue.insert(0, rows)
            self._show()
