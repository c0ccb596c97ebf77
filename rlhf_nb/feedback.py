"""Human feedback: an append-only store of single judgements, simulated raters, agreement and votes."""

import sqlite3
import time
from contextlib import closing

import numpy as np
import pandas as pd

LABELS = ("good", "bad", "skip")
SCHEMA = 1
# Fleiss' kappa between people on such labels (a public set, three raters an image; the book's fact table): counting 0.684,
# several attributes 0.650. Single colours and places have no yardstick of their own and take the latter.
KAPPA = {"count": 0.684, "colour": 0.650, "background": 0.650, "combination": 0.650}


class Store:
    """One SQLite file of judgements, safe for several raters and kernels at once; a judgement is on disk when `add` returns."""

    def __init__(self, path):
        self.path = str(path)
        with closing(self._open()) as db, db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise ValueError(f"{path} was written by a newer version (schema {version}, this one knows {SCHEMA}): update rlhf_nb")
            db.execute("""CREATE TABLE IF NOT EXISTS judgements (id INTEGER PRIMARY KEY, rater TEXT NOT NULL, image INTEGER NOT NULL,
                prompt TEXT NOT NULL, label TEXT CHECK (label IN ('good', 'bad', 'skip')), shown_with TEXT NOT NULL DEFAULT '',
                seconds REAL, time REAL NOT NULL, undoes INTEGER REFERENCES judgements (id))""")
            db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _open(self):
        db = sqlite3.connect(self.path, timeout=60)
        db.execute("PRAGMA synchronous = FULL")
        return db

    def add(self, rows):
        """Append judgements, dicts with rater, image, prompt, label and optionally shown_with, seconds, time; returns their ids."""
        rows = [{"shown_with": "", "seconds": None, "time": time.time(), **row} for row in rows]
        for row in rows:
            if row["label"] not in LABELS:
                raise ValueError(f"label of image {row['image']} must be one of {', '.join(LABELS)}, not {row['label']!r}")
        with closing(self._open()) as db, db:
            return [db.execute("INSERT INTO judgements (rater, image, prompt, label, shown_with, seconds, time) VALUES "
                               "(:rater, :image, :prompt, :label, :shown_with, :seconds, :time)", row).lastrowid for row in rows]

    def undo(self, identity, rater):
        """Take back judgement `identity` of `rater`; the row stays, a second row says that it no longer holds."""
        with closing(self._open()) as db, db:
            found = db.execute("SELECT image, prompt FROM judgements WHERE id = ? AND rater = ? AND label IS NOT NULL", (identity, rater)).fetchone()
            if not found:
                raise ValueError(f"rater {rater!r} has no judgement {identity} to undo")
            db.execute("INSERT INTO judgements (rater, image, prompt, time, undoes) VALUES (?, ?, ?, ?, ?)", (rater, *found, time.time(), identity))

    def table(self):
        """The judgements that hold: a DataFrame of id, rater, image, prompt, label, shown_with, seconds, time."""
        with closing(self._open()) as db:
            return pd.read_sql_query("SELECT id, rater, image, prompt, label, shown_with, seconds, time FROM judgements WHERE label IS NOT NULL "
                                     "AND id NOT IN (SELECT undoes FROM judgements WHERE undoes IS NOT NULL) ORDER BY id", db)


def flip_rate(kappa):
    """How often two equal raters must err for their agreement to be `kappa` on balanced labels: kappa = (1 - 2 e)^2."""
    return (1 - np.sqrt(kappa)) / 2


def simulated_rater(answers, wants, categories, rng, unsure=0.4):
    """Labels (B,) of one simulated rater: the judge's verdict, flipped at the category's rate, skipped where the judge is unsure.

    `answers` come from judge.read, `wants` are the prompts' Attributes; an image is skipped where the judge's confidence,
    seen by this rater as anything from half to one and a half times it, is below half of `unsure`.
    """
    from . import judge

    good = judge.right(answers, wants)["all"]
    flips = rng.random(len(good)) < np.array([flip_rate(KAPPA[c]) for c in categories])
    labels = np.where(good ^ flips, "good", "bad").astype(object)
    labels[answers["confidence"] * rng.uniform(0.5, 1.5, len(good)) < unsure * 0.5] = "skip"
    return labels


def belonging(table, prompts):
    """Rows of `table` that still fit: their image number exists and stands for the same prompt; others belong to older images."""
    prompts = np.asarray(prompts)
    fits = [i < len(prompts) and prompts[i] == p for i, p in zip(table.image, table.prompt, strict=True)]
    return table[np.array(fits, bool)].drop(columns="id").to_dict("records")


def counts(table):
    """Votes per image: DataFrame indexed by image with columns good, bad, skip."""
    return pd.crosstab(table.image, table.label).reindex(columns=list(LABELS), fill_value=0)


def majority(table):
    """Label per image, 1.0 good, 0.0 bad; images with more skips than votes, or a tie, are left out. Series by image."""
    votes = counts(table)
    clear = (votes.good != votes.bad) & (votes.good + votes.bad > votes.skip)
    return (votes.good > votes.bad)[clear].astype(float)


def fleiss(table):
    """Fleiss' kappa over the images with the usual number of judgements, none of them a skip (as in the yardstick)."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    votes = counts(table)
    full = votes[(votes.skip == 0) & (votes.sum(1) == votes.sum(1).mode()[0])][["good", "bad"]]
    return float(fleiss_kappa(full.to_numpy())) if len(full) else float("nan")
