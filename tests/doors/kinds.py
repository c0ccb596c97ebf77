"""What can be wrong with a thing, by kind of door: {kind: how it is damaged}.

A parameter's kinds are values; a file's take its path; a table's and a column's take its lines; a JSON's take
its object; weights' take their tensors; a place's are context managers.
"""

import contextlib
import datetime
import json
import os
import random
import resource
import sqlite3
from pathlib import Path

DIGITS = "9" * 5000
LONG = "x" * 100_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def nested(depth):
    """A list in a list in a list."""
    found = []
    for _ in range(depth):
        found = [found]
    return found


VALUES = {
    "none in words": "None",
    "a list": [1, 2],
    "an empty list": [],
    "a mapping": {"a": 1},
    "nested lists": nested(400),
    "a list of None": [None],
    "a list of long numbers": [10**4999],
    "true": True,
    "negative": -1,
    "zero": 0,
    "a billion billions": 10**18,
    "beyond 64 bits": 2**64,
    "5,000 digits": 10**4999,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "1e308": 1e308,
    "least float": 5e-324,
    "float for int": 3.0,
    "a number in words": "12",
    "empty text": "",
    "a space": " ",
    "control characters": "\x00\x07\x1b[2J",
    "half a surrogate": "\ud800",
    "very long text": LONG,
    "a folder that is not there": "/nowhere/at/all",
    "a place on the web": "https://a.b/c d?e=1",
    "braces": "{0} %s {a!r}",
    "bytes": b"\xff\x00",
    "a date": datetime.date(2020, 2, 30 - 1),
    "a set": {1},
}


def _rewritten(change):
    def damage(path):
        path.write_bytes(change(path.read_bytes()))

    return damage


def _replaced(put):
    def damage(path):
        path.unlink()
        put(path)

    return damage


