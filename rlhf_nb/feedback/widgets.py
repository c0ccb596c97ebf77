"""What asks people: a labeller of single pictures and a blind comparison of two sets.

Every answer is in its store at the click. Made of core ipywidgets only, so that JupyterLab, Notebook 7 and
VS Code show them alike.
"""

import html
import os
import time
from functools import partial, wraps

import ipywidgets as w
import numpy as np
import pandas as pd

from ..config import UserError
from ..figures import png
from ..page.look import Panel
from .store import LABELS, fingerprint, misfit

QUESTION = (
    "Does the picture show what the sentence says? Judge only that: how many, which colour, which object, "
    "where. Beauty does not count. <b>Skip</b> if you cannot tell."
)
KEYS = "type here: g good, b bad, s skip, u undo"
ASKED = {
    "alignment": "Which side shows better what the sentence says?",
    "fidelity": "Which side looks more like real pictures?",
}
SIDES = [("left", -1), ("no difference", 0), ("right", 1)]
DONE = "All done. Thank you."
AGAIN = 0.05  # share of the groups that come back


def _choice(options, answer, **style):
    """Buttons for one of several answers; answer(value) is called when it is not the one `given` before.

    Where that is False, the answer before stays pressed.
    """
    buttons = w.ToggleButtons(options=options, value=None, style=style)

    def changed(change):
        if change.new not in (None, buttons.given):
            before, buttons.given = buttons.given, change.new
            if answer(change.new) is False:
                buttons.given = buttons.value = before

    buttons.observe(changed, "value")
    return buttons


def _show(widget, sentence, progress, given):
    """A sentence, how far the rater is, and what he said of it before: {question: answer}."""
    widget.caption.value = f"<strong>{html.escape(sentence)}</strong>"
    widget.progress.value = f"{progress} by {html.escape(widget.rater)}"
    for question, buttons in widget.choices.items():
        buttons.given = given.get(question)  # first, so that it is not taken for a new answer
        buttons.value = buttons.given


def _told(answer):
    """An answer of a widget that its store may refuse: then the widget says why, and the answer is False."""

    @wraps(answer)
    def answered(widget, *given):
        try:
            return answer(widget, *given)
        except UserError as error:
            widget.progress.value = f"<strong>Nothing was kept: {html.escape(str(error))}.</strong>"
            return False

    return answered


def sequence(prompts, rater, seed=0):
    """Groups of up to three images of one prompt, in an order of the rater's own that hides categories.

    A share AGAIN of the groups comes back in the second half, so that the rater's agreement with himself can
    be measured. Lists of rows into prompts (N,).
    """
    rng = np.random.default_rng([seed, *rater.encode()])
    rows = pd.Series(range(len(prompts)), prompts).groupby(level=0).agg(list)
    groups = [of[i : i + 3] for of in rows for i in range(0, len(of), 3)]
    order, half = rng.permutation(len(groups)).tolist(), len(groups) // 2
    for k, group in enumerate(order[: round(AGAIN * len(groups))]):
        order.insert(half + k + rng.integers(len(groups) - half + 1), group)
    return [groups[i] for i in order]


