"""The doors of what the stages write and read: tables, JSON files, attempts; opened as the stages do."""

import importlib.util
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from conftest import ROOT
from doors import kinds
from doors.doors import Door, notebook, objects, of_file, tables

from rlhf_nb import align, config, files, hub, intervals, prompts, reward, runs
from rlhf_nb.page import tables as kept
from rlhf_nb.page import testbed, verdicts
from rlhf_nb.pictures import ImageFolder
from rlhf_nb.study import findings, point, record

CLAIMS = config.read(verdicts.CLAIMS)["claims"]


def of_book(name):
    """A module that builds the book."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numeric(table, columns):
    """Words times a hundred are no error of Python's, and no percentage."""
    for column in columns:
        assert pd.api.types.is_numeric_dtype(table[column]) or table.empty, (
            f"{column} of {table[column][0]!r:.40}"
        )


def read_prompts(box):
    """As 02, 05, 06, 07 and 09 read the prompts."""
    settings = box.defaults["generate"]
    starts = ("table =", "folder, wanted =")
    prompts.wants(notebook("02_generate", *starts, run=box.run, settings=settings)["wanted"])
    found = notebook("06_evaluate", "table =", "combined =", "tune =", run=box.run)
    prompts.wants(found["tune"])
    settings = box.defaults["best_of_n"]
    found = notebook("07_best_of_n", "heldout =", "rows =", run=box.run, settings=settings)
    prompts.wants(found["rows"])
    align.Watch(box.align, box.pipe, None, box.clip)
    notebook("09_sensitivity", "columns =", "table =", "asked =", "narrow =", run=box.run)


def read_images(box):
    """As 03, 04 and 05 read the images."""
    found = notebook("03_feedback", "images =", "rows =", run=box.run)
    prompts.wants(found["images"].rows)
    align.labelled(found["images"])
    return found["images"][[0, len(found["images"]) - 1]]


def read_labels(box):
    """As 04, 08 and 13 read the labels."""
    labels = reward.labelled(box.run.read("feedback", "labels.csv"), box.images)
    torch.tensor(reward.parted(labels, 0)[0].label.to_numpy(), dtype=torch.float32)
    point.labels_for(box.study, box.images)
    verdicts.harder(box.run)


def claimed(box, name):
    """As 13 reads a table that a claim is about."""
    for claim in CLAIMS:
        if claim.get("table") == name:
            rows = verdicts.table_of(box.run, name).query(claim.get("query", "index == index"))
            effect = claim.get("effect", "difference")
            [(float(row[effect]), float(row["low"]), float(row["high"])) for row in rows.to_dict("records")]


def read_study(box):
    """As 08, 09 and 11 read what experiments have found, by the smallest sweep."""
    rows = findings.look(box.run, "live", ["arm"]).rows
    if gain := record.between(rows, "arm == 'reward'", "arm == 'shuffled'"):
        intervals.verdict(gain["low"], gain["high"]), findings.how(gain)


def read_verdicts(box):
    verdicts.weakest(box.run)
    of_book("frontpage").compared(box.scale)


def read_heads(box):
    kept.read(box.run, "stress/study")
    claimed(box, "stress/study")


def read_novelty(box):
    verdicts.novelty(box.run)


def read_diversity(box):
    verdicts.diversity(box.run)


def read_eye(box):
    """As 11 reads what was judged by eye."""
    found = notebook("11_reach", "path =", "when =", "eye =", "sheet =", "tiles =")
    prompts.wants(found["eye"])
    found["eye"].assign(judge=True).groupby("group").eye.mean()


def read_pairs(box):
    """As 11 reads which of two pictures the eye preferred."""
    notebook("11_reach", "path =", "of_pairs =", "pairs =", "decided =", "won =")


def read_processors(box):
    """As 11 reads what seeds reach on two kinds of processor."""
    found = notebook("11_reach", "path =", "of_kinds =", "processors =", "apart =")
    found["apart"].pow(2).mean(), found["processors"].native.std()


def read_voted(box):
    """As 11 reads the pictures that raters compare, and what was found right of them."""
    kept = files.read_table(box.run.read("evaluate", "pictures/metadata.csv"))
    pictures = notebook("11_reach", "pictures =", run=box.run)["pictures"]
    assert len(pictures[:]) == len(kept)
    kept[["right", "plausible"]].to_numpy().reshape(2, -1, 4).sum(2)


