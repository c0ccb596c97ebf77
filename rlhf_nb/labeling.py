"""The labelling widget: three images of one prompt at a time, good / bad / skip each, written to the store at the click.

Made of core ipywidgets only, so that JupyterLab, Notebook 7 and VS Code show it alike.
"""

import html
import time

import ipywidgets as w
import numpy as np
import pandas as pd

from .feedback import LABELS, fingerprint
from .figures import png

QUESTION = ("Does the picture show what the sentence says? Judge only that: how many, which colour, which object, where. Beauty does "
            "not count. <b>Skip</b> if you cannot tell.")
KEYS = "type here: g good, b bad, s skip, u undo"


def sequence(prompts, rater, seed=0, again=0.05):
    """Groups of up to three images of one prompt, in an order of the rater's own that hides categories; a share `again` of the
    groups comes back in the second half, so that the rater's agreement with himself can be measured."""
    rng, prompts = np.random.default_rng([seed, *str(rater).encode()]), np.asarray(prompts)
    groups = [g[i:i + 3] for p in np.unique(prompts) for g in [np.flatnonzero(prompts == p)] for i in range(0, len(g), 3)]
    order = rng.permutation(len(groups)).tolist()
    for k, group in enumerate(order[:round(again * len(groups))]):
        order.insert(len(groups) // 2 + k + int(rng.integers(len(groups) - len(groups) // 2 + 1)), group)
    return [groups[i].tolist() for i in order]


class Labeler(w.VBox):
    """Ask `rater` for every group of `sequence`, from the first one without an answer in the store.

    images: anything indexable by a list of rows; prompts: one per image; store: a feedback.Store. A judgement's position is three
    times its group's place in the sequence plus its place in the group.
    """

    def __init__(self, images, prompts, store, rater, seed=0):
        self.images, self.prompts, self.store, self.rater = images, np.asarray(prompts), store, str(rater)
        self.sequence = sequence(self.prompts, self.rater, seed)
        self.done = {}  # position -> (id, label), oldest first
        for row in store.table().query("rater == @self.rater and position.notna()").itertuples():
            group, slot = divmod(int(row.position), 3)
            same = group < len(self.sequence) and self.sequence[group][slot:slot + 1] == [row.image] and self.prompts[row.image] == row.prompt
            if same and (not isinstance(row.picture, str) or row.picture == fingerprint(self.images[[row.image]][0])):  # older rows name no picture
                self.done[int(row.position)] = (row.id, row.label)
        self.pace, self.typed, self.filling = [], "", False
        self.caption, self.progress = w.HTML(), w.HTML()
        self.pictures = [w.Image(format="png", layout=w.Layout(width="256px", height="256px")) for _ in range(3)]
        self.choices = [w.ToggleButtons(options=LABELS, value=None, style={"button_width": "74px"}) for _ in range(3)]
        for slot, choice in enumerate(self.choices):
            choice.observe(lambda change, slot=slot: change["new"] and not self.filling and self.label(slot, change["new"]), "value")
        self.typing = w.Text(placeholder=KEYS, continuous_update=True, layout=w.Layout(width="280px"))
        self.typing.observe(lambda change: self.type(change["new"]), "value")
        self.back = w.Button(description="undo", icon="undo", tooltip="take back the last label")
        self.back.on_click(lambda _: self.undo())
        self.columns = [w.VBox([p, c], layout=w.Layout(padding="4px")) for p, c in zip(self.pictures, self.choices, strict=True)]
        super().__init__([w.HTML(f"<p>{QUESTION}</p>"), self.caption, w.HBox(self.columns, layout=w.Layout(flex_flow="row wrap")),
                          w.HBox([self.typing, self.back, self.progress], layout=w.Layout(flex_flow="row wrap"))])
        self._show()

    def _missing(self):
        """Positions still to be judged, in order."""
        return [3 * g + k for g, rows in enumerate(self.sequence) for k in range(len(rows)) if 3 * g + k not in self.done]

    def _show(self):
        missing = self._missing()
        self.group, rows = (missing[0] // 3, self.sequence[missing[0] // 3]) if missing else (None, [])
        self.caption.value = f"<strong>{html.escape(str(self.prompts[rows[0]]))}</strong>" if rows else "<strong>All done. Thank you.</strong>"
        self.progress.value = (f"{len(self.done)} of {len(self.done) + len(missing)} images judged by {html.escape(self.rater)}"
                               + (f", {np.median(self.pace):.1f} s each" if self.pace else ""))
        self.filling = True
        for slot, (picture, choice, column) in enumerate(zip(self.pictures, self.choices, self.columns, strict=True)):
            on = slot < len(rows)
            choice.value = self.done.get(3 * self.group + slot, (0, None))[1] if on else None
            choice.disabled, column.layout.display = not on, None if on else "none"
            column.layout.border = f"2px solid {'#2e86ab' if missing and missing[0] == 3 * self.group + slot else 'transparent'}" if on else ""
            if on:
                picture.value = png(self.images[[rows[slot]]][0])
        self.filling, self.since = False, time.time()

    def label(self, slot, label):
        """Judge picture `slot` of the group on show; a second word on it takes the first one back."""
        position, rows, seconds = 3 * self.group + slot, self.sequence[self.group], time.time() - self.since
        image, before = rows[slot], [self.done.pop(position)[0]] if position in self.done else []
        [identity] = self.store.add([{"rater": self.rater, "image": image, "prompt": str(self.prompts[image]), "label": label,
                                      "shown_with": ",".join(map(str, rows)), "position": position, "seconds": seconds,
                                      "picture": fingerprint(self.images[[image]][0])}], replaces=before)
        self.done[position] = (identity, label)
        self.pace = [*self.pace[-49:], seconds]
        self._show()

    def undo(self):
        """Take back the last label, of this kernel or an earlier one, and show its group again."""
        if self.done:
            _, (identity, _) = self.done.popitem()
            self.store.undo(identity, self.rater)
            self._show()

    def type(self, text):
        """Keys typed so far: each new letter judges the framed picture, u takes one label back; deleting letters does nothing."""
        same = next((i for i, (a, b) in enumerate(zip(text, self.typed, strict=False)) if a != b), min(len(text), len(self.typed)))
        known = {name[0]: name for name in LABELS}
        for key in text[same:].lower():
            if key == "u":
                self.undo()
            elif key in known and self.group is not None:
                self.label(self._missing()[0] % 3, known[key])
        self.typed = text


ASKED = {"alignment": "Which side shows better what the sentence says?", "fidelity": "Which side looks more like real pictures?"}


class Comparer(w.VBox):
    """The paper's figure 4 with people: two anonymous sets of pictures of one prompt, and which is better in alignment and in fidelity.

    first, second: uint8 (P, K, H, W, 3), K even; prompts (P,); votes: a feedback.Votes. Which set is on the left is drawn for every rater and prompt.
    It starts at the first prompt without an answer in the store.
    """

    def __init__(self, first, second, prompts, votes, rater, seed=0):
        self.sets, self.prompts, self.votes, self.rater = (first, second), np.asarray(prompts), votes, str(rater)
        self.swapped = np.random.default_rng([seed, *self.rater.encode()]).random(len(self.prompts)) < 0.5
        self.marks = [fingerprint(np.concatenate([a, b])) for a, b in zip(first, second, strict=True)]
        self.caption, self.progress, self.filling = w.HTML(), w.HTML(), False
        self.sides = [w.Image(format="png", layout=w.Layout(width="256px", margin="2px 8px")) for _ in range(2)]
        self.choices = {asked: w.ToggleButtons(options=[("left", -1), ("no difference", 0), ("right", 1)], value=None) for asked in ASKED}
        for asked, choice in self.choices.items():
            choice.observe(lambda change, asked=asked: change["new"] is not None and not self.filling and self.vote(asked, change["new"]), "value")
        self.back = w.Button(description="one back", icon="undo")
        self.back.on_click(lambda _: self.show(max(0, self.place - 1)))
        questions = [part for asked, question in ASKED.items() for part in (w.HTML(question), self.choices[asked])]
        super().__init__([self.caption, w.HBox(self.sides), *questions, w.HBox([self.back, self.progress])])
        self.show()

    def table(self):
        """What all raters said of these very pictures: rows of place, rater, prompt, asked and vote, +1 for the second set."""
        here = pd.DataFrame({"place": range(len(self.prompts)), "prompt": self.prompts.astype(str), "pictures": self.marks})
        return here.merge(self.votes.table(), on=["prompt", "pictures"])

    def given(self):
        """{(place, asked): vote} of this rater."""
        return self.table().query("rater == @self.rater").set_index(["place", "asked"]).vote.to_dict()

    def show(self, place=None):
        """Show prompt `place`, or the first one that is not answered in full."""
        held = self.given()
        missing = [i for i in range(len(self.prompts)) if not all((i, a) in held for a in ASKED)]
        self.place = place if place is not None else missing[0] if missing else len(self.prompts) - 1
        done = place is None and not missing
        self.caption.value = "<strong>All done. Thank you.</strong>" if done else f"<strong>{html.escape(str(self.prompts[self.place]))}</strong>"
        self.progress.value = f"{len(self.prompts) - len(missing)} of {len(self.prompts)} prompts compared by {html.escape(self.rater)}"
        self.filling = True
        order = self.sets[::-1] if self.swapped[self.place] else self.sets
        for side, pictures in zip(self.sides, order, strict=True):
            framed = np.pad(pictures[self.place], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)  # where one picture ends and the next begins
            rows = framed.reshape(-1, 2, *framed.shape[1:])
            side.value = png(np.concatenate([np.concatenate(list(row), 1) for row in rows]))
        for asked, choice in self.choices.items():
            vote = held.get((self.place, asked))
            choice.value, choice.disabled = vote if vote is None or not self.swapped[self.place] else -vote, done
        self.filling = False

    def vote(self, asked, side):
        """The right side (+1), the left one (-1) or neither (0) is better; when both questions are answered the next prompt comes."""
        vote = -side if self.swapped[self.place] else side
        self.votes.add(self.rater, self.prompts[self.place], asked, vote, self.marks[self.place])
        if all(choice.value is not None for choice in self.choices.values()):
            self.show()
