"""A prompt explorer for Jupyter: what models draw of a sentence, from the same noise, and what a judge reads.

Part 1 of the laboratory page does the same without a kernel.
"""

import html
import re
from base64 import b64encode
from functools import partial

import ipywidgets as w
import numpy as np

from .. import config, diffusion
from ..figures import png
from ..prompts import COUNTS, TOY, Attributes, phrase, plural
from .export import vocabulary
from .look import Panel

OFFERED = vocabulary()
MENUS = {"count": "number", "colour": "colour", "object": "object", "background": "place"}
LINE = '<li><b class="{}">{}</b><span>{}</span>{}</li>'


def wish(text):
    """What of each menu a sentence names, {attribute: word or None}, and its words that no caption had."""
    words = re.findall(r"\w+", text.lower())
    said, found = f" {' '.join(words)} ", {}
    for name in MENUS:
        forms = {plural(v) if name == "object" else v.lower(): v for v in OFFERED[name]}
        forms |= {v: v for v in OFFERED[name]}
        found[name] = next((forms[form] for form in forms if f" {form} " in said), None)
    return found, [word for word in dict.fromkeys(words) if word not in OFFERED["words"]]


def attributes(said):
    """`Attributes` of what `wish` found."""
    return Attributes(**said | {"count": said["count"] and COUNTS.index(said["count"]) + 1})


def reading(reader, images, said):
    """What a reader finds right in uint8 images (B, H, W, 3) of one `wish`, as HTML: a list."""
    if not said["object"]:
        return ["The judge reads only what names an object of the menu."] * len(images)
    found, lines = reader.examine(images, [attributes(said)] * len(images)), [""] * len(images)
    for name in filter(said.get, MENUS):
        for i, right in enumerate(found[name]):
            seen = "" if right or name != "count" else f", {found['number'][i]} seen"
            mark = ("yes", "✓ right") if right else ("no", "✗ wrong")
            lines[i] += LINE.format(*mark, MENUS[name], said[name] + seen)
    return [f'<ul class="reading" aria-label="What the judge reads">{of}</ul>' for of in lines]


class Explorer(Panel):
    """What `unets`, {name: U-Net}, draw of a prompt, typed or put together from menus, from the same noise.

    reader: as readers.load gives it, or None. known: whether the toy world's words are all that the models
    have learnt. drawing: guidance and steps. Whatever goes wrong is told in one sentence.
    """

    def __init__(self, pipe, unets, reader=None, known=True, seed=0, **drawing):
        self.pipe, self.unets, self.reader, self.known = pipe, unets, reader, known
        self.drawing, self.shown, self.menus = drawing, None, {}
        for name, title in MENUS.items():
            options = [("any", None), *zip(OFFERED[name], OFFERED[name], strict=True)]
            self.menus[name] = w.Dropdown(options=options, description=title)
            self.menus[name].observe(partial(self._chosen, name), "value")
        self.prompt = w.Text(description="prompt", placeholder="type, then enter", continuous_update=False)
        self.noise = w.BoundedIntText(seed, max=2**31 - 1, description="noise")
        self.button = w.Button(description="Draw", button_style="primary")
        self.other = w.Button(description="Another noise")
        self.prompt.observe(self.draw, "value")
        self.noise.observe(self.draw, "value")
        self.button.on_click(self.draw)
        self.other.on_click(lambda _: self.noise.set_trait("value", self.noise.value + 1))
        rows = self.menus.values(), [self.prompt], [self.button, self.other, self.noise]
        self.status, self.pair = w.HTML(), w.HTML()
        super().__init__([*(w.HBox([*row]) for row in rows), self.status, self.pair])

    def _chosen(self, name, change):
        """The sentence follows a menu that says something else."""
        if change.new != wish(self.prompt.value)[0][name]:
            said = {menu: of.value for menu, of in self.menus.items()}
            self.prompt.value = phrase(attributes(said | {"object": said["object"] or TOY.objects[0]}))

    def draw(self, _=None):
        """Draw the prompt with every model, unless that is on show already; the menus follow it."""
        asked = self.prompt.value.strip(), self.noise.value
        if asked == self.shown:
            return
        self.status.value, self.shown = "Drawing …", asked
        said, strange = wish(asked[0])
        for name, menu in self.menus.items():
            menu.value = said[name]
        try:
            self.pair.value = self._drawn(*asked, said)
        except Exception as error:  # a widget has no place for a traceback
            self.pair.value, self.shown, why = "", None, html.escape(config.cause(error))
            self.status.value = f'<span class="no">This did not work: {why}.</span>'
            return
        unknown = f"No caption that the models learnt from had: {', '.join(strange)}." * self.known
        empty = "The prompt is empty: a model draws whatever it likes."
        self.status.value = f'<span class="no">{unknown}</span>' if strange else "" if asked[0] else empty

    def _drawn(self, prompt, seed, said):
        """The pictures, with what is read in them, as HTML."""
        self.pipe.to([*self.unets.values()][-1].device)  # a training may have left it elsewhere
        options = {"seed": seed, **self.drawing}
        drawn = [diffusion.sample(self.pipe, [prompt], unet=of, **options)[0] for of in self.unets.values()]
        below = reading(self.reader, np.stack(drawn), said) if self.reader else [""] * len(drawn)
        own, parts = html.escape(prompt), ""
        for name, image, words in zip(self.unets, drawn, below, strict=True):
            kind, source = "base" if name == "base" else "tuned", b64encode(png(image)).decode()
            picture = f'<img class="picture" alt="{name} model: {own}" src="data:image/png;base64,{source}">'
            parts += f'<div class="{kind}"><h3>{name.capitalize()} model</h3>{picture}{words}</div>'
        return f'<div class="pair">{parts}</div>'