class Labeler(Panel):
    """Ask `rater` for every group of `sequence`, from the first one without an answer in the store.

    images: anything indexable by a list of rows; prompts: one per image; store: a Store. A judgement's
    position is three times its group's place in the sequence plus its place in the group.
    """

    def __init__(self, images, prompts, store, rater, seed=0):
        self.images, self.prompts = images, list(prompts)
        self.store, self.rater = store, rater
        self.groups = [*sequence(self.prompts, rater, seed), []]  # after the last one no picture is left
        self.asked = {3 * g + k: row for g, rows in enumerate(self.groups) for k, row in enumerate(rows)}
        self.done = {  # by position, oldest first
            held["position"]: held
            for held in store.table().query("rater == @self.rater").to_dict("records")
            if self.asked.get(held["position"]) == held["image"] and not misfit(held, images, self.prompts)
        }
        self.caption, self.progress = w.HTML(), w.HTML()
        self.choices = {k: _choice(LABELS, partial(self.label, k), button_width="74px") for k in range(3)}
        size = {"width": "256px", "height": "256px"}
        self.columns = [
            w.VBox([w.Image(layout=size), choice], layout={"padding": "4px"})
            for choice in self.choices.values()
        ]
        self.typing = w.Text(placeholder=KEYS, layout={"width": "340px"})
        self.typing.observe(self._typed, "value")
        self.back = w.Button(description="undo", icon="undo")
        self.back.on_click(lambda _: self.undo())
        self.shown = w.HBox()
        below = w.HBox([self.typing, self.back, self.progress])
        super().__init__([w.HTML(f"<p>{QUESTION}</p>"), self.caption, self.shown, below])
        self._show()

    def _show(self):
        """Show the group of the first picture without a label, which is framed."""
        left = (position for position in self.asked if position not in self.done)
        self.group, self.framed = divmod(next(left, 3 * len(self.groups) - 3), 3)
        self.rows = self.groups[self.group]
        given = {place % 3: held["label"] for place, held in self.done.items() if place // 3 == self.group}
        sentence = self.prompts[self.rows[0]] if self.rows else DONE
        _show(self, sentence, f"{len(self.done)} of {len(self.asked)} images judged", given)
        self.shown.children = self.columns[: len(self.rows)]
        for slot, row in enumerate(self.rows):
            colour = "var(--accent)" if slot == self.framed else "transparent"
            self.columns[slot].layout.border = f"2px solid {colour}"
            self.columns[slot].children[0].value = png(self.images[[row]][0])
        self.since = time.time()

    @_told
    def label(self, slot, label):
        """Judge picture `slot` of the group on show; a second word on it takes the first one back."""
        image, position = self.rows[slot], 3 * self.group + slot
        judgement = {
            "rater": self.rater,
            "image": image,
            "prompt": self.prompts[image],
            "label": label,
            "shown_with": ",".join(map(str, self.rows)),
            "position": position,
            "seconds": time.time() - self.since,
            "picture": fingerprint(self.images[[image]][0]),
        }
        [identity] = self.store.add([judgement], self.done.get(position, {}).get("id"))
        self.done.pop(position, None)  # it is the last one now
        self.done[position] = judgement | {"id": identity}
        self._show()

    @_told
    def undo(self):
        """Take back the last label, of this kernel or an earlier one, and show its group again."""
        if self.done:
            self.store.undo([*self.done.values()][-1]["id"], self.rater)
            self.done.popitem()
            self._show()

    def _typed(self, change):
        """A new letter judges the framed picture, u takes a label back; deleting letters does nothing."""
        known = {name[0]: name for name in LABELS}
        same = os.path.commonprefix([change.old, change.new])
        for key in change.new[len(same) :].lower():
            if key == "u":
                self.undo()
            elif key in known and self.rows:
                self.label(self.framed, known[key])


class Comparer(Panel):
    """The paper's figure 4 with people: two anonymous sets of pictures of one prompt, and which is better.

    first, second: uint8 (P, K, H, W, 3), K even; prompts (P,); votes: a Votes. Both are asked for, alignment
    and fidelity. Which set is on the left is drawn for every rater and prompt. It starts at the first prompt
    without an answer in the store.
    """

    def __init__(self, first, second, prompts, votes, rater, seed=0):
        self.sets, self.prompts = (first, second), list(prompts)
        self.votes, self.rater = votes, rater
        rng = np.random.default_rng([seed, *rater.encode()])
        self.swapped = rng.random(len(self.prompts)) < 0.5
        self.marks = [fingerprint(np.concatenate(sets)) for sets in zip(first, second, strict=True)]
        self.caption, self.progress = w.HTML(), w.HTML()
        self.choices = {asked: _choice(SIDES, partial(self.vote, asked)) for asked in ASKED}
        self.sides = [w.Image(layout={"width": "256px", "margin": "2px 8px"}) for _ in range(2)]
        self.back = w.Button(description="one back", icon="undo")
        self.back.on_click(lambda _: self.show(max(0, self.place - 1)))
        questions = [part for asked in ASKED for part in (w.HTML(ASKED[asked]), self.choices[asked])]
        below = w.HBox([self.back, self.progress])
        super().__init__([self.caption, w.HBox(self.sides), *questions, below])
        self.show()

    def table(self):
        """What all raters said of these very pictures: place, prompt, pictures, rater, asked and vote.

        A vote is +1 for the second set, 0 undecided, -1 for the first.
        """
        here = pd.DataFrame({"prompt": self.prompts, "pictures": self.marks}).reset_index(names="place")
        return here.merge(self.votes.table(), on=["prompt", "pictures"])

    def show(self, place=None):
        """Show prompt `place`, or the first one that is not answered in full."""
        own, total = self.table().query("rater == @self.rater"), len(self.prompts)
        answers = own.place.value_counts()
        missing = [i for i in range(total) if answers.get(i, 0) < len(ASKED)]
        done = place is None and not missing
        self.place = [*missing, total - 1][0] if place is None else place
        self.turn = -1 if self.swapped[self.place] else 1  # from a vote to a side and back
        given = own[own.place == self.place].set_index("asked").vote * self.turn
        sentence = DONE if done else self.prompts[self.place]
        _show(self, sentence, f"{total - len(missing)} of {total} prompts compared", given)
        for choice in self.choices.values():
            choice.disabled = done
        for side, pictures in zip(self.sides, self.sets[:: self.turn], strict=True):
            framed = np.pad(pictures[self.place], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
            pairs = framed.reshape(-1, 2, *framed.shape[1:])  # (K / 2, 2, H, W, 3)
            side.value = png(np.vstack([np.hstack(pair) for pair in pairs]))

    @_told
    def vote(self, asked, side):
        """The right side (+1), the left one (-1) or neither (0) is better.

        When both questions are answered the next prompt comes.
        """
        at = self.place
        self.votes.add(self.rater, self.prompts[at], asked, self.turn * side, self.marks[at])
        if all(choice.given is not None for choice in self.choices.values()):
            self.show()
