"""Artifacts and manifests: each stage writes runs/<scale>/<stage>/ whole or not at all, with a manifest beside its files.

A stage works in <stage>.partial/<key>, whose key stands for its settings and inputs, and is published as a whole at the end. So a killed run leaves the
last good result untouched, and what it had done is found again by a start with the same settings and inputs, also after others in between.
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

import numpy as np
import pandas as pd

from . import config, locks

NOTEBOOKS = {"prompts": "01_prompts", "generate": "02_generate", "feedback": "03_feedback", "reward": "04_reward",
             "align": "05_align", "evaluate": "06_evaluate", "best_of_n": "07_best_of_n", "data": "08_data", "sensitivity": "09_sensitivity",
             "pretrain": "A1_pretrain"}
MAKES = {  # what a stage that lacks it is not finished without
    "prompts": ("prompts.csv",), "generate": ("images",), "feedback": ("feedback.sqlite", "labels.csv", "raters.csv", "agreement.csv", "numbers.json"),
    "reward": ("model", "study.csv", "numbers.json"), "align": ("unet", "log.csv", "curve.csv", "numbers.json"),
    "evaluate": ("verdicts.csv", "accuracy.csv", "paired.csv", "quality.csv", "seeds.csv", "numbers.json", "result.png"),
    "best_of_n": ("best_of_n.csv", "votes.csv", "numbers.json"), "data": ("controls.csv", "data.csv", "rewards.csv", "feedback.csv"),
    "sensitivity": ("frontier.csv", "choices.csv", "verdicts.csv"), "pretrain": ("judge.csv", "eye.csv", "gates.csv", "numbers.json"), "study": ("rows.csv",),
}
PASSING = ("started.json", "work", "manifest.json")  # of an attempt: its mark, checkpoints and the like
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "scipy")


FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of one launch, which begins the stage, locks it and keeps its time


class ArtifactError(config.UserError, RuntimeError):
    """An artifact is missing, half-written or damaged; the message names it and the notebook that makes it."""


def root():
    """Folder of all runs: RLHF_NB_RUNS, or `runs` in the clone around the working folder, or in that folder itself."""
    here = Path.cwd()
    clone = next((f for f in (here, here.parent) if (f / "rlhf_nb" / "__init__.py").exists()), here)
    return Path(os.environ.get("RLHF_NB_RUNS") or clone / "runs")


def digest(path):
    """SHA-256 of a file, or of a folder's files and their names."""
    path, sha = Path(path), hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        sha.update(file.relative_to(path).as_posix().encode() + b"\0" if path.is_dir() else b"")
        with open(file, "rb") as stream:
            sha.update(hashlib.file_digest(stream, "sha256").digest())
    return sha.hexdigest()


def weights_digest(*models):
    """SHA-256 of the weights of torch modules, wherever they were loaded from."""
    sha = hashlib.sha256()
    for model in models:
        for name, value in sorted(model.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().float().cpu().contiguous().numpy())
    return sha.hexdigest()


def threads():
    """How many processor threads this process computes on; 1 where a GPU does."""
    import torch

    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def maker(stage):
    """The notebook that makes a stage; points of experiments are made by 08_data."""
    return NOTEBOOKS.get(stage, NOTEBOOKS["data"])


def manifest(scale, stage):
    """The manifest of a finished stage. Raises ArtifactError if it is missing, unreadable, or made from inputs that have since changed."""
    path = root() / scale / stage / "manifest.json"
    try:
        found = json.loads(path.read_text())
        for name, made in found["inputs"].items():
            if name in NOTEBOOKS and manifest(scale, name)["digest"] != made:
                raise ArtifactError(f"{stage!r} was made from an older {name!r}: run notebook {maker(stage)} again (-p scale {scale})")
        return found
    except FileNotFoundError:
        raise ArtifactError(f"no finished {stage!r} at scale {scale!r}: run notebook {maker(stage)} first (-p scale {scale})") from None
    except ValueError:
        raise ArtifactError(f"{path} is damaged: run notebook {maker(stage)} again (-p scale {scale})") from None


def result(scale, stage, name=""):
    """Path of a finished stage's file. Raises ArtifactError if the stage is not finished or the file is gone."""
    manifest(scale, stage)
    path = root() / scale / stage / name
    if not path.exists():
        raise ArtifactError(f"{path} is missing: run notebook {maker(stage)} again (-p scale {scale})")
    return path


