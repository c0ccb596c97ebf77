"""A prompt explorer for Jupyter: what models draw of a sentence, from the same noise, and what a judge reads.

Part 1 of the laboratory page does the same without a kernel.
"""

import html
import re
from base64 import b64encode
from functools import partial

import ipywidgets as w

from .. import config, diffusion
from ..figures import png
from ..prompts import BACKGROUNDS, COLOURS, COUNTS, TOY, Attributes, phrase, plural
from .export import vocabulary
from .look import Panel

KNOWN = {*vocabulary()["words"]}
LISTED = {"colour": COLOURS, "object": TOY.objects, "background": BACKGROUNDS}
OFFERED = {"count": {word: k for k, word in enumerate(COUNTS, 1)}}
OFFERED |= {name: {value: value for value in values} for name, values in LISTED.items()}
TITLES = {"count": "number", "background": "place"}
PICTURE = '<img class="picture" alt="{}" src="data:image/png;base64,{}">'
LINE = '<li><b class="{}">{}</b><span>{}</span>{}</li>'


def wish(text):
    """The `Attributes` that a text names, None for others, and its words that no caption had, a list."""
    words, found = re.findall(r"\w+", text.lower()), {}
    said = f" {' '.join(words)} "
    for name, values in OFFERED.items():
        named = (v for of, v in values.items() for form in (of.lower(), plural(of)) if f" {form} " in said)
        found[name] = next(named, None)
    return Attributes(**found), [of for of in dict.fromkeys(words) if of not in KNOWN]


def reading(reader, image, want):
    """What a reader finds right in a uint8 image (H, W, 3) of `Attributes`, as HTML."""
    if not want.object:
        return "The judge reads only what names an object of the menu."
    found, lines = reader.examine(image[None], [want]), ""
    for name in ("object", *want.asked):
        mark = ("yes", "✓ right") if found[name][0] else ("no", "✗ wrong")
        lines += LINE.format(*mark, TITLES.get(name, name), getattr(want, name))
    lines += f"<li><span>objects seen</span>{found['number'][0]}</li>"
    return f'<ul class="reading" aria-label="What the judge reads">{lines}</ul>'


class Explorer(Panel):
    """What `unets`, {"base", "tuned": U-Net}, draw of a prompt, typed or from menus, from the same noise.

    reader: as readers.load gives it, or None. known: whether the toy world's words are all that the models
    have learnt. drawing: guidance and steps. Whatever goes wrong is told in one sentence.
    """

    def __init__(self, pipe, unets, reader=None, known=True, seed=0, **drawing):
        self.pipe, self.unets, self.reader, self.known = pipe, unets, reader, known
        self.drawing, self.shown, self.menus = drawing, None, {}
        for name, values in OFFERED.items():
            options, title = [("any", None), *values.items()], TITLES.get(name, name)
            self.menus[name] = w.Dropdown(options=options, description=title)
            self.menus[name].observe(partial(self._chosen, name), "value")
        self.prompt = w.Text(description="prompt", placeholder="type, then enter", continuous_update=False)
        self.noise = w.BoundedIntText(seed, max=2**31 - 1, description="noise")
        self.button = w.Button(description="Draw", button_style="primary")
        for field in (self.prompt, self.noise):
            field.observe(self.draw, "value")
        self.button.on_click(self.draw)
        self.prompt.layout.width = "33rem"
        rows = self.menus.values(), [self.prompt], [self.button, self.noise]
        self.status, self.pair = w.HTML(), w.HTML()
        super().__init__([*(w.HBox([*row]) for row in rows), self.status, self.pair])

    def _chosen(self, name, change):
        """The sentence follows a menu that says something else."""
        if change.new != getattr(wish(self.prompt.value)[0], name):
            said = {menu: of.value for menu, of in self.menus.items()}
            self.prompt.value = phrase(Attributes(**said | {"object": said["object"] or TOY.objects[0]}))

    def draw(self, _=None):
        """Draw the prompt with every model, unless that is on show already; the menus follow it."""
        asked = self.prompt.value.strip(), self.noise.value
        if asked == self.shown:
            return
        self.status.value, self.shown = "Drawing …", asked
        want, strange = wish(asked[0])
        for name, menu in self.menus.items():
            menu.value = getattr(want, name)
        try:
            self.pair.value = self._drawn(*asked, want)
        except Exception as error:  # a widget has no place for a traceback
            self.pair.value, self.shown = "", None
            self.status.value = (
                f'<span class="no">This did not work: {html.escape(config.cause(error))}.</span>'
            )
            return
        told = f"No caption that the models learnt from had: {', '.join(strange)}."
        self.status.value = told * bool(strange and self.known)

    def _drawn(self, prompt, seed, want):
        """The pictures, with what is read in them, as HTML."""
        self.pipe.to([*self.unets.values()][-1].device)  # a training may have left it elsewhere
        parts = ""
        for name, unet in self.unets.items():
            [image] = diffusion.sample(self.pipe, [prompt], unet=unet, seed=seed, **self.drawing)
            picture = PICTURE.format(f"{name} model: {html.escape(prompt)}", b64encode(png(image)).decode())
            words = reading(self.reader, image, want) if self.reader else ""
            parts += f'<div class="{name}"><h3>{name.capitalize()} model</h3>{picture}{words}</div>'
        return f'<div class="pair">{parts}</div>'
