"""Artifacts and manifests: each stage writes runs/<scale>/<stage>/ whole or not at all, with a manifest.

A stage works in <stage>.partial/<key>, whose key stands for its settings and inputs, and is published as a
whole at the end. So a killed run leaves the last good result untouched, and what it had done is found again
by a start with the same settings and inputs, also after others in between.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
import weakref
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from . import config, files, flops, hub, locks
from .bounds import Count, Size
from .files import ArtifactError, digest, intact, json_digest, put, read_json, write_json, write_text, writing
from .stages import EXECUTION, MAKES, NOTEBOOKS

PASSING = ("started.json", "work", "manifest.json")  # of an attempt: its mark, checkpoints and the like
PACKAGES = "torch diffusers transformers accelerate numpy scipy".split()
MANIFEST = {
    **dict.fromkeys(("stage", "digest", "device", "finished"), str),
    **dict.fromkeys(("settings", "files"), dict[str, Any]),
    **dict.fromkeys(("inputs", "versions"), dict[str, str]),
    **{"threads": Count, "seconds": Size, "tflop": Size | None},
}
# Of a launch's processes the one that locks the stage and keeps its time.
FIRST = os.environ.get("RANK", "0") == "0"


def root():
    """Folder of all runs, absolute: RLHF_NB_RUNS, else `runs`.

    It is below the clone around the working folder, be that the clone or its notebooks, or else below here.
    """
    here = Path.cwd()
    clone = next((f for f in (here, here.parent) if (f / "rlhf_nb" / "__init__.py").exists()), here)
    return clone / os.path.expanduser(os.environ.get("RLHF_NB_RUNS") or "runs")


def threads():
    """How many processor threads this process computes on; 1 where a GPU does."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def maker(stage):
    """The notebook that makes a stage; points of experiments are made by 08_data."""
    return NOTEBOOKS.get(stage, NOTEBOOKS["data"])


def manifest(scale, stage):
    """The manifest of a finished stage.

    Raises ArtifactError if it is missing, damaged, or made from inputs that have since changed.
    """
    path = root() / scale / stage / "manifest.json"
    run_it = f"run notebook {maker(stage)}"
    if not os.path.exists(path):
        raise ArtifactError(f"no finished {stage!r} at scale {scale!r}: {run_it} first (-p scale {scale})")
    remedy, order = f"{run_it} again (-p scale {scale})", list(NOTEBOOKS)
    found = read_json(path, remedy=remedy, **MANIFEST)
    for name in found["inputs"].keys() & NOTEBOOKS.keys():
        if stage in order and order.index(name) >= order.index(stage):
            raise ArtifactError(f"{path} is damaged: {remedy}")
        if manifest(scale, name)["digest"] != found["inputs"][name]:
            raise ArtifactError(f"{stage!r} was made from an older {name!r}: {remedy}")
    return found


def settings_of(scale, stage):
    """The settings that a finished stage was made with, a dict."""
    given = manifest(scale, stage)["settings"]
    try:
        return config.settings(stage, **given).model_dump(mode="json")
    except config.ConfigError as error:
        again = f"run notebook {maker(stage)} again (-p scale {scale})"
        raise ArtifactError(f"finished {stage!r} had other settings ({error}): {again}") from None


def result(scale, stage, name=""):
    """Path of a finished stage's file.

    Raises ArtifactError if the stage or the file is not there, or a table is no more what was made.
    """
    made, path = manifest(scale, stage)["files"], root() / scale / stage / name
    remedy = f"run notebook {maker(stage)} again (-p scale {scale})"
    if not os.path.exists(path):
        raise ArtifactError(f"{path} is missing: {remedy}")
    if path.suffix in (".csv", ".json") and name in made and not intact(path, made[name]):
        raise ArtifactError(f"{path} is damaged or was changed by hand: restore it, or {remedy}")
    return path


