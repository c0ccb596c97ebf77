"""The doors around the program: files of settings, the command line, environment variables, and the disk."""

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from functools import partial

import pandas as pd
import torch
import yaml
from conftest import ROOT
from doors import kinds
from doors.doors import Door, of_file, places
from doors.people import image_folder, pictures
from torch import nn

from rlhf_nb import batches, config, diffusion, files, nets, reward, runs, train
from rlhf_nb.feedback import files as labels
from rlhf_nb.feedback.store import Store, Votes
from rlhf_nb.pictures import save_pngs, save_rows
from rlhf_nb.study import points, record

# Files of settings


def _text(words):
    return lambda path: path.write_text(words)


YAMLS = {
    "a list": _text("[1, 2]"),
    "a word": _text("hello"),
    "a number": _text("7"),
    "numbers for names": _text("1: 2\n3: 4"),
    "null for a name": _text("~: 2"),
    "lists for words": _text("scale: [smoke]\nseed: 1"),
    "5,000 digits": _text(f"seed: {kinds.DIGITS}"),
    "nested deeply": _text("a: " + "[" * 3000 + "]" * 3000),
    "nested mappings": _text("{a: " * 3000 + "1" + "}" * 3000),
    "a tab": _text("scale:\n\tsmoke"),
    "a name twice": _text("seed: 1\nseed: 2"),
    "an object of Python": _text("seed: !!python/object/apply:os.getcwd []"),
    "an unknown tag": _text("seed: !thing 1"),
    "a date": _text("seed: 2020-01-01"),
    "an impossible date": _text("seed: 2020-13-41"),
    "a merge of nothing": _text("<<: 7\nseed: 1"),
    "a mapping for a name": _text("? {a: 1}\n: 2"),
    "a list for a name": _text("? [a]\n: 2"),
    "an alias to nothing": _text("seed: *there"),
    "an alias to itself": _text("seed: &a [*a]"),
    "aliases that multiply": _text(
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 8)}]\n" for k in range(7))
    ),
    "two documents": _text("seed: 1\n---\nseed: 2"),
    "hexadecimal": _text("seed: 0x10"),
    "sixty": _text("seed: 1:30"),
    "yes": _text("seed: yes"),
    "bytes": _text("seed: !!binary aGVsbG8="),
    "a set": _text("seed: !!set {a, b}"),
    "an unknown name": _text("sede: 1"),
    "control characters": lambda path: path.write_bytes(b"seed: \x07\n"),
}


def command_line(stage, path):
    """The command line of a stage with a file of settings; its end with one sentence is a clear one."""
    before = sys.argv
    sys.argv = [stage, str(path)]
    try:
        config.command(stage, lambda settings: None)
    except SystemExit as end:
        said = str(end.code)
        assert said.startswith("error: ")
        raise config.ConfigError(said) from None
    finally:
        sys.argv = before


def settings_files(box):
    path = box.folder / "settings.yaml"
    path.write_text("scale: smoke\nseed: 3\n")
    named = ("seed", "sede", "scale", "parameter", "settings")
    for name, act in {
        "config.read": lambda: config.settings("prompts", **config.read(path)),
        "a stage's command": partial(command_line, "generate", path),
    }.items():
        yield Door("settings files", name, (path.name, *named), of_file(path, act, kinds.FILES | YAMLS))
    sweeps = box.copied(box.sweeps, box.folder / "sweeps.yaml")
    whole = yaml.safe_load(sweeps.read_text())

    def wrote(change):
        return lambda path: path.write_text(yaml.safe_dump(change(yaml.safe_load(yaml.safe_dump(whole)))))

    shapes = {kind: wrote(change) for kind, change in SWEEPS.items()}
    act = partial(points.points, sweeps, "smoke")
    named = (sweeps.name, "sweep", "parameter", "settings")
    yield Door("settings files", "sweeps.yaml", named, of_file(sweeps, act, kinds.FILES | YAMLS | shapes))
    for name in ("comparisons.yaml", "claims.yaml"):
        file = box.copied(box.sweeps.with_name(name), box.folder / name)
        act = partial(config.read, file)
        yield Door("settings files", name, (file.name,), of_file(file, act, kinds.FILES | YAMLS))


