"""Human feedback: an append-only store of single judgements, files in and out, simulated raters, agreement and votes.

A table of judgements is a DataFrame with at least rater, image, prompt and label; `image` is a row of the image folder or, fresh
from a file, a file name.
"""

import hashlib
import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from . import config

LABELS = ("good", "bad", "skip")
SCHEMA = 3
# Fleiss' kappa between people on such labels, three raters an image, computed from a public set: several
# attributes 0.650 is the yardstick of single colours and places too, which have none of their own.
KAPPA = {"count": 0.684, "colour": 0.650, "background": 0.650, "combination": 0.650}


class LabelFileError(config.UserError, ValueError):
    """A file of labels is wrong; the message names file, row, column and remedy, and nothing of it was taken."""


def _opened(path):
    db = sqlite3.connect(path, timeout=60)
    try:
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        db.close()
        raise LabelFileError(f"{path} cannot be read as a store of labels ({error}): restore it, or move it away to begin anew") from None
    return db


class Store:
    """One SQLite file of judgements, safe for several raters and kernels at once; a judgement is on disk when `add` returns."""

    def __init__(self, path):
        self.path = str(path)
        with closing(_opened(self.path)) as db, db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA:
                return  # a finished file is not touched
            db.execute("BEGIN IMMEDIATE")  # two kernels may meet a new file at once
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise LabelFileError(f"{path} was written by a newer version (schema {version}, this one knows {SCHEMA}): update rlhf_nb")
            db.execute("""CREATE TABLE IF NOT EXISTS judgements (id INTEGER PRIMARY KEY, rater TEXT NOT NULL, image INTEGER NOT NULL,
                prompt TEXT NOT NULL, label TEXT CHECK (label IN ('good', 'bad', 'skip')), shown_with TEXT NOT NULL DEFAULT '', position INTEGER,
                picture TEXT, seconds REAL, time REAL NOT NULL, undoes INTEGER REFERENCES judgements (id))""")
            there = {row[1] for row in db.execute("PRAGMA table_info (judgements)")}
            for name, kind in (("position", "INTEGER"), ("picture", "TEXT")):  # what earlier schemas lack
                if name not in there:
                    db.execute(f"ALTER TABLE judgements ADD COLUMN {name} {kind}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")

    def add(self, rows, replaces=()):
        """Append judgements, dicts with rater, image, prompt, label and optionally shown_with, position, picture (its `fingerprint`),
        seconds, time; returns their ids. In the same stroke the judgements `replaces` of the first row's rater are taken back."""
        rows = [{"shown_with": "", "position": None, "picture": None, "seconds": None, "time": time.time(), **row} for row in rows]
        for row in rows:
            if row["label"] not in LABELS:
                raise ValueError(f"label of image {row['image']} must be one of {', '.join(LABELS)}, not {row['label']!r}")
        with closing(_opened(self.path)) as db, db:
            for identity in replaces:
                self._undo(db, identity, rows[0]["rater"])
            return [db.execute("INSERT INTO judgements (rater, image, prompt, label, shown_with, position, picture, seconds, time) VALUES (:rater, "
                               ":image, :prompt, :label, :shown_with, :position, :picture, :seconds, :time)", row).lastrowid for row in rows]

    def undo(self, identity, rater):
        """Take back judgement `identity` of `rater`; the row stays, a second row says that it no longer holds."""
        with closing(_opened(self.path)) as db, db:
            self._undo(db, identity, rater)

    def _undo(self, db, identity, rater):
        found = db.execute("SELECT image, prompt FROM judgements WHERE id = ? AND rater = ? AND label IS NOT NULL", (identity, rater)).fetchone()
        if not found:
            raise ValueError(f"rater {rater!r} has no judgement {identity} to undo")
        db.execute("INSERT INTO judgements (rater, image, prompt, time, undoes) VALUES (?, ?, ?, ?, ?)", (rater, *found, time.time(), identity))

    def table(self):
        """The judgements that hold: id, rater, image, prompt, label, shown_with, position, picture, seconds, time."""
        with closing(_opened(self.path)) as db:
            return pd.read_sql_query("SELECT id, rater, image, prompt, label, shown_with, position, picture, seconds, time FROM judgements WHERE "
                                     "label IS NOT NULL AND id NOT IN (SELECT undoes FROM judgements WHERE undoes IS NOT NULL) ORDER BY id", db)


