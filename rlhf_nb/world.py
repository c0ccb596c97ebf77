"""The toy world: 64 x 64 scenes with a known truth, and captions that are noisy as the web's are.

Every scene is a pure function of (seed, index). Objects are solid glyphs of DejaVu Sans, which matplotlib ships.
"""

from functools import cache
from pathlib import Path

import numpy as np

from .prompts import BACKGROUNDS, COLOURS, TOY, Attributes, phrase, plural

SIZE = 64
GLYPHS = dict(zip(TOY.objects, "✈★♥☂♞⚑♜🐱☁✿♦⌂", strict=True))
RGB = dict(zip(COLOURS, ((220, 40, 40), (245, 215, 40), (40, 165, 70), (40, 80, 220), (25, 25, 25), (250, 150, 190),
                         (140, 50, 180), (245, 245, 245), (130, 80, 40)), strict=True))
# Web captions name small numbers often and well, large ones seldom and badly; colours and places are mostly right.
COUNT_NAMED = (0.90, 0.70, 0.60, 0.55, 0.50, 0.50)   # P(caption states a number | true count)
COUNT_WRONG = (0.03, 0.20, 0.30, 0.36, 0.40, 0.40)   # P(the number is moved by one or two, then held within 1-6 | true count)
DROP = {"colour": 0.20, "background": 0.25}
WRONG = {"object": 0.02, "colour": 0.12, "background": 0.04}
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@cache
def _glyph(name, bend=None):
    """High-resolution solid mask of one object, (256, 256) in [0, 1], and the same grown by a rim; `bend` numbers a random distortion."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont
    from scipy import ndimage

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 400)
    canvas = Image.new("L", (800, 800))
    ImageDraw.Draw(canvas).text((400, 400), GLYPHS[name], font=font, anchor="mm", fill=255)
    solid = ndimage.binary_fill_holes(np.asarray(canvas) > 127)
    if name == "cat":
        solid = ndimage.binary_opening(solid, iterations=9)  # the whiskers
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    solid = solid[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    scale = 208 / max(solid.shape)
    small = Image.fromarray(solid.astype(np.uint8) * 255).resize([max(1, round(s * scale)) for s in solid.shape[::-1]])
    mask = Image.new("L", (256, 256))
    mask.paste(small, ((256 - small.width) // 2, (256 - small.height) // 2))
    mask = np.asarray(mask)
    if bend is not None:
        fields = np.random.default_rng([*name.encode(), bend]).normal(0, 22 + 2.5 * (bend % 16), (2, 6, 6))
        shift = np.stack([ndimage.zoom(f, 256 / 6, order=3) for f in fields])
        mask = ndimage.map_coordinates(mask, np.mgrid[0:256, 0:256] + shift, order=1)
    distance = ndimage.distance_transform_edt(mask < 128)
    return Image.fromarray(np.where(distance <= 4, 255, 0).astype(np.uint8)), Image.fromarray(np.where(distance <= 20, 255, 0).astype(np.uint8))


@cache
def _stamp(name, size):
    """Alpha of the filled shape and of shape plus rim at `size` pixels, each (size, size, 1) float32.

    What a judge must not accept: a pair of names is a chimera, the left half of one and the right half of the other; a name with a
    number is that shape bent beyond recognition.
    """
    from PIL import Image

    if isinstance(name, tuple) and isinstance(name[1], str):
        left, right = (_stamp(n, size) for n in name)
        return tuple(np.concatenate((a[:, :size // 2], b[:, size // 2:]), 1) for a, b in zip(left, right, strict=True))
    masks = _glyph(*name) if isinstance(name, tuple) else _glyph(name)
    return tuple(np.asarray(m.resize((size, size), Image.BOX), np.float32)[..., None] / 255 for m in masks)


def _blend(top, bottom, weight):
    return np.asarray(bottom, np.float32) + (np.asarray(top, np.float32) - np.asarray(bottom, np.float32)) * weight[..., None]


def _background(name, rng):
    """One backdrop, (64, 64, 3) float32 in 0-255: few large shapes, so that a small autoencoder keeps them."""
    u = rng.random(3)  # three numbers vary a place: chance detail would only cost the autoencoder capacity
    sky = _Y / SIZE
    if name == "in the forest":
        image = _blend((45, 95, 45), (18, 48, 28), sky)
        for k in range(5):
            tree = np.abs(_X - 64 * (k + 0.35 + 0.3 * u[0]) / 5) < (_Y - 10 - 14 * (k % 2) - 6 * u[1]) * 0.22
            image[tree] = (34 + 8 * (k % 2), 86 + 10 * (k % 2), 36)
    elif name == "in the city":
        image = _blend((205, 208, 214), (150, 170, 200), sky)
        for k in range(6):
            tower = (np.abs(_X - 64 * (k + 0.5) / 6) < 5) & (_Y > (34, 24, 40, 20, 32, 26)[k] + 6 * (u[0] - 0.5))
            image[tower] = 92 + 14 * (k % 3)
    elif name == "on the moon":
        image = np.where((_Y > 34 + 10 * u[0])[..., None], np.float32(160), np.float32((10, 10, 24))) + np.zeros((SIZE, SIZE, 3), np.float32)
        for k in range(3):
            crater = ((_X - 64 * (k + 0.3 + 0.4 * u[1]) / 3) / 7) ** 2 + ((_Y - 56 + 4 * (k % 2)) / 2.5) ** 2 < 1
            image[crater] = 118
    elif name == "in the field":
        hill = _Y > 36 + 8 * u[0] + 4 * np.sin(_X / 14 + 3 * u[1])
        image = np.where(hill[..., None], _blend((95, 170, 60), (135, 205, 85), sky), _blend((190, 225, 245), (135, 195, 240), sky))
    elif name == "in the sea":
        image = np.where((_Y > 14 + 8 * u[0])[..., None], _blend((12, 50, 120), (30, 110, 185), sky), np.float32((185, 222, 238)))
        for k in range(3):
            wave = np.abs(_Y - 31 - 11 * k - 1.5 * np.sin(_X / 4 + 3 * k + 2 * u[1])) < 1.2
            image[wave] = (95, 165, 215)
    elif name == "on the table":
        edge = 34 + 8 * u[0]
        image = np.where((_Y > edge)[..., None], _blend((165, 105, 60), (140, 85, 45), sky), np.float32((228, 210, 182)))
        image[np.abs(_Y - edge) < 1.5] = (95, 55, 30)
    elif name == "in the desert":
        image = _blend((252, 205, 130), (250, 228, 175), sky)
        for k, shade in enumerate(((226, 172, 92), (205, 148, 72))):
            image[_Y > 34 + 14 * k + 5 * u[0] + 5 * np.sin(_X / 13 + 3 * k + 3 * u[1])] = shade
    else:  # in San Francisco: a red bridge in fog
        deck, first = 41 + 2 * u[0], 14 + 3 * u[1]
        image = np.where((_Y > deck + 8)[..., None], np.float32((96, 132, 150)), _blend((222, 224, 228), (190, 198, 210), sky))
        between = np.clip((_X - first) / 34, -0.45, 1.45)
        cable = np.abs(_Y - (deck - 2 - 26 * np.abs(2 * between - 1) ** 2)) < 1.1
        image[(cable & (_Y < deck)) | (np.abs(_Y - deck) < 1.6)] = (205, 70, 45)
        for x in (first, first + 34):
            image[(np.abs(_X - x) < 1.8) & (np.abs(_Y - deck + 8) < 20)] = (205, 70, 45)
    return image * np.float32(0.94 + 0.12 * u[2])


def _places(count, rng):
    """Centres and sizes of `count` objects that never overlap: distinct cells of a grid, jittered inside the cell."""
    grids = [((1, 1), (2, 2)), ((2, 2),), *[((2, 2), (3, 2), (2, 3))] * 2, *[((3, 2), (2, 3), (3, 3))] * 2, *[((3, 3),)] * 2][count - 1 if count else 0]
    columns, rows = grids[rng.integers(len(grids))]
    cell = np.array((SIZE / columns, SIZE / rows))
    largest = min(cell.min(), 40)
    for k in rng.permutation(columns * rows)[:count]:
        size = int(largest * rng.uniform(0.80, 1.0))
        slack = (cell - size) / 2
        centre = (np.array((k % columns, k // columns)) + 0.5) * cell + rng.uniform(-1, 1, 2) * slack
        yield centre, size


def draw(objects, colours, background, rng):
    """One scene with the listed objects (same length as `colours`), uint8 (64, 64, 3)."""
    image = _background(background, rng)
    tint = rng.uniform(-12, 12, 3)  # one light for the whole scene
    for (centre, size), name, colour in zip(_places(len(objects), rng), objects, colours, strict=True):
        fill = np.clip(np.float32(RGB[colour]) + tint, 0, 255)
        rim = 250.0 if fill @ (0.3, 0.59, 0.11) < 135 else 20.0
        left, top = (int(v) for v in np.clip(np.round(centre - size / 2), 0, SIZE - size))
        shape, grown = _stamp(name, size)
        patch = image[top:top + size, left:left + size]
        patch += (rim - patch) * grown
        patch += (fill - patch) * shape
    return np.clip(image, 0, 255).astype(np.uint8)


def rng_of(seed, index):
    """The generator of scene `index`: the only source of randomness in it."""
    return np.random.default_rng([int(seed), int(index)])


def render(wants, seed, indices):
    """Scenes for complete `Attributes` (unspecified ones are drawn at random): uint8 (B, 64, 64, 3)."""
    images = np.empty((len(wants), SIZE, SIZE, 3), np.uint8)
    for k, (want, index) in enumerate(zip(wants, indices, strict=True)):
        rng = rng_of(seed, index)
        full = complete(want, rng)
        images[k] = draw([full.object] * full.count, [full.colour] * full.count, full.background, rng)
    return images


def complete(want, rng):
    """`want` with every unmentioned attribute drawn: counts as on the web (1/n), the rest uniformly."""
    free = Attributes(want.object, int(rng.choice(6, p=_LONG_TAIL)) + 1, COLOURS[rng.integers(9)], BACKGROUNDS[rng.integers(8)])
    return Attributes(want.object, want.count or free.count, want.colour or free.colour, want.background or free.background)


_LONG_TAIL = (1 / np.arange(1, 7)) / (1 / np.arange(1, 7)).sum()


def scene(seed, index, uniform=False):
    """Attributes of pre-training scene `index`; `uniform` draws counts evenly (for the judge, not for pre-training)."""
    rng = np.random.default_rng([int(seed), int(index), 1])
    name = TOY.objects[rng.integers(len(TOY.objects))]
    return Attributes(name, int(rng.integers(1, 7)), COLOURS[rng.integers(9)], BACKGROUNDS[rng.integers(8)]) if uniform else complete(Attributes(name), rng)


def caption(truth, seed, index):
    """A noisy caption of a complete scene: words dropped, attributes sometimes wrong, large counts unreliable."""
    rng = np.random.default_rng([int(seed), int(index), 2])

    def other(values, value):
        return values[(values.index(value) + 1 + rng.integers(len(values) - 1)) % len(values)]

    name = other(TOY.objects, truth.object) if rng.random() < WRONG["object"] else truth.object
    colour = other(COLOURS, truth.colour) if rng.random() < WRONG["colour"] else truth.colour
    background = other(BACKGROUNDS, truth.background) if rng.random() < WRONG["background"] else truth.background
    colour = None if rng.random() < DROP["colour"] else colour
    background = None if rng.random() < DROP["background"] else background
    count = truth.count
    if rng.random() < COUNT_WRONG[truth.count - 1]:
        count = int(np.clip(count + rng.choice((-2, -1, 1, 2), p=(0.15, 0.35, 0.35, 0.15)), 1, 6))
    if rng.random() < COUNT_NAMED[truth.count - 1]:
        said = Attributes(name, count, colour, background)
        if count == 1 and rng.random() < 0.5:
            said = Attributes(name, None, colour, background)  # "A star in the sea."
        return phrase(said, "new" if rng.random() < 0.25 else "paper")
    words = [("some" if truth.count < 4 else "many") if rng.random() < 0.5 and truth.count > 1 else None, colour,
             name if truth.count == 1 else plural(name), background]
    return " ".join(w for w in words if w).capitalize().replace("san francisco", "San Francisco") + "."


def pairs(n, seed, start=0):
    """`n` pre-training pairs from scene `start` on: (images uint8 (n, 64, 64, 3), captions, truths)."""
    indices = range(start, start + n)
    truths = [scene(seed, i) for i in indices]
    return render(truths, seed, indices), [caption(t, seed, i) for t, i in zip(truths, indices, strict=True)], truths