def _live(**changed):
    def change(found):
        found["sweeps"]["live"] |= changed
        return found

    return change


def _less(*way):
    def change(found):
        inside = found
        for key in way[:-1]:
            inside = inside[key]
        inside.pop(way[-1])
        return found

    return change


SWEEPS = {
    "no sweeps": _less("sweeps"),
    "no scales": _less("scales"),
    "no seeds": _less("sweeps", "live", "seeds"),
    "nothing varies": _less("sweeps", "live", "vary"),
    "seeds in words": _live(seeds="three"),
    "seeds in a list": _live(seeds=[1]),
    "vary is a word": _live(vary="arm"),
    "vary is a mapping": _live(vary={"arm": ["none"]}),
    "a grid is a list": _live(vary=[["arm"]]),
    "a dial is a number": _live(vary=[{"arm": 7}]),
    "an arm of no name": _live(vary=[{"arm": ["best"]}]),
    "a dial of no name": _live(vary=[{"charm": [1]}]),
    "negative seeds": _live(seeds=-1),
    "a sweep is a list": lambda found: {**found, "sweeps": {"live": [1]}},
    "sweeps are a list": lambda found: {**found, "sweeps": [1]},
    "scales are a list": lambda found: {**found, "scales": [1]},
    "a scale is a word": lambda found: {**found, "scales": {"smoke": "quick"}},
}


# Environment variables


ENVIRONMENT = {
    "empty": "",
    "relative": "some/runs",
    "home": "~/runs",
    "with a space": "FOLDER/a b",
    "with a line end": "FOLDER/a\nb",
    "with quotes": "FOLDER/a'b\"c",
    "with a star": "FOLDER/a*[b]?",
    "other letters": "FOLDER/läufe-日本",
    "no text": "FOLDER/\udcff",
    "a file": "/etc/hostname",
    "below a file": "/etc/hostname/runs",
    "a device": "/dev/null",
    "nowhere": "/proc/none",
    "a system's folder": "/sys",
    "too long a name": "FOLDER/" + "x" * 300,
    "too long a path": "FOLDER/" + "x/" * 3000,
    "a bucket": "s3://bucket/runs",
    "a dollar": "$HOME/runs",
    "with a colon": "FOLDER/a:b",
    "with an end": "FOLDER/a/",
    "with steps up": "FOLDER/a/../b",
    "a space": " ",
    "a dash": "-",
    "a number": "0",
}


def environment(box):
    """The doors of environment variables that the program reads."""
    home = box.folder / "home"
    home.mkdir()

    @contextlib.contextmanager
    def within(value, name):
        before, here = dict(os.environ), os.getcwd()
        os.environ |= {
            "RLHF_NB_RUNS": f"{home}/runs",
            "HOME": str(home),
            name: value.replace("FOLDER", str(home)),
        }
        os.chdir(home)
        try:
            yield box_of_runs
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)

    def box_of_runs():
        # by a fresh copy, for some are read at the import
        spec = importlib.util.spec_from_file_location("rlhf_nb.fresh_runs", runs.__file__)
        fresh = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fresh)
        run = fresh.Run("prompts", box.defaults["prompts"])
        run.csv("prompts.csv", [{"prompt": "x"}])
        run.finish()
        there = fresh.root()
        assert fresh.manifest("smoke", "prompts")["stage"] == "prompts"
        assert there.is_absolute() and "~" not in there.parts, f"runs are in {there}, wherever one stands"

    for name in sorted(variables()):
        values = {"RANK": RANKS}.get(name, ENVIRONMENT)
        cells = {kind: partial(within, value, name) for kind, value in values.items()}
        words = {
            kind: (value.replace("FOLDER", str(home)).strip()[:200], name) for kind, value in values.items()
        }
        yield Door("environment", name, (name,), cells, words)


RANKS = {
    "empty": "",
    "a word": "first",
    "negative": "-1",
    "half": "0.5",
    "zeros": "000",
    "a space": " 0",
    "plus": "+0",
    "5,000 digits": kinds.DIGITS,
    "NaN": "nan",
    "a list": "[0]",
    "true": "True",
    "with a line end": "0\n",
    "no text": "\udcff",
}