class Run:
    """One stage being made: `path(name)` to write to, `read(stage, name)` for inputs, `finish()` at the end.

    The attempt's folder stays as it is until the last Run of it in this process is gone, so that any cell of
    a notebook may run again, after `finish` too: what it writes changes the published stage only when
    `finish` runs again. While a stage is being made another process is refused; the ranks of one launch work
    under the lock of the first.
    """

    users = Counter()  # folder -> how many Runs of this process work in it

    def __init__(self, stage, settings, needs=()):
        self.stage, self.settings = stage, settings
        self.inputs = {name: manifest(settings.scale, name)["digest"] for name in needs}
        named = {getattr(settings, field, "") for field in ("pipeline", "clip", "judge")}
        local = {name: hub.place(name) for name in sorted(named - {""})}
        self.inputs |= {name: digest(where) for name, where in local.items() if os.path.isdir(where)}
        identity = {k: v for k, v in settings.model_dump(mode="json").items() if k not in EXECUTION}
        started = json.dumps({"settings": identity, "inputs": self.inputs}, indent=1)
        self.final = root() / settings.scale / stage
        self.lock = root() / settings.scale / ".locks" / stage.replace("/", "-")
        key = hashlib.sha256(started.encode()).hexdigest()[:12]
        self.folder = self.final.with_name(f"{self.final.name}.partial") / key
        with writing(self.folder):
            self._claim()
            self._tidy()
            self.folder.mkdir(parents=True, exist_ok=True)
            if FIRST:
                write_text(self.folder / "started.json", started)
            self.begun, self.spent = self._attempt(), flops.spent
        self.users[self.folder] += 1
        weakref.finalize(self, Run._leave, self.folder)

    def _claim(self):
        """Nobody else makes this stage from now on, until it is finished or this process ends."""
        if not FIRST:
            return
        try:
            with writing(self.lock):
                locks.take(self.lock)
        except locks.Held as held:
            raise ArtifactError(
                f"{self.stage!r} is being made by another process ({held}): wait for it or stop it, then "
                "start again"
            ) from None

    def _tidy(self):
        """Remove what finished attempts have left; say where unfinished ones are kept."""
        attempts = [p for p in self.folder.parent.glob("*") if p.is_dir()] if FIRST else []
        for path in attempts:
            if path.suffix == files.GONE or (path / "manifest.json").exists() and not self.users[path]:
                files.remove(path)
        others = [p for p in attempts if p.exists() and p != self.folder and not self.users[p]]
        if others:
            print(
                f"{len(others)} unfinished with other settings or inputs: kept in {self.folder.parent.name}, "
                "where started.json says which; delete what you will not go on with"
            )

    @classmethod
    def _leave(cls, folder):
        """The last Run of a finished attempt takes its folder away."""
        cls.users[folder] -= 1
        if not cls.users[folder] and (folder / "manifest.json").exists() and FIRST:
            with contextlib.suppress(OSError):  # others may lie beside it
                files.remove(folder)
                folder.parent.rmdir()

    def _attempt(self):
        """When this stage would have begun had no attempt been killed.

        That is now, less the seconds from each earlier attempt's start to the last thing it wrote.
        """
        file, now, spent = self.folder / "work" / "attempt.json", time.time(), 0.0
        self.resumed = file.exists()
        if not FIRST:
            return now  # of several processes the first keeps the time
        with contextlib.suppress(ArtifactError):  # of a damaged file nothing is known, as at the first start
            last = read_json(file, begun=float, spent=float)
            spent = last["spent"] + max(p.stat().st_mtime for p in self.folder.rglob("*")) - last["begun"]
        file.parent.mkdir(exist_ok=True)
        write_json(file, {"begun": now, "spent": spent})
        return now - spent

    def path(self, name):
        """Where to write `name`; its folder exists."""
        self._claim()  # given back when the stage was finished
        path = self.folder / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def read(self, stage, name=""):
        """Path of an input of this run; `stage` must be one of its declared needs."""
        if stage not in self.inputs:
            raise KeyError(f"{self.stage!r} does not declare that it needs {stage!r}")
        return result(self.settings.scale, stage, name)

    def made(self, stage):
        """The settings that a finished stage of this run's scale was made with, a dict."""
        return settings_of(self.settings.scale, stage)

    def csv(self, name, rows):
        """Write a table and return it as a DataFrame."""
        table = pd.DataFrame(rows)
        write_text(self.path(name), table.to_csv(index=False))
        return table

    def json(self, name, value):
        """Write numbers for later chapters and the front page."""
        write_json(self.path(name), value)

    def finish(self):
        """Publish the stage with its manifest, which is returned; run again, it publishes what has changed.

        Raises ArtifactError while a part is missing.
        """
        self._claim()
        with writing(self.final):
            missing = [name for name in MAKES[self.stage.split("/")[0]] if not (self.folder / name).exists()]
            if missing:
                raise ArtifactError(
                    f"{self.stage!r} still lacks {', '.join(missing)}: run the cells above this one, or the "
                    "whole notebook, first"
                )
            inside = [(p.relative_to(self.folder), p) for p in sorted(self.folder.rglob("*")) if p.is_file()]
            made = {
                name.as_posix(): digest(path)
                for name, path in inside
                if not path.suffix.startswith(".part") and name.parts[0] not in PASSING
            }
            known = json_digest(made)
            published = self._published(known)
            if not published:
                published = self._about(made, known)
                self._publish(made, json.dumps(published, indent=1) + "\n")
            locks.release(self.lock)
        return published

    def _about(self, made, known):
        """The manifest of files `made` {name: digest}, whose common digest is `known`."""
        device = f"{platform.machine()}, {threads()} threads"
        listed = {name: of for name, of in made.items() if not name.endswith(".png")}
        return {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "inputs": self.inputs,
            "digest": known,
            "files": listed if len(listed) <= 40 else {"count": len(made)},
            "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else device,
            "threads": threads(),
            "tflop": None if self.resumed else flops.since(self.spent),
            "seconds": round(time.time() - self.begun, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _published(self, known):
        """The manifest of the published stage, where it is this attempt's and nothing has changed since."""
        with contextlib.suppress(ArtifactError):  # missing or damaged: published anew
            found = read_json(self.folder / "manifest.json", digest=str)
            if found["digest"] == known and found == read_json(self.final / "manifest.json"):
                return found

    def _publish(self, made, text):
        """Copy the files `made` and the manifest `text` into place, all at once."""
        new, old = (self.final.with_name(f"{self.final.name}.{end}") for end in ("new", "old"))
        shutil.rmtree(new, ignore_errors=True)
        for name in made:
            put(self.folder / name, new / name)
        (new / "manifest.json").write_text(text)
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.rename(old)
        new.rename(self.final)
        write_text(self.folder / "manifest.json", text)
        shutil.rmtree(old, ignore_errors=True)