class Votes:
    """One SQLite file of comparisons of two sets of pictures, +1 for the second, 0 undecided, -1 for the first; a rater's last word on a question holds."""

    def __init__(self, path):
        self.path = str(path)
        with closing(_opened(self.path)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS votes (id INTEGER PRIMARY KEY, rater TEXT NOT NULL, prompt TEXT NOT NULL, asked TEXT NOT NULL, "
                       "vote INTEGER CHECK (vote IN (-1, 0, 1)), pictures TEXT NOT NULL, time REAL NOT NULL)")

    def add(self, rater, prompt, asked, vote, pictures):
        """One vote, on disk when this returns; `pictures` is the fingerprint of both sets."""
        with closing(_opened(self.path)) as db, db:
            db.execute("INSERT INTO votes (rater, prompt, asked, vote, pictures, time) VALUES (?, ?, ?, ?, ?, ?)",
                       (str(rater), str(prompt), asked, vote, pictures, time.time()))

    def table(self):
        """The votes that hold: rater, prompt, asked, vote, pictures."""
        with closing(_opened(self.path)) as db:
            rows = pd.read_sql_query("SELECT rater, prompt, asked, vote, pictures FROM votes ORDER BY id", db)
        return rows.drop_duplicates(["rater", "prompt", "asked", "pictures"], keep="last").reset_index(drop=True)


def fingerprint(image):
    """What a judgement remembers of its picture: a digest of the pixels of a uint8 image (H, W, 3)."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def belonging(table, images):
    """Judgements of `table` that fit the image folder `images` (a runs.Images): dicts for `Store.add`.

    An image is a row number or a file name; one that does not exist, now stands for another prompt, or is known to be another
    picture by now is left out.
    """
    names, prompts = {n: i for i, n in enumerate(images.rows.file_name)}, images.rows.prompt.to_numpy()
    table = table.drop(columns="id", errors="ignore").assign(image=[names.get(i, i) if isinstance(i, str) else i for i in table.image])
    rows = table.astype(object).replace({np.nan: None}).to_dict("records")
    return [row for row in rows if isinstance(i := row["image"], int) and 0 <= i < len(prompts) and prompts[i] == row["prompt"]
            and row.get("picture") in (None, fingerprint(images[[i]][0]))]


def read(path):
    """Judgements from a file: our CSV, Label Studio's JSON export (a list) or a TIA2-style JSON (an object by image name).

    Images stay file names (or row numbers in our own CSV) and need not be at hand. Raises LabelFileError on the first wrong row.
    """
    path = Path(path)

    def no(where, what):
        raise LabelFileError(f"{path.name}, {where}: {what}; correct it and read the file again, none of it was taken")

    def judged(where, rater, image, prompt, label, seconds=None):
        for name, value in (("rater", rater), ("image", image), ("prompt", prompt)):
            if value is None or value != value or not str(value).strip():
                no(where, f"{name} is empty")
        if not isinstance(label, str) or label.lower() not in LABELS:
            no(where, f"label must be one of {', '.join(LABELS)}, not {label!r}")
        return {"rater": str(rater), "image": image, "prompt": str(prompt), "label": label.lower(), "seconds": seconds}

    try:
        content = pd.read_csv(path) if path.suffix == ".csv" else json.loads(path.read_text())
    except (OSError, ValueError) as error:
        no("whole file", f"not readable as {path.suffix[1:] or 'JSON'} ({str(error).splitlines()[0]})")
    rows = list(_csv(content, judged, no) if path.suffix == ".csv" else _label_studio(content, judged, no) if isinstance(content, list)
                else _tia2(content, judged, no) if isinstance(content, dict) else no("whole file", "neither a list nor an object"))
    if not rows:
        no("whole file", "no judgement in it")
    return pd.DataFrame(rows)


def _csv(table, judged, no):
    for column in ("rater", "image", "prompt", "label"):
        if column not in table:
            no("header", f"no column {column!r} (there are {', '.join(map(str, table))})")
    for k, row in enumerate(table.to_dict("records"), 2):
        yield judged(f"row {k}", row["rater"], row["image"], row["prompt"], row["label"], row.get("seconds"))


def _label_studio(tasks, judged, no):
    for k, task in enumerate(tasks, 1):
        data, annotations = (task.get("data"), task.get("annotations")) if isinstance(task, dict) else (None, None)
        if not isinstance(data, dict) or not isinstance(annotations, list):
            no(f"task {k}", "needs an object 'data' and a list 'annotations'")
        for j, one in enumerate(annotations, 1):
            where, who = f"task {k}, annotation {j}", one.get("completed_by") if isinstance(one, dict) else None
            try:
                label = "skip" if one.get("was_cancelled") else next(r["value"]["choices"][0] for r in one["result"] if r["type"] == "choices")
            except (AttributeError, KeyError, IndexError, TypeError, StopIteration):
                no(where, "no choice among its results")
            yield judged(where, who.get("email") if isinstance(who, dict) else who, str(data.get("image") or "").rsplit("/", 1)[-1],
                         data.get("prompt") or data.get("caption") or data.get("text"), label, one.get("lead_time"))


def _tia2(entries, judged, no):
    for name, entry in entries.items():
        votes = entry.get("human_labels") if isinstance(entry, dict) else None
        if not isinstance(votes, list) or not votes:
            no(f"entry {name!r}", "human_labels must be a list of 0 and 1")
        for j, vote in enumerate(votes, 1):
            if type(vote) is not int or vote not in (0, 1):
                no(f"entry {name!r}, human_labels {j}", f"must be 0 or 1, not {vote!r}")
            yield judged(f"entry {name!r}", f"rater-{j}", Path(str(entry.get("image") or "")).name, entry.get("caption"), ("bad", "good")[vote])


def export(folder, images, table):
    """A Hugging Face image folder with every judged picture and, in metadata.csv, its prompt, votes and share of good; plus judgements.csv."""
    folder, votes = Path(folder), counts(table)
    folder.mkdir(parents=True, exist_ok=True)
    rows = images.rows.loc[votes.index, ["file_name", "prompt"]].join(votes)
    for name in rows.file_name:
        shutil.copy(images.folder / name, folder / name)
    rows.assign(label=(rows.good / (rows.good + rows.bad)).round(4)).to_csv(folder / "metadata.csv", index=False)
    table.to_csv(folder / "judgements.csv", index=False)


def counts(table):
    """Votes per image: DataFrame indexed by image with columns good, bad, skip. A rater's latest word on an image is the one that counts."""
    last = table.drop_duplicates(["rater", "image"], keep="last")
    return pd.crosstab(last.image, last.label).reindex(columns=list(LABELS), fill_value=0)


def majority(table):
    """Label per image, 1.0 good, 0.0 bad; images with more skips than votes, or a tie, are left out. Series by image."""
    votes = counts(table)
    clear = (votes.good != votes.bad) & (votes.good + votes.bad > votes.skip)
    return (votes.good > votes.bad)[clear].astype(float)


def dawid_skene(table, rounds=100):
    """The rater-quality model of Dawid and Skene (1979; crowd-kit): (P(good) by image, skill by rater).

    Skill has the columns good and bad, the estimated chance to recognise each, and labels, their number; skips are no votes.
    """
    from crowdkit.aggregation import DawidSkene

    votes = table[table.label != "skip"].drop_duplicates(["rater", "image"], keep="last")
    model = DawidSkene(n_iter=rounds).fit(votes.rename(columns={"image": "task", "rater": "worker"})[["task", "worker", "label"]])
    errors = model.errors_.reindex(columns=["good", "bad"], fill_value=0.0)
    skill = pd.DataFrame({k: errors[k][errors.index.get_level_values("label") == k].droplevel("label") for k in ("good", "bad")}).fillna(0.0)
    return model.probas_.reindex(columns=["good"], fill_value=0.0).good, skill.assign(labels=votes.rater.value_counts()).rename_axis("rater")


def fleiss(votes):
    """Fleiss' kappa of votes (N, 2) good and bad: of the images with the usual number of votes, at least two (statsmodels)."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    votes = votes[votes.sum(1) > 1]
    total = votes.sum(1)
    usual = votes[total == np.bincount(total).argmax()] if len(votes) else votes
    return float(fleiss_kappa(usual)) if len(usual) and (usual.sum(0) > 0).all() else float("nan")


def alpha(votes):
    """Krippendorff's alpha of votes (N, 2) good and bad; images may have any number of votes (krippendorff)."""
    import krippendorff

    votes = votes[votes.sum(1) > 1]
    return float(krippendorff.alpha(value_counts=votes, level_of_measurement="nominal")) if len(votes) and (votes.sum(0) > 0).all() else float("nan")


def agreement(table, draws=300, seed=0):
    """Fleiss' kappa and Krippendorff's alpha with 95 % bootstrap intervals over images: {"fleiss", "fleiss_low", ..., "images"}.

    Images with a skip are left out, as in the public set behind the yardsticks.
    """
    votes = counts(table)
    votes = votes[votes.skip == 0][["good", "bad"]].to_numpy()
    picks, out = np.random.default_rng(seed).integers(len(votes), size=(draws, len(votes))) if len(votes) else (), {"images": len(votes)}
    for name, coefficient in (("fleiss", fleiss), ("alpha", alpha)):
        drawn = np.array([coefficient(votes[p]) for p in picks] or [np.nan])
        low, high = np.nanquantile(drawn, (0.025, 0.975)) if np.isfinite(drawn).any() else (np.nan, np.nan)
        out |= {name: coefficient(votes), f"{name}_low": float(low), f"{name}_high": float(high)}
    return out


def repeats(table):
    """Judgements given twice, by one rater on one image: a DataFrame of rater, image, first, second."""
    twice = table.groupby(["rater", "image"]).label.agg(["size", "first", "last"]).query("size > 1").reset_index()
    return twice.rename(columns={"last": "second"}).drop(columns="size")


def flip_rate(kappa, good=0.5):
    """How often raters must err for their expected agreement to be `kappa` where a share `good` of the images is truly good.

    A rater says good with q = good (1 - e) + (1 - good) e; two agree with 1 - 2 e (1 - e), by chance with q^2 + (1 - q)^2.
    """
    from scipy.optimize import brentq

    def excess(e):
        q = good * (1 - e) + (1 - good) * e
        chance = q * q + (1 - q) ** 2
        return (1 - 2 * e * (1 - e) - chance) / (1 - chance) - kappa

    return float(brentq(excess, 0.0, 0.5)) if 0 < good < 1 else (1 - kappa**0.5) / 2


def simulated_rater(truth, errors, confidence, rng, unsure=0.4):
    """Labels (B,) of one simulated rater: the judge's verdict `truth` (B,) bool, flipped with probability `errors` (B,).

    An image is skipped where the judge's confidence (B,), seen by this rater as anything from half to one and a half times it,
    is below half of `unsure`.
    """
    labels = np.where(np.asarray(truth, bool) ^ (rng.random(len(truth)) < errors), "good", "bad").astype(object)
    labels[confidence * rng.uniform(0.5, 1.5, len(truth)) < unsure * 0.5] = "skip"
    return labels
