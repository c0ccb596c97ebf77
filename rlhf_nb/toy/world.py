"""The toy world: 64 x 64 scenes with a known truth, and captions that are noisy as the web's are.

Every scene is a pure function of (seed, index). Objects are solid glyphs of DejaVu Sans, which matplotlib
ships.
"""

from dataclasses import replace
from functools import cache

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from ..prompts import BACKGROUNDS, COLOURS, TOY, Attributes, phrase, plural, sentence

SIZE = 64  # pixels
GLYPHS = dict(zip(TOY.objects, "✈★♥☂♞⚑♜🐱☁✿♦⌂", strict=True))
RGB = {
    "red": "#dc2828",
    "yellow": "#f5d728",
    "green": "#28a546",
    "blue": "#2850dc",
    "black": "#191919",
    "pink": "#fa96be",
    "purple": "#8c32b4",
    "white": "#f5f5f5",
    "brown": "#825028",
}
# Web captions name small numbers often and well, large ones seldom and badly; the rest is mostly right.
COUNT_NAMED = (0.90, 0.70, 0.60, 0.55, 0.50, 0.50)  # P(caption states a number | true count)
COUNT_WRONG = (0.03, 0.20, 0.30, 0.36, 0.40, 0.40)  # P(it is moved by one or two, held in 1-6 | true count)
DROP = {"colour": 0.20, "background": 0.25}
WRONG = {"object": (TOY.objects, 0.02), "colour": (COLOURS, 0.12), "background": (BACKGROUNDS, 0.04)}
COUNTED = (1 / np.arange(1, 7)) / (1 / np.arange(1, 7)).sum()  # P(true count): a long tail, as on the web
# (columns, rows) of a grid: how many objects may be laid out on it
GRIDS = {
    (1, 1): range(2),
    (2, 2): range(5),
    (3, 2): range(3, 7),
    (2, 3): range(3, 7),
    (3, 3): range(5, 9),
}
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@cache
def _solid(name):
    """High-resolution mask of one object, an image of 256 x 256 in 0-255."""
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 400)
    canvas = Image.new("L", (800, 800))
    ImageDraw.Draw(canvas).text((400, 400), GLYPHS[name], font=font, anchor="mm", fill=255)
    solid = ndimage.binary_fill_holes(np.asarray(canvas) > 127)
    if name == "cat":
        solid = ndimage.binary_opening(solid, iterations=9)  # the whiskers
    shape = Image.fromarray(solid.astype(np.uint8) * 255)
    shape = ImageOps.contain(shape.crop(shape.getbbox()), (208, 208))
    mask = Image.new("L", (256, 256))
    mask.paste(shape, ((256 - shape.width) // 2, (256 - shape.height) // 2))
    return mask


@cache
def _outlines(name, bend):
    """An object's shape and the same grown by a rim, two images of 256 x 256; `bend` numbers a distortion."""
    mask = np.asarray(_solid(name))
    if bend is not None:
        fields = np.random.default_rng([*name.encode(), bend]).normal(0, 22 + 2.5 * (bend % 16), (2, 6, 6))
        shift = np.stack([ndimage.zoom(field, 256 / 6, order=3) for field in fields])
        mask = ndimage.map_coordinates(mask, np.mgrid[0:256, 0:256] + shift, order=1)
    distance = ndimage.distance_transform_edt(mask < 128)
    return [Image.fromarray((distance <= rim).astype(np.uint8) * 255) for rim in (4, 20)]


@cache
def _stamp(size, left, right, bend):
    """Alpha of the filled shape and of shape plus rim, (size, size, 1) float32 each.

    The left half is of one object and the right half of another, mostly the same one.
    """
    halves = []
    for name in (left, right):
        small = [mask.resize((size, size), Image.BOX) for mask in _outlines(name, bend)]
        halves.append(np.stack(small).astype(np.float32)[..., None] / 255)
    return np.where(np.arange(size)[:, None] < size // 2, *halves)


def _rgb(colour):
    """A colour like "#dc2828" as float32 (3,) in 0-255."""
    return np.float32(ImageColor.getrgb(colour))


def _fade(low, high):
    """A backdrop that goes from colour `high` at its top to `low` at its bottom, float32 "#404003"."""
    return _rgb(high) + (_rgb(low) - _rgb(high)) * (_Y / SIZE)[..., None]


def _horizon(edge, below, above):
    """`below` in the picture's rows under `edge` and `above` in the others: images or colours."""
    return np.where((_Y > edge)[..., None], below, above)


# One backdrop each, (64, 64, 3) float32 in 0-255: few large shapes, so that a small autoencoder keeps them,
# and two numbers u in 0-1 that vary it, for chance detail would only cost the autoencoder capacity.


def _forest(u):
    image = _fade("#2d5f2d", "#12301c")
    for k in range(5):
        width = (_Y - 10 - 14 * (k % 2) - 6 * u[1]) * 0.22
        tree = np.abs(_X - 64 * (k + 0.35 + 0.3 * u[0]) / 5) < width
        image[tree] = _rgb(("#225624", "#2a6024")[k % 2])
    return image


def _city(u):
    image = _fade("#cdd0d6", "#96aac8")
    for k, roof in enumerate((34, 24, 40, 20, 32, 26)):
        tower = (np.abs(_X - 64 * (k + 0.5) / 6) < 5) & (_Y > roof + 6 * (u[0] - 0.5))
        image[tower] = 92 + 14 * (k % 3)
    return image


def _moon(u):
    image = _horizon(34 + 10 * u[0], _rgb("#a0a0a0"), _rgb("#0a0a18"))
    for k in range(3):
        across, down = _X - 64 * (k + 0.3 + 0.4 * u[1]) / 3, _Y - 56 + 4 * (k % 2)
        image[(across / 7) ** 2 + (down / 2.5) ** 2 < 1] = 118  # a crater
    return image


def _field(u):
    hill = 36 + 8 * u[0] + 4 * np.sin(_X / 14 + 3 * u[1])
    return _horizon(hill, _fade("#5faa3c", "#87cd55"), _fade("#bee1f5", "#87c3f0"))


def _sea(u):
    image = _horizon(14 + 8 * u[0], _fade("#0c3278", "#1e6eb9"), _rgb("#b9deee"))
    for k in range(3):
        wave = np.abs(_Y - 31 - 11 * k - 1.5 * np.sin(_X / 4 + 3 * k + 2 * u[1])) < 1.2
        image[wave] = _rgb("#5fa5d7")
    return image


def _table(u):
    edge = 34 + 8 * u[0]
    image = _horizon(edge, _fade("#a5693c", "#8c552d"), _rgb("#e4d2b6"))
    image[np.abs(_Y - edge) < 1.5] = _rgb("#5f371e")
    return image


def _desert(u):
    image = _fade("#fccd82", "#fae4af")
    for k, shade in enumerate(("#e2ac5c", "#cd9448")):
        image[_Y > 34 + 14 * k + 5 * u[0] + 5 * np.sin(_X / 13 + 3 * k + 3 * u[1])] = _rgb(shade)
    return image


def _bridge(u):
    """San Francisco: a red bridge in fog."""
    deck, first = 41 + 2 * u[0], 14 + 3 * u[1]
    image = _horizon(deck + 8, _rgb("#608496"), _fade("#dee0e4", "#bec6d2"))
    between = np.clip((_X - first) / 34, -0.45, 1.45)
    cable = np.abs(_Y - (deck - 2 - 26 * np.abs(2 * between - 1) ** 2)) < 1.1
    red = (cable & (_Y < deck)) | (np.abs(_Y - deck) < 1.6)
    for x in (first, first + 34):
        red |= (np.abs(_X - x) < 1.8) & (np.abs(_Y - deck + 8) < 20)
    image[red] = _rgb("#cd462d")
    return image


PLACES = dict(zip(BACKGROUNDS, (_forest, _city, _moon, _field, _sea, _table, _desert, _bridge), strict=True))


def _centres(count, rng):
    """Centres and sizes of `count` objects that never overlap: distinct cells of a grid, jittered inside."""
    fitting = [grid for grid, counts in GRIDS.items() if count in counts]
    columns, rows = fitting[rng.integers(len(fitting))]
    cell = np.array((SIZE / columns, SIZE / rows))
    largest = min(cell.min(), 40)
    for k in rng.permutation(columns * rows)[:count]:
        size = int(largest * rng.uniform(0.80, 1.0))
        slack = (cell - size) / 2
        centre = (np.array((k % columns, k // columns)) + 0.5) * cell + rng.uniform(-1, 1, 2) * slack
        yield centre, size


def paint(objects, colours, background, rng, spoilt=()):
    """One scene with the listed objects (as many as `colours`, at most eight), uint8 (64, 64, 3).

    `spoilt` holds what a judge must not accept, {object's place in the list: (name, number)}: a shape whose
    right half is of another name, or that is bent beyond recognition in one of many numbered ways.
    """
    *u, light = rng.random(3)
    image = PLACES[background](u) * np.float32(0.94 + 0.12 * light)
    tint = rng.uniform(-12, 12, 3)  # one for the whole scene
    for k, (centre, size) in enumerate(_centres(len(objects), rng)):
        right, bend = spoilt[k] if k in spoilt else (objects[k], None)
        shape, grown = _stamp(size, objects[k], right, bend)
        fill = np.clip(_rgb(RGB[colours[k]]) + tint, 0, 255)
        rim = 250.0 if fill @ (0.3, 0.59, 0.11) < 135 else 20.0
        left, top = np.clip(np.round(centre - size / 2), 0, SIZE - size).astype(int)
        patch = image[top : top + size, left : left + size]
        patch += (rim - patch) * grown
        patch += (fill - patch) * shape
    return np.clip(image, 0, 255).astype(np.uint8)


def rng_of(*key):
    """The generator of scene (seed, index), the only source of randomness in it; more numbers give others."""
    return np.random.default_rng(key)


def another(values, value, rng):
    """One of the other `values`, drawn evenly."""
    return values[(values.index(value) + rng.integers(1, len(values))) % len(values)]


def render(wants, seed, indices):
    """Scenes for `Attributes`, unmentioned ones drawn at random: uint8 (B, 64, 64, 3)."""
    images = np.empty((len(wants), SIZE, SIZE, 3), np.uint8)
    for k, (want, index) in enumerate(zip(wants, indices, strict=True)):
        rng = rng_of(seed, index)
        full = complete(want, rng)
        images[k] = paint([full.object] * full.count, [full.colour] * full.count, full.background, rng)
    return images


def complete(want, rng, counted=COUNTED):
    """`want` with every unmentioned attribute drawn: counts as on the web (1/n), the rest evenly."""
    drawn = {
        "count": int(rng.choice(6, p=counted)) + 1,
        "colour": COLOURS[rng.integers(9)],
        "background": BACKGROUNDS[rng.integers(8)],
    }
    return replace(want, **{a: value for a, value in drawn.items() if a not in want.asked})


def scene(seed, index, uniform=False):
    """Attributes of scene `index`; `uniform` draws counts evenly, for the judge, not for pre-training."""
    rng = rng_of(seed, index, 1)
    want = Attributes(TOY.objects[rng.integers(len(TOY.objects))])
    return complete(want, rng, None if uniform else COUNTED)


def caption(truth, seed, index):
    """A noisy caption of a complete scene: words dropped, attributes at times wrong, large counts often."""
    rng = rng_of(seed, index, 2)
    said = {}
    for name, (values, chance) in WRONG.items():
        said[name] = getattr(truth, name)
        if rng.random() < chance:
            said[name] = another(values, said[name], rng)
    for name, chance in DROP.items():
        if rng.random() < chance:
            said[name] = None
    count = truth.count
    if rng.random() < COUNT_WRONG[truth.count - 1]:
        count = int(np.clip(count + rng.choice((-2, -1, 1, 2), p=(0.15, 0.35, 0.35, 0.15)), 1, 6))
    if rng.random() < COUNT_NAMED[truth.count - 1]:
        if count == 1 and rng.random() < 0.5:
            count = None  # "A star in the sea."
        return phrase(Attributes(count=count, **said), rng.random() < 0.25)
    quantity, noun = None, said["object"]
    if truth.count > 1:
        noun = plural(noun)
        if rng.random() < 0.5:
            quantity = "some" if truth.count < 4 else "many"
    return sentence(quantity, said["colour"], noun, said["background"])


def pairs(n, seed, start=0):
    """`n` pre-training pairs from scene `start` on: (images uint8 (n, 64, 64, 3), captions, truths)."""
    indices = range(start, start + n)
    truths = [scene(seed, i) for i in indices]
    return render(truths, seed, indices), [caption(truths[i - start], seed, i) for i in indices], truths
