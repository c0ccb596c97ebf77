"""A blind sheet of pairs: is the tuned model preferred where the judge finds just one of two pictures right?

    python tests/eye/blind.py FOLDER              sheets to look at, and which side is whose in sealed.csv
    python tests/eye/blind.py FOLDER marks.txt    with L, R or - for every pair, in reading order: pairs.csv

It asks for the finished chapters 01 to 06 at toy scale; the tuned model is the shipped one.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from rlhf_nb import diffusion, files, prompts, readers, runs

PAIRS, NOISE, SIDES = 100, 61, 321  # seeds of the noise and of the lots
ROWS, COLUMNS, SIZE = 5, 4, 170


def drawn():
    """The held-out prompts, pictures of both models (N, 64, 64, 3), and which of them are right (N)."""
    table = files.read_table(runs.result("toy", "prompts", "prompts.csv"))
    asked = table.query("split == 'heldout' and category == 'combination' and use == 'evaluate'")
    guidance = files.read_json(runs.result("toy", "evaluate", "numbers.json"))
    pipe, reader = diffusion.load("toy/pipeline"), readers.load("toy/judge", None)
    images, right = {}, {}
    for name, unet in {"base": pipe.unet, "tuned": diffusion.load_unet("toy/tuned", pipe)}.items():
        how = {"unet": unet, "guidance": guidance[f"guidance_{name}"], "steps": 8, "seed": NOISE}
        images[name] = diffusion.sample(pipe, asked.prompt.tolist(), **how)
        right[name] = reader.examine(images[name], prompts.wants(asked))["all"]
    return asked, images, right


def sheet(pairs, sentences):
    """One picture of pairs (N, 2, 64, 64, 3) in rows, the prompt below each."""
    wide, high, font = 2 * SIZE + 10, SIZE + 32, ImageFont.load_default(size=14)
    page = Image.new("RGB", (COLUMNS * wide, ROWS * high), "white")
    pen = ImageDraw.Draw(page)
    for k, (pair, sentence) in enumerate(zip(pairs, sentences, strict=True)):
        x, y = k % COLUMNS * wide, k // COLUMNS * high
        for side, image in enumerate(pair):
            large = Image.fromarray(image).resize((SIZE, SIZE), Image.LANCZOS)
            page.paste(large, (x + side * (SIZE + 2), y))
        pen.text((x, y + SIZE + 2), f"{k} {sentence}", fill="black", font=font)
    return page


def draw(folder):
    """Sheets of the first pairs of which exactly one is right, and sealed.csv: prompt, left, judge."""
    asked, images, right = drawn()
    one = np.flatnonzero(right["base"] != right["tuned"])[:PAIRS]
    left = np.random.default_rng(SIDES).integers(0, 2, PAIRS)[: len(one)] == 1  # is it the tuned model's?
    base, tuned = images["base"][one], images["tuned"][one]
    swapped = left[:, None, None, None]
    pairs = np.stack([np.where(swapped, tuned, base), np.where(swapped, base, tuned)], 1)
    names = {"left": left, "judge": right["tuned"][one]}
    rows = {name: np.where(of, "tuned", "base") for name, of in names.items()}
    rows = asked.iloc[one][["prompt"]].assign(**rows)
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "sealed.csv", index=False)
    for k in range(0, len(one), ROWS * COLUMNS):
        here = slice(k, k + ROWS * COLUMNS)
        sheet(pairs[here], rows.prompt[here]).save(folder / f"sheet-{k // (ROWS * COLUMNS) + 1}.png")


def unseal(folder, marks):
    """pairs.csv: the sealed rows and whose picture the eye preferred, "neither" where it could not tell."""
    rows = files.read_table(folder / "sealed.csv", ("prompt", "left", "judge"))
    other = rows.left.map({"base": "tuned", "tuned": "base"})
    marked = pd.Series(marks, rows.index)  # a mark for every pair
    rows["eye"] = np.select([marked == "L", marked == "R"], [rows.left, other], "neither")
    rows.to_csv(folder / "pairs.csv", index=False)


if __name__ == "__main__":
    place, *given = map(Path, sys.argv[1:])
    unseal(place, given[0].read_text().split()) if given else draw(place)
