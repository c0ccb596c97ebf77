"""What label files look like: rows of ours, of Label Studio's exports and of TIA2-style JSON, as they stand.

Each is (where, {column: value}), to name a wrong one by.
"""

import contextlib
import csv
import io
import json
import unicodedata

from .. import config
from .store import LABELS, LabelFileError

COLUMNS = "rater image prompt label seconds time picture".split()
NEEDED = COLUMNS[:4]
NAMES = {  # what Label Studio calls a column of ours
    "rater": ("annotator", "completed_by"),
    "image": ("file_name",),
    "prompt": ("caption", "text"),
    "seconds": ("lead_time",),
}
OWN = {"id", "annotation_id", "created_at", "updated_at"}  # its columns that say nothing of the picture


def found(path):
    """What stands in a file, in whichever format: (where, {column: value}) of each judgement."""
    try:
        content = config.contents(path.expanduser())
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        text = text.strip(" \r\n")
        is_json = text[:1] in ("[", "{") or path.suffix.lower() == ".json"
        content = json.loads(text) if text and is_json else text
        json.dumps(content, ensure_ascii=False).encode()  # JSON can hold halves of characters
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such home, nested too deep
        cause = "it is not in UTF-8" if isinstance(error, UnicodeDecodeError) else config.cause(error)
        raise LabelFileError(f"whole file: not readable as CSV or JSON ({cause})") from None
    match content:
        case "":
            raise LabelFileError("whole file: it is empty")
        case str():
            return _flat(_csv(content))
        case [{"annotator": _}, *_]:
            return _flat([(f"entry {k}", entry) for k, entry in enumerate(content, 1)])
        case list():
            return _label_studio(content)
        case {"data": _, "annotations": _}:
            return _label_studio([content])
        case dict():
            return _tia2(content)
    raise LabelFileError("whole file: neither a list nor an object")


def plain(value):
    """Words as they are compared: composed letters, single spaces, nothing around them; "" for none."""
    words = "" if value is None or value != value else str(value)
    return " ".join(unicodedata.normalize("NFC", words).split())


def _csv(text):
    """[(where, {column: value})] of a CSV whose fields one of , ; and tab divides."""
    divider = max(",;\t", key=text.splitlines()[0].count)
    rows = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=divider, skipinitialspace=True, strict=True
    )
    try:
        rows.fieldnames = names = [plain(name).lower() for name in rows.fieldnames]
        there = ", ".join(names)
        if lacking := [name for name in NEEDED if name not in names and "annotator" not in names]:
            raise LabelFileError(f"header: no column {lacking[0]!r} (there are {there})")
        if any(names.count(name) > 1 for name in NEEDED):
            raise LabelFileError(f"header: a column stands there twice ({there})")
        found = [(f"row {rows.line_num}", row) for row in rows]
    except csv.Error as error:
        raise LabelFileError(f"row {rows.line_num}: not readable as CSV ({error})") from None
    for where, row in found:
        if any(row.pop(None, ())):
            raise LabelFileError(f"{where}: more fields than the header has: put those with commas in quotes")
    return found


def _flat(rows):
    """A judgement a row, ours or Label Studio's, which has the label under the name of its control."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise LabelFileError(f"{where}: must be an object, not {config.shown(row)}")
    there = {column for _, row in rows for column in row}
    names = {name: name for name in COLUMNS}
    if "annotator" in there:
        names |= {name: next((n for n in (name, *more) if n in there), name) for name, more in NAMES.items()}
        if "label" not in there:
            known = {*names.values(), *OWN}
            names["label"] = _control({n: v for n, v in row.items() if n not in known} for _, row in rows)
    for where, row in rows:
        found = {name: row.get(column) for name, column in names.items()}
        yield where, found | {"label": _choice(where, found["label"])}


def _label_studio(tasks):
    found = []
    for k, task in enumerate(tasks, 1):
        match task:
            case {"data": dict(data), **rest} if isinstance(
                given := rest.get("annotations", rest.get("completions")), list
            ):
                prompt = data.get("prompt") or data.get("caption") or data.get("text")
            case _:
                raise LabelFileError(f"task {k}: needs an object 'data' and a list 'annotations'")
        for j, one in enumerate(given, 1):
            where = f"task {k}, annotation {j}"
            if not isinstance(one, dict):
                raise LabelFileError(f"{where}: must be an object, not {config.shown(one)}")
            who = one.get("completed_by")
            who = who.get("email") or who.get("id") if isinstance(who, dict) else who
            about = {"rater": who, "image": data.get("image"), "prompt": prompt}
            found.append((where, about | {"seconds": one.get("lead_time")}, one))
    said = [_controls(one) for *_, one in found]
    control = _control(said)
    for (where, about, one), choices in zip(found, said, strict=True):
        cancelled = one.get("was_cancelled") or one.get("skipped")
        if not cancelled and control not in choices:
            raise LabelFileError(f"{where}: no choice among its results")
        yield where, about | {"label": "skip" if cancelled else _choice(where, choices[control])}


def _controls(annotation):
    """What an annotation says by each control that offers choices: {name: choices}."""
    found = {}
    results = annotation.get("result")
    for result in results if isinstance(results, list) else ():
        match result:
            case {"type": "choices", "value": {"choices": choices}}:
                name = str(result.get("from_name", "choices"))
                found[name] = [*found.get(name, ()), *_choices(choices)]
    return found


def _control(said):
    """The one control by which [{control: value}] say good, bad or skip; where none does, any."""
    said = list(said)
    controls = list(dict.fromkeys(name for row in said for name in row))
    words = {name: {word.lower() for row in said for word in _choices(row.get(name))} for name in controls}
    ours = [name for name in controls if words[name] & {*LABELS}]
    if len(ours) > 1:
        raise LabelFileError(f"whole file: controls {', '.join(ours)} all say good or bad: leave only one")
    return next(iter(ours or controls), "label")


def _choices(value):
    """The words in a value: Label Studio writes one, a list or an object of a list, as text in a CSV."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    value = value.get("choices") if isinstance(value, dict) else value
    return list(dict.fromkeys(map(plain, value if isinstance(value, list) else [value])))


def _choice(where, value):
    first, *more = _choices(value) or [""]
    if more:
        raise LabelFileError(f"{where}: several choices ({', '.join((first, *more))}), there must be one")
    return first


def _tia2(entries):
    for name, entry in entries.items():
        where = f"entry {config.shown(name)}"
        match entry:
            case {"human_labels": [_, *_] as votes}:
                about = {"image": entry.get("image"), "prompt": entry.get("caption")}
            case _:
                raise LabelFileError(f"{where}: human_labels must be a list of 0, 1 and -1 for undecided")
        for j, vote in enumerate(votes, 1):
            vote = "skip" if vote == -1 else vote
            yield f"{where}, human_labels {j}", about | {"rater": f"rater-{j}", "label": vote}