def variables():
    """Names of the environment variables that package and notebooks read."""
    found = set()
    for path in (*(ROOT / "rlhf_nb").rglob("*.py"), *(ROOT / "notebooks").glob("*")):
        if path.is_file():
            said = path.read_text(errors="replace")
            found |= set(re.findall(r"environ(?:\.get\(|\[|\.setdefault\()\s*\\?[\"'](\w+)", said))
            found |= set(re.findall(r"getenv\(\s*\\?[\"'](\w+)", said))
    return found


# The disk


def _stage(box, folder, patch=os.environ):
    before = patch["RLHF_NB_RUNS"]
    patch["RLHF_NB_RUNS"] = str(folder)
    try:
        run = runs.Run("prompts", box.defaults["prompts"])
        run.csv("prompts.csv", [{"prompt": "x" * 4000}])
        run.json("numbers.json", {"a": 1})
        run.finish()
        assert runs.manifest("smoke", "prompts")["stage"] == "prompts"
    finally:
        patch["RLHF_NB_RUNS"] = before
        for path in [path for path in runs.locks.held if str(path).startswith(str(folder))]:
            runs.locks.release(path)


def _adapters(box, folder):
    settings = box.defaults["align"].model_copy(update={"lora": 1})
    _unet(nets.trainable(box.pipe, settings), folder)


def _unet(unet, folder):
    diffusion.save_unet(unet, folder)
    assert list(folder.glob("*.safetensors")), "nothing was written, and nothing said"


def _training(box, folder):
    plan = train.Plan(steps=2, lr=1e-3, log_every=1, save_every=1)
    loss = lambda model, step: (model(torch.ones(2, 3)).sum(), {})  # noqa: E731
    list(train.loop(nn.Linear(3, 300), [loss], plan, folder=folder, engine=box.engine))


def _store(folder):
    store = Store(folder / "people.sqlite")
    store.add([{"rater": "me", "image": k, "prompt": "x" * 400, "label": "good"} for k in range(9)])
    assert len(store.table()) == 9


def _votes(folder):
    votes = Votes(folder / "votes.sqlite")
    votes.add("me", "x" * 4000, "alignment", 1, "x")
    assert len(votes.table())


def _pngs(folder):
    save_pngs(folder, pictures(2), ["a.png", "b.png"])
    save_rows(folder, ["a.png", "b.png"], {"prompt": ["x" * 4000, "y"]})


WRITERS = {
    "a stage": _stage,
    "pictures": lambda box, folder: _pngs(folder),
    "the label store": lambda box, folder: _store(folder),
    "the votes": lambda box, folder: _votes(folder),
    "a U-Net": lambda box, folder: _unet(box.pipe.unet, folder),
    "adapters": _adapters,
    "a training": _training,
    "an export": lambda box, folder: labels.export(folder, box.few, box.judgements),
    "a reward": lambda box, folder: reward.Reward(box.clip, reward.Head(box.clip.width, 4)).save(folder, {}),
    "tensors": lambda box, folder: files.write_tensors({"a": torch.zeros(999)}, folder / "a.safetensors"),
    "features": lambda box, folder: box.clip.folder(box.few, folder),
    "latents": lambda box, folder: batches.encode(box.pipe, box.pairs, folder),
    "the record": lambda box, folder: _record(folder),
}


def _record(folder):
    where = record.RECORD
    try:
        record.RECORD = (folder / "study.csv") if folder.is_dir() else folder
        if folder.is_dir():
            os.link(where, folder / "study.csv")  # which writes nothing
        record.record("smoke")
    finally:
        record.RECORD = where


def disk(box):
    """The doors of the disk: everything that is written, into every damaged place."""
    folder = box.folder / "disk"
    box.few = image_folder(box.folder / "disk-images")
    box.pairs = list(zip(box.few[:], box.few.rows.prompt, strict=True))
    rows = [{"rater": "a", "image": k, "prompt": "x", "label": "good"} for k in range(3)]
    box.judgements = pd.DataFrame(rows)
    for name, write in WRITERS.items():
        where = folder / name.replace(" ", "-")
        where.mkdir(parents=True)
        yield places("disk", name, where, partial(write, box), ("write", "written", "folder"))