def read_numbers(box):
    """As 07, 13 and the front page read the numbers of 06."""
    found = notebook("07_best_of_n", "chosen =", "guidance =", run=box.run)
    assert float(found["guidance"]) >= 0
    verdicts.below(box.run)
    front = of_book("frontpage")
    front.verdicts(box.scale), front.result(box.scale)


READ = {  # table: how the program reads it
    "prompts/prompts.csv": read_prompts,
    "generate/images/metadata.csv": read_images,
    "feedback/labels.csv": read_labels,
    "feedback/raters.csv": lambda box: record.basis("smoke"),
    "stress/study.csv": read_heads,
    "stress/novelty.csv": read_novelty,
    "evaluate/verdicts.csv": read_verdicts,
    "evaluate/diversity.csv": read_diversity,
    "best_of_n/best_of_n.csv": lambda box: claimed(box, "best_of_n/best_of_n"),
    "evaluate/pictures/metadata.csv": read_voted,
}
CLAIMED = {claim["table"] for claim in CLAIMS if "table" in claim}
WRITTEN = {  # tables for people, which no stage reads: by the reader of tables
    "align": ("log", "curve"),
    "evaluate": ("accuracy", "guidance_gain", "guidance", "quality", "fidelity"),
    "reach": ("votes", "attribute_gains", "attributes", "categories", "gains", "fresh"),
    "feedback": ("table2", "agreement"),
    "sensitivity": ("choices", "frontier", "failure", "guidance", "breadth", "budget"),
    "verdicts": ("verdicts",),
    "league": ("gains", "claims", "curves", "knobs", "tuning"),
    "best_of_n": ("best_of_n", "votes"),
    "data": ("controls", "data", "feedback", "nearer", "rewards"),
    "reward": ("pairwise", "log"),
    "stress": ("confused",),
    "pretrain": ("gates", "judge", "eye"),
}
LOGS = "pretrain/bundle/logs/"


def unread(name):
    """Whether a table is for people alone."""
    stage, _, rest = name.removesuffix(".csv").partition("/")
    return rest in WRITTEN.get(stage, ()) and f"{stage}/{rest}" not in CLAIMED


def opened(box, name):
    """How the table `name` of a scale's folder is read, or None for one that nothing here knows."""
    if name in READ:
        return partial(READ[name], box)
    if name.startswith("study/"):
        return partial(read_study, box)
    path, (stage, _, rest) = box.scale / name, name.partition("/")
    if f"{stage}/{rest.removesuffix('.csv')}" in CLAIMED:
        return partial(claimed, box, f"{stage}/{rest.removesuffix('.csv')}")
    if name == "pretrain/bundle/curve.csv":
        return partial(testbed.points, path)
    if name.startswith(LOGS) or unread(name):
        return lambda: files.read_table(path)


def csvs(box):
    """Names of the tables of a finished run; of the points, which are alike, one."""
    names = sorted(p.relative_to(box.scale).as_posix() for p in box.scale.rglob("*.csv"))
    names = [name for name in names if ".partial/" not in name]
    point = [name for name in names if name.startswith("study/")][1:]
    return [name for name in names if name not in point]


def of_table(box, name):
    """The doors of one table of a finished run."""
    named = (name.partition("/")[0], Path(name).parent.name)
    # a published table is first held against its manifest, so that most damage ends alike
    columns = tuple(kinds.COLUMNS) if name == "generate/images/metadata.csv" else kinds.FEWER
    yield from tables("tables", name, box.scale / name, opened(box, name), named, columns)


def of_records(box):
    """The doors of recorded tables, which are not a run's."""
    where = box.folder / "records"
    study = where / "study.csv"
    yield from tables("tables", "records/study.csv", study, partial(read_study, box), columns=kinds.FEWER)
    yield from tables("tables", "records/eye.csv", where / "eye.csv", partial(read_eye, box))
    yield from tables("tables", "records/pairs.csv", where / "pairs.csv", partial(read_pairs, box))
    kinds_of = where / "processors.csv"
    yield from tables("tables", "records/processors.csv", kinds_of, partial(read_processors, box))
    eye = box.folder / "eye"
    shutil.copytree(ROOT / "tests" / "eye", eye)
    keep = pd.read_csv(eye / "metadata.csv").head(4)
    keep.to_csv(eye / "metadata.csv", index=False)

    def opens():
        found = ImageFolder(eye)
        found[:]
        return found.rows

    yield from tables("tables", "tests/eye/metadata.csv", eye / "metadata.csv", opens, ("eye",))


