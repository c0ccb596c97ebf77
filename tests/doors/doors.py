"""Doors: what a person can hand to the program, and what comes of handing it something damaged.

A cell is one door and one kind of damage. It is *accepted*, when the result is sane; *clear*, when one
sentence names the thing; and anything else is *raw*: another exception, a hang, a changed last good result.
"""

import ast
import contextlib
import csv
import functools
import io
import json
import os
import signal
import subprocess
import traceback
import warnings
from dataclasses import dataclass, field

from conftest import ROOT
from doors import kinds

from rlhf_nb import config

PATIENCE = 10  # seconds that a cell may take
LONGEST = 2000  # characters of a sentence
WHOLE = "as it is"  # the kind that is none, without which a clear sentence means nothing
RESULTS = {}  # (family, door, kind) -> what came of it


class Hang(BaseException):
    """A cell did not come to its end; no `except Exception` may swallow it."""


@dataclass
class Door:
    """`cells`: {kind: context manager around a damaged thing, which yields the call that opens it}.

    `named`: words of which a clear sentence has at least one; `words`: more of them, {kind: words}.
    """

    family: str
    name: str
    named: tuple
    cells: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)

    def cross(self, kept=None):
        """Cross every cell: {kind: outcome}. `kept()` looks at all that must stay as it is."""
        before = kept() if kept else None
        found = {
            kind: outcome(cell, (*self.named, *self.words.get(kind, ()))) for kind, cell in self.cells.items()
        }
        if found.get(WHOLE, "accepted") != "accepted":
            found[WHOLE] = f"raw: the good thing is refused: {found[WHOLE]}"
        if kept and kept() != before:
            found |= dict.fromkeys(list(found)[:1], "raw: a last good result changed or vanished")
        RESULTS.update({(self.family, self.name, kind): came for kind, came in found.items()})
        return found


def outcome(cell, named):
    """What comes of one cell: "accepted", "clear: ...", or "raw: ..."."""

    def over(*_):
        raise Hang(f"no end in {PATIENCE} s")

    former = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with warnings.catch_warnings(action="ignore"), cell() as act:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                try:
                    act()
                    return "accepted"
                except config.UserError as error:
                    return unclear(str(error), named) or f"clear: {first(error)}"
    except (Exception, SystemExit, Hang) as error:
        return f"raw: {type(error).__name__}: {first(error)} at {place(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def first(error):
    """The beginning of what an error says."""
    return (ascii(str(error)[:300]).strip("'\"") or "-")[:110]


def place(error):
    """The last line of our own code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/rlhf_nb/" in f.filename or f.filename.startswith(("notebook ", "book "))]
    last = (own or frames)[-1]
    return f"{last.filename.rpartition('/rlhf_nb/')[2]}:{last.lineno}"


def unclear(said, named):
    """What is wrong with a sentence, or nothing."""
    if "\n" in said.strip():
        return f"raw: a sentence of several lines: {ascii(said)[:100]}"
    if len(said) > LONGEST:
        return f"raw: a sentence of {len(said)} characters: {ascii(said)[:80]}"
    if not said.isprintable():
        return f"raw: a sentence with control characters: {ascii(said)[:100]}"
    if not any(word.lower() in said.lower() for word in named):
        return f"raw: a sentence that does not name it: {ascii(said)[:100]}"
    return ""


# A thing that is damaged, and made whole again


def away(path):
    """Remove what stands at `path`, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def look(path):
    """What a file is like from outside."""
    there = path.is_symlink() or path.exists()
    found = path.lstat() if there else None
    return found and (found.st_mode & 0o170000, found.st_size, found.st_mtime_ns)


@contextlib.contextmanager
def freed(path):
    """Whoever still waits for the other end of a pipe after PATIENCE is let go, by another process: a library
    may wait where no signal is heard.
    """
    if not path.is_fifo():
        yield
        return
    words = ["sh", "-c", f'sleep {PATIENCE + 1}; : > "$0"', str(path)]
    with subprocess.Popen(words, start_new_session=True) as other:
        try:
            yield
        finally:
            os.killpg(other.pid, signal.SIGKILL)


@contextlib.contextmanager
def spoilt(path, damage, act, mends=False):
    """`act` while the file `path` is damaged; with `mends` it may be made again."""
    whole, told = path.read_bytes(), path.stat()
    damage(path)
    try:
        before = look(path)
        with freed(path):
            yield act
        assert mends or look(path) == before, f"{path.name}: what it could not read was changed"
    finally:
        away(path)
        path.write_bytes(whole)
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