def whole(path, text):
    """Write a text file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def place(source, target):
    """Put a file at `target` too: a picture of an image folder by a link where the disk can, for it is never written into; all else by a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.suffix == ".png" and (source.parent / "metadata.csv").exists():
            return os.link(source, target)
    except OSError:
        pass
    return shutil.copyfile(source, target)


class Run:
    """One stage being made: `path(name)` to write to, `read(stage, name)` for inputs, `finish()` when all is there.

    The attempt's folder stays as it is until the last Run of it in this process is gone, so that any cell of a notebook may run again, after `finish` too:
    what it writes changes the published stage only when `finish` runs again. While a stage is being made another process is refused; the ranks
    of one launch work under the lock of the first.
    """

    users = Counter()  # folder -> how many Runs of this process work in it

    def __init__(self, stage, settings, needs=()):
        self.stage, self.settings = stage, settings
        self.inputs = {n: manifest(settings.scale, n)["digest"] for n in needs}
        models = {v for f in ("pipeline", "clip", "judge") if (v := getattr(settings, f, "")) and Path(config.place(v)).is_dir()}
        self.inputs |= {m: digest(config.place(m)) for m in sorted(models)}
        identity = {k: v for k, v in config.as_dict(settings).items() if k not in config.EXECUTION}
        started = json.dumps({"settings": identity, "inputs": self.inputs}, indent=1)
        self.final = root() / settings.scale / stage
        self.lock = root() / settings.scale / ".locks" / stage.replace("/", "-")
        self.folder = self.final.with_name(f"{self.final.name}.partial") / hashlib.sha256(started.encode()).hexdigest()[:12]
        try:
            self._claim()
            self._tidy()
            self.folder.mkdir(parents=True, exist_ok=True)
            if FIRST:
                whole(self.folder / "started.json", started)
            self.begun = self._attempt()
        except OSError as error:
            raise ArtifactError(f"cannot write to {self.folder} ({error.strerror}): free or unlock it, or set RLHF_NB_RUNS to another folder") from None
        self.users[self.folder] += 1
        weakref.finalize(self, Run._leave, self.folder)

    def _claim(self):
        """Nobody else makes this stage from now on, until it is finished or this process ends."""
        if not FIRST:
            return
        try:
            locks.take(self.lock)
        except locks.Held as held:
            raise ArtifactError(f"{self.stage!r} is being made by another process ({held}): wait for it or stop it, then start again") from None

    def _tidy(self):
        """Remove what finished attempts have left; say where unfinished ones with other settings or inputs are kept."""
        attempts = [p for p in self.folder.parent.glob("*") if p.is_dir()] if FIRST else []
        for path in attempts:
            if (path / "manifest.json").exists() and not self.users[path]:
                shutil.rmtree(path)
        others = [p for p in attempts if p.exists() and p != self.folder and not self.users[p]]
        if others:
            print(f"{len(others)} unfinished with other settings or inputs: kept in {self.folder.parent.name}, where started.json says which; delete what "
                  "you will not go on with")

    @classmethod
    def _leave(cls, folder):
        """The last Run of a finished attempt takes its folder away."""
        cls.users[folder] -= 1
        if not cls.users[folder] and (folder / "manifest.json").exists() and FIRST:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others may lie beside it
                folder.parent.rmdir()

    def _attempt(self):
        """When this stage would have begun had no attempt been killed: now, less the seconds from each earlier one's start to the last thing it wrote."""
        file, now, spent = self.folder / "work" / "attempt.json", time.time(), 0.0
        if not FIRST:
            return now  # of several processes the first keeps the time
        if file.exists():
            last = json.loads(file.read_text())
            spent = last["spent"] + max(p.stat().st_mtime for p in self.folder.rglob("*")) - last["begun"]
        file.parent.mkdir(exist_ok=True)
        whole(file, json.dumps({"begun": now, "spent": spent}))
        return now - spent

    def path(self, name):
        """Where to write `name`; its folder exists."""
        self._claim()  # given back when the stage was finished
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def read(self, stage, name=""):
        """Path of an input of this run; `stage` must be one of its declared needs."""
        if stage not in self.inputs:
            raise KeyError(f"{self.stage!r} does not declare that it needs {stage!r}")
        return result(self.settings.scale, stage, name)

    def csv(self, name, rows):
        """Write a table and return it as a DataFrame."""
        table = pd.DataFrame(rows)
        whole(self.path(name), table.to_csv(index=False))
        return table

    def json(self, name, value):
        """Write numbers for later chapters and the front page."""
        whole(self.path(name), json.dumps(value, indent=1, default=float) + "\n")

    def finish(self):
        """Publish the stage with its manifest, which is returned; run again, it publishes what has changed. Raises ArtifactError while a part is missing."""
        import torch

        self._claim()
        missing = [name for name in MAKES[self.stage.split("/")[0]] if not (self.folder / name).exists()]
        if missing:
            raise ArtifactError(f"{self.stage!r} still lacks {', '.join(missing)}: run the cells above this one, or the whole notebook, first")
        files = {p.relative_to(self.folder).as_posix(): digest(p) for p in sorted(self.folder.rglob("*"))
                 if p.is_file() and p.suffix != ".part" and p.relative_to(self.folder).parts[0] not in PASSING}
        known = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        if not (published := self._published(known)):
            published = {"stage": self.stage, "settings": config.as_dict(self.settings), "inputs": self.inputs, "digest": known,
                         "files": files if len(files) <= 40 else {"count": len(files)},
                         "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
                         "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {threads()} threads",
                         "threads": threads(), "seconds": round(time.time() - self.begun, 1), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            self._publish(files, json.dumps(published, indent=1) + "\n")
        locks.release(self.lock)
        return published

    def _published(self, known):
        """The manifest of the published stage, where this very attempt has published it and nothing has changed since."""
        mine, out = self.folder / "manifest.json", self.final / "manifest.json"
        same = mine.exists() and out.exists() and mine.read_text() == out.read_text()
        return json.loads(mine.read_text()) if same and json.loads(mine.read_text())["digest"] == known else None

    def _publish(self, files, text):
        """Copy `files` and the manifest `text` into place, all at once."""
        new, old = (self.final.with_name(f"{self.final.name}.{end}") for end in ("new", "old"))
        shutil.rmtree(new, ignore_errors=True)
        for name in files:
            place(self.folder / name, new / name)
        (new / "manifest.json").write_text(text)
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.rename(old)
        new.rename(self.final)
        whole(self.folder / "manifest.json", text)
        shutil.rmtree(old, ignore_errors=True)


def table(path, columns):
    """A CSV as a DataFrame. Raises ArtifactError naming the first column that is missing."""
    path = Path(path)
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as CSV ({error}): make it again or give another file") from None
    for column in columns:
        if column not in rows:
            raise ArtifactError(f"{path} has no column {column!r} (it has {', '.join(rows)}): add it or give another file")
    return rows


def save_pngs(folder, images, names):
    """uint8 images (B, H, W, 3) as PNG files, each written whole or not at all."""
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        part = folder / f"{name}.part"
        try:
            Image.fromarray(image).save(part, format="png", compress_level=1)
            part.replace(folder / name)
        except OSError as error:
            raise ArtifactError(f"{folder / name} cannot be written ({error.strerror}): make room and run again, what was drawn so far is kept") from None


def save_rows(folder, names, rows):
    """The image folder's metadata.csv."""
    whole(Path(folder) / "metadata.csv", pd.DataFrame(rows).assign(file_name=names).set_index("file_name").to_csv())


class Images:
    """An image folder read lazily: `rows` is its metadata, `images[i:j]` or `images[array]` uint8 (B, H, W, 3)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.rows = table(self.folder / "metadata.csv", ("file_name", "prompt"))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        from PIL import Image

        images = []
        for name in self.rows.file_name.to_numpy()[which]:
            try:
                with Image.open(self.folder / name) as image:
                    images.append(np.asarray(image.convert("RGB")))
            except OSError as error:
                raise ArtifactError(f"image {self.folder / name} cannot be read ({error}): restore it or drop its row from metadata.csv") from None
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise ArtifactError(f"images in {self.folder} have different sizes {sorted(sizes)}: make them equal")
        return np.stack(images)
