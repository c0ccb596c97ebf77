"""Labels from elsewhere, read whole or not at all and joined to pictures; for elsewhere an image folder."""

import contextlib
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd

from .. import config
from ..files import write_text, writing
from . import formats
from .formats import COLUMNS, plain
from .raters import counts
from .store import LABELS, LabelFileError, misfit

SAID = {name: name for name in LABELS} | {"1": "good", "true": "good", "0": "bad", "false": "bad"}
UPLOADED = re.compile("[0-9a-f]{8}-")  # Label Studio puts this before the name of a file that was uploaded
MARK = re.compile("[0-9a-f]{16}")  # a `fingerprint`
WHY = {  # a judgement stays out
    "name": "no picture here has their name",
    "prompt": "the picture stands for another prompt",
    "picture": "it is another picture by now",
}


def read(path):
    """The judgements in a file, a DataFrame of rater, image, prompt, label, seconds, time and picture.

    It is our CSV, what Label Studio exports as JSON, JSON-MIN or CSV, or a TIA2-style JSON (an object by
    image). Images stay names (or row numbers in our own CSV) and need not be at hand; a row that stands there
    twice counts once. Raises LabelFileError on the first wrong row.
    """
    path = Path(path)
    try:
        rows = [_judgement(*found) for found in formats.found(path)]
        if not rows:
            raise LabelFileError("whole file: no judgement in it")
    except LabelFileError as error:
        raise LabelFileError(
            f"{path.name}, {error}; correct it and read the file again, none of it was taken"
        ) from None
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(ignore_index=True)


def _judgement(where, row):
    """A row of `read`: words are words, numbers numbers, the label is one of ours."""
    known = {}
    for name in ("rater", "image", "prompt"):
        if not isinstance(row[name], str | int | float | None):
            raise LabelFileError(f"{where}: {name} must be words, not {config.shown(row[name])}")
        known[name] = plain(row[name])
        if not known[name]:
            raise LabelFileError(f"{where}: {name} is empty")
    known["label"] = SAID.get(plain(row["label"]).lower().removesuffix(".0"))
    if not known["label"]:
        raise LabelFileError(
            f"{where}: label must be one of {', '.join(LABELS)}, not {config.shown(row['label'])}"
        )
    known |= {name: _number(where, name, row.get(name)) for name in ("seconds", "time")}
    mark = plain(row.get("picture"))
    return known | {"time": known["time"] or 0.0, "picture": mark if MARK.fullmatch(mark) else None}


def _number(where, name, value):
    try:
        return None if value in (None, "") else float(str(value).replace(",", "."))
    except ValueError:
        raise LabelFileError(f"{where}: {name} must be a number, not {config.shown(value)}") from None


def imported(path, images, known=()):
    """`joined` of a file, less what is `known` already (dicts as well).

    Raises LabelFileError where none of its judgements fits.
    """
    rows, told = joined(read(path), images)
    if not rows:
        raise LabelFileError(f"{Path(path).name}: {told}; give the labels of these very pictures")
    there = {(row["rater"], row["image"], row["time"]) for row in known}
    return [row for row in rows if (row["rater"], row["image"], row["time"]) not in there], told


def joined(table, images):
    """The judgements of a table that fit the image folder `images` (an ImageFolder), and a word on the rest.

    They are dicts for `Store.add`. An image is a row number or a name, with folders or without, as Label
    Studio changes it or not. What names no picture, one that now stands for another prompt, or one that is
    known to be another picture by now is left out: the word says how many and why, "" where none is.
    """
    rows, out = [], Counter()
    find, prompts = _finder(images.rows), images.rows.prompt.tolist()
    for row in table.to_dict("records"):
        row["image"] = at = find(row["image"])
        if isinstance(at, int) and 0 <= at < len(prompts) and plain(row["prompt"]) == plain(prompts[at]):
            row["prompt"] = prompts[at]
        if why := misfit(row, images, prompts):
            out[why] += 1
        else:
            rows.append(row)
    whys = "; ".join(f"{n} because {WHY[why]}" for why, n in out.items())
    return rows, whys and f"{out.total()} of {len(table)} labels join no picture ({whys})"


def _finder(rows):
    """find(image): the row of the picture that is called so, or the number that `image` is, or None."""
    known = {}  # {name: rows}
    for column in ("file_name", "source")[: 1 + ("source" in rows)]:
        for row, name in enumerate(rows[column]):
            for called in _called(_place(name)):
                known.setdefault((column, called), set()).add(row)

    @cache
    def find(image):
        if isinstance(image, int):
            return image
        place = _place(image)
        for column in ("source", "file_name"):  # the name that a picture came with is what others know
            for called in _sought(place):
                if len(found := known.get((column, called), ())) == 1:
                    return next(iter(found))
        return int(place) if place.isdecimal() and len(place) < 9 else None

    return find


def _place(name):
    """Path, URL or Label Studio's own address of a picture as a path: `sub/a.png`."""
    name = plain(name)
    with contextlib.suppress(ValueError):  # no URL after all
        if asked := "?" in name and parse_qs(urlsplit(name).query).get("d"):
            name = asked[0]  # /data/local-files/?d=sub/a.png
        elif re.match(r"\w+://", name):
            name = urlsplit(name).path
    return unquote(name).replace("\\", "/").removeprefix("./").strip("/")


def _called(place):
    """How a picture at `place` may be called elsewhere."""
    yield "exact", place
    for form in _forms(place):
        whole, *tails = _tails(form)
        yield "whole", whole
        yield from (("tail", tail) for tail in tails)
    yield "uploaded", _uploaded(place)


def _sought(place):
    """Which picture is meant by `place`, the surest first."""
    yield "exact", place
    for form in _forms(place):
        yield from (("whole", tail) for tail in _tails(form))
        yield "tail", form
    if UPLOADED.match(name := place.rpartition("/")[2]):
        yield "uploaded", _uploaded(name[9:])


def _forms(place):
    """In small letters, with and without what says how the file is encoded."""
    return place.lower(), re.sub(r"\.\w{1,5}$", "", place.lower())


def _tails(place):
    parts = place.split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def _uploaded(place):
    """A file's name as Label Studio keeps it, less its own beginning."""
    name = place.lower().rpartition("/")[2]
    return re.sub(r"[^-\w.]", "", name.replace(" ", "_"))


def export(folder, images, table):
    """Write a Hugging Face image folder of every judged picture, and the judgements as judgements.csv.

    Its metadata.csv has each picture's prompt, votes and share of good ones. Raises ArtifactError where it
    cannot be written.
    """
    folder = Path(folder)
    table = pd.DataFrame(joined(table, images)[0], columns=table.columns)
    rows = images.rows[["file_name", "prompt"]].join(counts(table), how="inner")
    with writing(folder):
        for name in rows.file_name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images.folder / name, folder / name)
    label = rows.good / (rows.good + rows.bad)
    write_text(folder / "metadata.csv", rows.assign(label=label.round(4)).to_csv(index=False))
    named = table.assign(image=table.image.map(images.rows.file_name))
    write_text(folder / "judgements.csv", named.to_csv(index=False))