def of_file(path, act, damages, mends=False):
    """Cells of a file: {kind: damage(path)} -> {kind: cell}."""
    return {
        kind: functools.partial(spoilt, path, damage, act, mends)
        for kind, damage in {WHOLE: lambda path: None, **damages}.items()
        if kind not in kinds.BITES_NOT
    }


def lines_of(path):
    """A table as lists of text, the header first."""
    with open(path, newline="") as file:
        return list(csv.reader(file))


def write_lines(path, lines):
    with open(path, "w", newline="", errors="surrogatepass") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def tables(family, name, path, act, named=(), columns=tuple(kinds.COLUMNS)):
    """The doors of a CSV: the file, and each of its columns, by the kinds `columns`."""
    named, whole = (path.name, *named), lines_of(path)

    def shaped(change):
        return lambda path: write_lines(path, change(whole))

    shapes = {kind: shaped(change) for kind, change in kinds.TABLES.items()}
    yield Door(family, name, named, of_file(path, act, {**kinds.FILES, **shapes}))
    for k, column in enumerate(whole[0]):
        damages = {kind: shaped(functools.partial(kinds.COLUMNS[kind], k=k)) for kind in columns}
        yield Door(f"{family}: columns", f"{name} [{column}]", named, of_file(path, act, damages))


def _wrote(change):
    def damage(path):
        found = change(json.loads(path.read_text()))
        path.write_text(found if isinstance(found, str) else json.dumps(found))

    return damage


def objects(family, name, path, act, named=(), keys=True, mends=False, files=tuple(kinds.FILES)):
    """The doors of a JSON file: the file, and each of its keys."""
    named = (path.name, *named)
    shapes = {kind: _wrote(change) for kind, change in kinds.OBJECTS.items()}
    damages = {kind: kinds.FILES[kind] for kind in files} | shapes
    yield Door(family, name, named, of_file(path, act, damages, mends))
    found = json.loads(path.read_text())
    for key in found if keys and isinstance(found, dict) else ():
        damages = {k: _wrote(functools.partial(kinds.keyed, key=key, kind=k)) for k in kinds.KEYS}
        yield Door(f"{family}: keys", f"{name} [{key}]", named, of_file(path, act, damages, mends))


def weights(family, name, path, act, named=(), mends=False, about=None):
    """The door of a file of weights."""
    from safetensors.torch import load_file, save_file

    def wrote(change):
        def damage(path):
            found = change(load_file(path))
            save_file({k: v.contiguous() for k, v in found.items()}, path, about)

        return damage

    damages = {kind: kinds.FILES[kind] for kind in kinds.LARGE}
    damages |= {kind: wrote(change) for kind, change in kinds.WEIGHTS.items()}
    return Door(family, name, (path.name, path.parent.name, *named), of_file(path, act, damages, mends))


def places(family, name, folder, write, named=()):
    """The door of a place that is written into: write(folder)."""

    def cell(damage):
        @contextlib.contextmanager
        def within():
            where = folder / f"{len(list(folder.iterdir()))}"
            with damage(where) as target:
                yield lambda: write(target)

        return within

    damages = {WHOLE: kinds.good, **kinds.PLACES}
    cells = {k: cell(damage) for k, damage in damages.items() if k not in kinds.BITES_NOT}
    return Door(family, name, (str(folder), "cannot", *named), cells)


# What a notebook does, by its own statements


@functools.cache
def _statements(notebook):
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = []
    for text in code:
        for node in ast.parse(text).body:
            found.append((ast.get_source_segment(text, node), node))
            inside = node.body if isinstance(node, ast.For | ast.If) else ()
            found += [(f"    {ast.get_source_segment(text, part)}", part) for part in inside]
    return found


@functools.cache
def _compiled(notebook, starts):
    found, left = [], list(starts)
    for said, node in _statements(notebook):
        if left and said.startswith(left[0]):
            found.append(compile(ast.Module([node], []), f"notebook {notebook}", "exec"))
            left.pop(0)
    assert not left, f"{notebook} has no statement that begins {left[0]!r}, after those before it"
    return found


@functools.cache
def _imported(notebook):
    """What a notebook imports, by name."""
    nodes = [node for _, node in _statements(notebook) if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {}
    exec(compile(ast.Module(nodes, []), f"notebook {notebook}", "exec"), found)
    return found


def notebook(name, *starts, **given):
    """Names after the statements of a notebook that begin with `starts`, in this order, have been run.

    They know what the notebook imports, and what is `given`. Four spaces stand before what is in a loop.
    """
    found = _imported(name) | given
    for code in _compiled(name, starts):
        exec(code, found)
    return found
