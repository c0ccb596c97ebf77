"""Labels from elsewhere: three formats, read whole or not at all; and for elsewhere: an image folder."""

import json
import shutil
from pathlib import Path

import pandas as pd

from .raters import counts
from .store import LABELS, LabelFileError, fits

COLUMNS = ("rater", "image", "prompt", "label", "seconds")


def read(path):
    """The judgements in a file, a DataFrame of rater, image, prompt, label and seconds.

    It is our CSV, Label Studio's JSON export (a list) or a TIA2-style JSON (an object by image). Images stay
    file names (or row numbers in our own CSV) and need not be at hand. Raises LabelFileError on the first
    wrong row.
    """
    path = Path(path)
    try:
        rows = [_judgement(*found) for found in _found(path)]
        if not rows:
            raise LabelFileError("whole file: no judgement in it")
    except LabelFileError as error:
        raise LabelFileError(
            f"{path.name}, {error}; correct it and read the file again, none of it was taken"
        ) from None
    return pd.DataFrame(rows)


def _found(path):
    """What stands in a file, in whichever format: (where, rater, image, prompt, label, seconds) each."""
    try:
        content = pd.read_csv(path) if path.suffix == ".csv" else json.loads(path.read_text())
    except (OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise LabelFileError(f"whole file: not readable as {path.suffix[1:] or 'JSON'} ({cause})") from None
    match content:
        case pd.DataFrame():
            return _csv(content)
        case list():
            return _label_studio(content)
        case dict():
            return _tia2(content)
    raise LabelFileError("whole file: neither a list nor an object")


def _judgement(where, *values):
    row = dict(zip(COLUMNS, values, strict=True))
    for name in ("rater", "image", "prompt"):
        if row[name] is None or row[name] != row[name] or not str(row[name]).strip():
            raise LabelFileError(f"{where}: {name} is empty")
    label = str(row["label"]).lower()
    if label not in LABELS:
        raise LabelFileError(f"{where}: label must be one of {', '.join(LABELS)}, not {row['label']!r}")
    return row | {"rater": str(row["rater"]), "prompt": str(row["prompt"]), "label": label}


def _csv(table):
    for column in COLUMNS[:4]:
        if column not in table:
            there = ", ".join(map(str, table))
            raise LabelFileError(f"header: no column {column!r} (there are {there})")
    for k, row in enumerate(table.reindex(columns=COLUMNS).itertuples(index=False), 2):
        yield f"row {k}", *row


def _label_studio(tasks):
    for k, task in enumerate(tasks, 1):
        match task:
            case {"data": dict(data), "annotations": list(annotations)}:
                image = str(data.get("image") or "").rsplit("/", 1)[-1]
                prompt = data.get("prompt") or data.get("caption") or data.get("text")
            case _:
                raise LabelFileError(f"task {k}: needs an object 'data' and a list 'annotations'")
        for j, one in enumerate(annotations, 1):
            where = f"task {k}, annotation {j}"
            try:
                label = _choice(one)
            except (AttributeError, LookupError, TypeError, StopIteration):
                raise LabelFileError(f"{where}: no choice among its results") from None
            who = one.get("completed_by")
            rater = who.get("email") if isinstance(who, dict) else who
            yield where, rater, image, prompt, label, one.get("lead_time")


def _choice(annotation):
    if annotation.get("was_cancelled"):
        return "skip"
    return next(r["value"]["choices"][0] for r in annotation["result"] if r["type"] == "choices")


def _tia2(entries):
    for name, entry in entries.items():
        where = f"entry {name!r}"
        match entry:
            case {"human_labels": [_, *_] as votes}:
                image = Path(str(entry.get("image") or "")).name
            case _:
                raise LabelFileError(f"{where}: human_labels must be a list of 0 and 1")
        for j, vote in enumerate(votes, 1):
            if type(vote) is not int or vote not in (0, 1):
                raise LabelFileError(f"{where}, human_labels {j}: must be 0 or 1, not {vote!r}")
            yield where, f"rater-{j}", image, entry.get("caption"), ("bad", "good")[vote], None


def belonging(table, images):
    """The judgements of a table that fit the image folder `images` (an ImageFolder): dicts for `Store.add`.

    An image is a row number or a file name; one that does not exist, now stands for another prompt, or is
    known to be another picture by now is left out.
    """
    rows = {name: row for row, name in enumerate(images.rows.file_name)}
    table = table.assign(image=[rows.get(image, image) for image in table.image])
    return [row for row in table.to_dict("records") if fits(row, images, images.rows.prompt)]


def export(folder, images, table):
    """Write a Hugging Face image folder of every judged picture, and the judgements as judgements.csv.

    Its metadata.csv has each picture's prompt, votes and share of good ones.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = images.rows[["file_name", "prompt"]].join(counts(table), how="inner")
    for name in rows.file_name:
        shutil.copy(images.folder / name, folder / name)
    label = rows.good / (rows.good + rows.bad)
    rows.assign(label=label.round(4)).to_csv(folder / "metadata.csv", index=False)
    table.to_csv(folder / "judgements.csv", index=False)