# JSON


def read_manifest(box, stage):
    """As later stages and the site read a manifest."""
    found = runs.manifest("smoke", stage)
    if stage in runs.NOTEBOOKS:
        runs.settings_of("smoke", stage)
    runs.result("smoke", stage)
    record.finished("smoke")
    if stage in record.BEHIND:
        record.basis("smoke")
    of_book("build").provenance(box.scale)
    runs.Run("verdicts", box.run.settings, [stage] if stage in runs.NOTEBOOKS else ())
    return found


def jsons(box):
    """{name: how it is read} of the JSON files of a finished run; of the points' manifests one."""
    found = {}
    for path in sorted(box.scale.rglob("*.json")):
        name = path.relative_to(box.scale).as_posix()
        stage, _, rest = name.partition("/")
        if ".partial/" in name or (stage == "study" and any(n.startswith("study/") for n in found)):
            continue
        if path.name == "manifest.json":
            found[name] = partial(read_manifest, box, path.parent.relative_to(box.scale).as_posix())
        elif name == "evaluate/numbers.json":
            found[name] = partial(read_numbers, box)
        elif name == "best_of_n/numbers.json":
            found[name] = lambda: of_book("frontpage").rival(box.scale)
        elif rest == "numbers.json":  # for people
            found[name] = lambda path=path: files.read_json(path)
        elif stage == "reward" and path.name == "card.json":
            found[name] = lambda path=path: reward.load(path.parent, box.clip)
        elif path.relative_to(box.scale).parts[:2] not in MODELS and rest != "unet/config.json":
            found[name] = None
    return found


MODELS = ("pretrain", "bundle"), ("pretrain", "rival")  # their own doors are those of models
KEYED = ("generate/manifest.json", "align/manifest.json", "reward/model/card.json", "evaluate/numbers.json")


def of_json(box, name):
    """The doors of one JSON file of a finished run."""
    path, opens = box.scale / name, jsons(box)[name]
    named = (Path(name).parts[0], path.parent.name)
    yield from objects("json", name, path, opens, named, keys=name in KEYED or name.startswith("study"))


def of_attempts(box):
    """The doors of what a killed attempt has left behind, and of its lock."""
    settings = box.defaults["prompts"].model_copy(update={"seed": 77})
    run = runs.Run("prompts", settings)
    started, attempt = run.folder / "started.json", run.path("work/attempt.json")
    folder = run.folder
    del run

    def again():
        assert runs.Run("prompts", settings).folder == folder

    yield from objects("json", "attempt/started.json", started, again, ("prompts",), keys=False, mends=True)
    yield from objects("json", "attempt/work/attempt.json", attempt, again, ("prompts",), mends=True)
    lock = box.scale / ".locks" / "generate"
    lock.touch()

    def locked():
        runs.Run("generate", box.defaults["generate"], ["prompts"])
        runs.locks.release(lock)

    # a pipe or a foreign file there is as good a lock as any
    yield Door("json", "lock", ("generate",), of_file(lock, locked, kinds.FILES, mends=True))


def of_recorded(box):
    """The doors of the records' JSON files."""
    where = box.folder / "records"

    def benchmark():
        given = {"records": [where / "benchmark-toy.json"], "display": str}
        starts = ("kinds =", "kinds |=", "found =", "for made in found", "for made in found")
        notebook("A2_gpu", *starts, **given)

    yield from objects("json", "records/benchmark-toy.json", where / "benchmark-toy.json", benchmark)
    yield from objects("json", "records/eye.json", where / "eye.json", partial(read_eye, box))
    how = where / "study.json"  # for people
    yield from objects("json", "records/study.json", how, lambda: files.read_json(how))
    made = box.copied(hub.ASSETS / "made.json", box.folder / "assets" / "made.json")

    class Moved:
        ASSETS = made.parent

    def shipped():
        notebook("A1_pretrain", "made =", "when =", "print(", hub=Moved)

    yield from objects("json", "assets/made.json", made, shipped)
