"""Judgements and votes on disk, two SQLite files that only grow.

A table of judgements is a DataFrame with at least rater, image, prompt and label; `image` is a row of the
image folder or, fresh from a file, a file name.
"""

import hashlib
import sqlite3
import time
from contextlib import closing, contextmanager

import numpy as np
import pandas as pd

from .. import config

LABELS = ("good", "bad", "skip")
SCHEMA = 3
JUDGEMENTS = """CREATE TABLE IF NOT EXISTS judgements (
    id INTEGER PRIMARY KEY, rater TEXT NOT NULL, image INTEGER NOT NULL, prompt TEXT NOT NULL,
    label TEXT CHECK (label IN ('good', 'bad', 'skip')), shown_with TEXT NOT NULL DEFAULT '',
    position INTEGER, picture TEXT, seconds REAL, time REAL NOT NULL,
    undoes INTEGER REFERENCES judgements (id))"""
VOTES = """CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, rater TEXT NOT NULL, prompt TEXT NOT NULL, asked TEXT NOT NULL,
    vote INTEGER CHECK (vote IN (-1, 0, 1)), pictures TEXT NOT NULL, time REAL NOT NULL)"""
ADD = """INSERT INTO judgements (rater, image, prompt, label, shown_with, position, picture, seconds, time)
    VALUES (:rater, :image, :prompt, :label, :shown_with, :position, :picture, :seconds, :time)"""
OURS = "SELECT id, rater, image, prompt, label, shown_with, seconds, time, undoes FROM judgements LIMIT 0"
UNDO = """INSERT INTO judgements (rater, image, prompt, time, undoes)
    SELECT rater, image, prompt, ?, id FROM judgements WHERE id = ? AND rater = ? AND label IS NOT NULL"""
HOLDING = """SELECT id, rater, image, prompt, label, shown_with, position, picture, seconds, time
    FROM judgements WHERE label IS NOT NULL
    AND id NOT IN (SELECT undoes FROM judgements WHERE undoes IS NOT NULL) ORDER BY id"""
STANDING = """SELECT rater, prompt, asked, vote, pictures FROM votes
    WHERE id IN (SELECT max(id) FROM votes GROUP BY rater, prompt, asked, pictures) ORDER BY id"""


PLACE = (  # what SQLite says where not the file is at fault but the place it lies in
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM),
)


class LabelFileError(config.UserError, ValueError):
    """Labels or a file of them are wrong; the message names what and the remedy, and nothing was taken."""


class TooFewLabels(config.UserError, ValueError):
    """There are labels, but not enough of a kind to go on; the message says of which."""


@contextmanager
def _opened(path):
    """One transaction on a file, on disk when it ends. Raises LabelFileError where SQLite cannot do it."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as db, db:
            db.execute("PRAGMA synchronous = FULL")
            yield db
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # a caller's mistake
    except sqlite3.DatabaseError as error:
        remedy = "restore it, or move it away to begin anew"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in PLACE:
            remedy = "give it room and leave to write, then do it again; what it holds is kept"
        raise LabelFileError(
            f"{path} cannot be used as a store of labels ({config.cause(error)}): {remedy}"
        ) from None


def _examined(db, probe):
    """The `user_version` of a file that is new, or whole and ours, so that it answers `probe`."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        db.execute(probe)
    if (found := db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(found)
    return db.execute("PRAGMA user_version").fetchone()[0]


def _table(path, query):
    """The rows of a query, a DataFrame."""
    with _opened(path) as db:
        rows = db.execute(query)
        names = [column[0] for column in rows.description]
        return pd.DataFrame.from_records(rows.fetchall(), columns=names, coerce_float=True)


def _undo(db, identity, rater):
    if not db.execute(UNDO, (time.time(), identity, rater)).rowcount:
        raise LabelFileError(f"rater {rater!r} has no judgement {identity} to undo: run the cell again")


class Store:
    """One SQLite file of judgements, safe for several raters and kernels at once.

    A judgement is on disk when `add` returns. Raises LabelFileError where the file is damaged or newer.
    """

    def __init__(self, path):
        self.path = path
        with _opened(self.path) as db:
            if _examined(db, OURS) == SCHEMA:
                return  # a finished file is not touched
            db.execute("BEGIN IMMEDIATE")  # two kernels may meet a new file at once
            version = _examined(db, OURS)
            if version > SCHEMA:
                raise LabelFileError(
                    f"{path} was written by a newer version (schema {version}, this one knows {SCHEMA}): "
                    "update rlhf_nb"
                )
            db.execute(JUDGEMENTS)
            there = {row[1] for row in db.execute("PRAGMA table_info (judgements)")}
            for name, kind in (("position", "INTEGER"), ("picture", "TEXT")):  # what earlier schemas lack
                if name not in there:
                    db.execute(f"ALTER TABLE judgements ADD COLUMN {name} {kind}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")

    def add(self, rows, replaces=None):
        """Append judgements and return their ids.

        They are dicts with rater, image, prompt, label and optionally shown_with, position, picture (its
        `fingerprint`), seconds, time. In the same stroke judgement `replaces` of the first one's rater is
        taken back. Raises LabelFileError for a label that is none and where it cannot write; then nothing is
        kept.
        """
        rest = {"shown_with": "", "position": None, "picture": None, "seconds": None, "time": time.time()}
        for row in rows:
            if row["label"] not in LABELS:
                raise LabelFileError(
                    f"label of image {row['image']} must be one of {', '.join(LABELS)}, not {row['label']!r}"
                )
        with _opened(self.path) as db:
            if replaces is not None:
                _undo(db, replaces, rows[0]["rater"])
            return [db.execute(ADD, rest | row).lastrowid for row in rows]

    def undo(self, identity, rater):
        """Take back judgement `identity` of `rater`.

        The row stays, a second row says that it no longer holds. Raises LabelFileError where the rater has
        no such judgement.
        """
        with _opened(self.path) as db:
            _undo(db, identity, rater)

    def table(self):
        """The judgements that hold, a DataFrame of what `add` takes and their id."""
        return _table(self.path, HOLDING)


class Votes:
    """One SQLite file of comparisons of two sets of pictures: +1 for the second, 0 undecided, -1 for the
    first.

    A rater's last word on a question holds.
    """

    def __init__(self, path):
        self.path = path
        with _opened(self.path) as db:
            _examined(db, STANDING)
            db.execute(VOTES)

    def add(self, rater, prompt, asked, vote, pictures):
        """One vote, on disk when this returns; `pictures` is the fingerprint of both sets."""
        with _opened(self.path) as db:
            db.execute(
                "INSERT INTO votes (rater, prompt, asked, vote, pictures, time) VALUES (?, ?, ?, ?, ?, ?)",
                (rater, prompt, asked, vote, pictures, time.time()),
            )

    def table(self):
        """The votes that hold: rater, prompt, asked, vote, pictures."""
        return _table(self.path, STANDING)


def fingerprint(image):
    """What a judgement remembers of its picture: a digest of the pixels of a uint8 image (H, W, 3)."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def misfit(judgement, images, prompts):
    """Why a judgement (a dict) is of no picture at hand, row `image` of `images` and `prompts` (N,): "" where
    it is.

    "name" where that row does not exist, "prompt" where it stands for another prompt by now, "picture" where
    it is known to be another picture. Older judgements name no picture.
    """
    row, picture = judgement["image"], judgement.get("picture")
    if not (isinstance(row, int) and 0 <= row < len(prompts)):
        return "name"
    if prompts[row] != judgement["prompt"]:
        return "prompt"
    return "" if pd.isna(picture) or picture == fingerprint(images[[row]][0]) else "picture"