def _zeroed(data):
    third = max(1, len(data) // 3)
    return data[:third] + bytes(third) + data[2 * third :]


def _utf16(data):
    try:
        return data.decode().encode("utf-16")
    except UnicodeDecodeError:
        return b"\xff\xfe" + data


FILES = {
    "missing": Path.unlink,
    "empty": _rewritten(lambda data: b""),
    "one byte": _rewritten(lambda data: data[:1]),
    "cut in half": _rewritten(lambda data: data[: len(data) // 2]),
    "last byte cut": _rewritten(lambda data: data[:-1]),
    "zeroed in the middle": _rewritten(_zeroed),
    "random bytes": _rewritten(lambda data: random.Random(0).randbytes(max(64, min(len(data), 4096)))),
    "utf-16": _rewritten(_utf16),
    "a byte order mark": _rewritten(lambda data: b"\xef\xbb\xbf" + data),
    "latin-1": _rewritten(lambda data: data[: len(data) // 2] + b"\xe9" + data[len(data) // 2 :]),
    "NUL bytes": _rewritten(lambda data: data[:20] + bytes(8) + data[20:]),
    "doubled": _rewritten(lambda data: data + data),
    "a page of the web": _rewritten(
        lambda data: b"<!DOCTYPE html><html><body>Log in, please</body></html>\n"
    ),
    "a pointer of git lfs": _rewritten(
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    ),
    "a picture": _rewritten(lambda data: PNG),
    "JSON": _rewritten(lambda data: b'[{"a": 1, "b": [1, 2]}, {"a": 2}]'),
    "a directory": _replaced(Path.mkdir),
    "a link to nowhere": _replaced(lambda path: path.symlink_to("nowhere/at/all")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a pipe": _replaced(os.mkfifo),
    "no permission": lambda path: path.chmod(0),  # which does not bite where root reads
}
BITES_NOT = {"no permission"} if os.geteuid() == 0 else set()


# Tables: lines (a list of lists of text, the header first) -> lines


def _ragged(lines):
    return [*lines[:-1], [*lines[-1], "one", "more"]]


TABLES = {
    "a header alone": lambda lines: lines[:1],
    "no header": lambda lines: lines[1:],
    "the header twice": lambda lines: [lines[0], *lines],
    "one row": lambda lines: lines[:2],
    "an extra column": lambda lines: [["extra", *lines[0]], *(["1", *line] for line in lines[1:])],
    "the first column gone": lambda lines: [line[1:] for line in lines],
    "a longer row": _ragged,
    "a shorter row": lambda lines: [*lines[:-1], lines[-1][:1]],
    "all cells empty": lambda lines: [lines[0], *([""] * len(line) for line in lines[1:])],
    "rows doubled": lambda lines: [*lines, *lines[1:]],
    "a quote left open": lambda lines: [*lines, ['"never closed']],
    "lines turned": lambda lines: [lines[0], *lines[:0:-1]],
    "semicolons": lambda lines: [[";".join(line)] for line in lines],
    "another table": lambda lines: [["a", "b"], ["1", "2"]],
}


def _cells(value):
    """Every cell of the column is `value`, or what it makes of the cell."""

    def damage(lines, k):
        made = value if callable(value) else lambda cell: value
        return [lines[0], *([*line[:k], made(line[k]), *line[k + 1 :]] for line in lines[1:])]

    return damage


def _one(value):
    def damage(lines, k):
        last = [*lines[-1][:k], value, *lines[-1][k + 1 :]]
        return [*lines[:-1], last] if len(lines) > 1 else lines

    return damage


def _headed(change):
    return lambda lines, k: [[*lines[0][:k], change(lines[0][k]), *lines[0][k + 1 :]], *lines[1:]]


COLUMNS = {
    "gone": lambda lines, k: [line[:k] + line[k + 1 :] for line in lines],
    "another name": _headed(lambda name: name.upper() + " "),
    "twice": lambda lines, k: [[*line, line[k]] for line in lines],
    "empty": _cells(""),
    "one empty": _one(""),
    "words": _cells("many"),
    "one word": _one("n/k"),
    "numbers": _cells("7"),
    "infinite": _cells("inf"),
    "1e308": _cells("1e308"),
    "5,000 digits": _one(DIGITS),
    "negative": _cells("-3"),
    "half of one": _cells("0.5"),
    "true": _one("True"),
    "a list": _cells("[1, 2]"),
    "a decimal comma": _cells("0,5"),
    "control characters": _one("\x07\x1b[2J\r"),
    "very long": _one(LONG),
}

FEWER = tuple(COLUMNS)[:12]  # for tables that no stage reads, or slowly


# JSON: an object -> an object, or text


OBJECTS = {
    "a list around it": lambda found: [found],
    "an empty object": lambda found: {},
    "an empty list": lambda found: [],
    "null": lambda found: None,
    "a number": lambda found: 7,
    "text": lambda found: "text",
    "an extra key": lambda found: {**found, "extra": [1]} if isinstance(found, dict) else found,
    "first key gone": lambda found: dict([*found.items()][1:]) if isinstance(found, dict) else found[1:],
    "keys in capitals": lambda found: {k.upper(): v for k, v in found.items()} if type(found) is dict else 1,
    "nothing in its keys": lambda found: dict.fromkeys(found) if isinstance(found, dict) else [None],
    "nested deeply": lambda found: "[" * 100_000 + "]" * 100_000,
    "a comma too many": lambda found: json.dumps(found)[:-1] + ",}",
    "single quotes": repr,
    "two lines of it": lambda found: json.dumps(found) + "\n" + json.dumps(found),
    "not a number": lambda found: "NaN",
    "5,000 digits": lambda found: DIGITS,
}
KEYS = {
    "gone": None,
    "null": "null",
    "a list": "[1, 2]",
    "an object": '{"a": 1}',
    "words": '"many"',
    "empty text": '""',
    "a number": "7",
    "negative": "-1",
    "zero": "0",
    "half": "0.5",
    "not a number": "NaN",
    "beyond all floats": "1e999",
    "5,000 digits": DIGITS,
    "true": "true",
    "nested deeply": "[" * 500 + "]" * 500,
    "very long": json.dumps(LONG),
    "control characters": '"\\u0000\\u0007"',
}


def keyed(found, key, kind):
    """The JSON of the object `found` with another value of `key`."""
    rest = {name: value for name, value in found.items() if name != key}
    said = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in rest.items()]
    if KEYS[kind] is not None:
        said.append(f"{json.dumps(key)}: {KEYS[kind]}")
    return "{" + ", ".join(said) + "}"


# Weights: {name: tensor} -> {name: tensor}


def _first(change):
    """The first tensor that is large enough, changed."""

    def damage(tensors):
        name = next(name for name, tensor in tensors.items() if tensor.numel() > 1)
        return {**tensors, name: change(tensors[name])}

    return damage


WEIGHTS = {
    "a tensor gone": lambda tensors: dict([*tensors.items()][1:]),
    "no tensor": lambda tensors: {},
    "a tensor too many": lambda tensors: {**tensors, "stranger": next(iter(tensors.values())).clone()},
    "other names": lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
    "another shape": _first(lambda tensor: tensor.flatten()[:-1]),
    "turned": _first(lambda tensor: tensor.flatten()[None]),
    "NaN": _first(lambda tensor: tensor.float() * float("nan")),
    "infinite": _first(lambda tensor: tensor.float() + float("inf")),
    "whole numbers": _first(lambda tensor: tensor.long()),
    "in double": lambda tensors: {name: value.double() for name, value in tensors.items()},
    "in half": lambda tensors: {name: value.half() for name, value in tensors.items()},
    "beyond half": _first(lambda tensor: tensor.double() + 1e300),
}
LARGE = [name for name in FILES if name not in ("latin-1", "a byte order mark", "a picture", "doubled")]


# The label store: an open database


def _text(db):
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.execute("UPDATE judgements SET label = 'maybe'")


STORES = {
    "another program's": lambda db: db.executescript("DROP TABLE judgements; CREATE TABLE pets (name TEXT)"),
    "its table gone": lambda db: db.execute("DROP TABLE judgements"),
    "a view of that name": lambda db: db.executescript(
        "ALTER TABLE judgements RENAME TO old; CREATE VIEW judgements AS SELECT * FROM old"
    ),
    "a column gone": lambda db: db.execute("ALTER TABLE judgements DROP COLUMN shown_with"),
    "rater's column gone": lambda db: db.execute("ALTER TABLE judgements RENAME COLUMN rater TO who"),
    "a column more": lambda db: db.execute("ALTER TABLE judgements ADD COLUMN mood TEXT"),
    "a newer schema": lambda db: db.execute("PRAGMA user_version = 99"),
    "an older schema": lambda db: db.execute("PRAGMA user_version = 1"),
    "a negative schema": lambda db: db.execute("PRAGMA user_version = -5"),
    "labels that are none": _text,
    "words for images": lambda db: db.execute("UPDATE judgements SET image = 'seven'"),
    "bytes for raters": lambda db: db.execute("UPDATE judgements SET rater = x'ff00'"),
    "words for seconds": lambda db: db.execute("UPDATE judgements SET seconds = 'long', time = 'ago'"),
    "images beyond the last": lambda db: db.execute("UPDATE judgements SET image = 9223372036854775807"),
    "no row": lambda db: db.execute("DELETE FROM judgements"),
}


def stored(kind):
    """The damage of a store's file."""

    def damage(path):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            STORES[kind](db)

    return damage


# Places: context managers around a folder that is to be written into; they yield the folder


@contextlib.contextmanager
def _limit(what, value):
    """A limit of this process, for a while."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def _no_more_than(size):
    @contextlib.contextmanager
    def damage(folder):
        folder.mkdir()
        with _limit(resource.RLIMIT_FSIZE, size):
            yield folder

    return damage


@contextlib.contextmanager
def _crowded(folder):
    """No file may be opened any more."""
    folder.mkdir()
    here = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 64
    with _limit(resource.RLIMIT_NOFILE, max(3, min(here - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))):
        yield folder


def _instead(put):
    @contextlib.contextmanager
    def damage(folder):
        put(folder)
        yield folder

    return damage


def _below(place):
    @contextlib.contextmanager
    def damage(folder):
        yield Path(place)

    return damage


@contextlib.contextmanager
def good(folder):
    """A place as it should be."""
    folder.mkdir()
    yield folder


def _file(folder):
    folder.write_text("I was here first")


@contextlib.contextmanager
def _unwritable(folder):
    folder.mkdir()
    folder.chmod(0o500)
    try:
        yield folder
    finally:
        folder.chmod(0o700)


PLACES = {
    "full at once": _no_more_than(0),
    "full after a byte": _no_more_than(1),
    "full after a hundred": _no_more_than(100),
    "full after a thousand": _no_more_than(1000),
    "no handle left": _crowded,
    "a file": _instead(_file),
    "below a file": _below("/etc/hostname/x"),
    "below a device": _below("/dev/null/x"),
    "where nothing may be": _below("/proc/nowhere"),
    "a system's folder": _below("/sys/nowhere"),
    "a link to nowhere": _instead(lambda folder: folder.symlink_to("/nowhere/at/all/below")),
    "a link to itself": _instead(lambda folder: folder.symlink_to(folder.name)),
    "a name too long": lambda folder: contextlib.nullcontext(folder / ("x" * 300)),
    "no permission": _unwritable,
}
