"""`python tests/kills.py FOLDER`: kill stages at random points, start them again, and compare every byte with
a run that nobody killed.

FOLDER holds a finished smoke run as `graph.run` leaves it. Each stage starts beside a copy of its artifacts;
at a random share of the time that it takes, it and all it has started are killed outright. The published
stage must still be the old one; then it starts anew and must publish the same bytes. The points come from
--seed alone.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from graph import ROOT

from rlhf_nb import files, stages

LINE = "{:12} {:>8} {:>8}  {:28} {:>6}"


def points(count, seed):
    """(stage, share of its time) of every kill: each stage in turn, at a random point."""
    made, rng = list(stages.NOTEBOOKS), random.Random(seed)
    return [(made[k % len(made)], rng.uniform(0.05, 1)) for k in range(count)]


def begin(stage, folder):
    """A process that makes `stage` as the graph would, with its artifacts in FOLDER/runs."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    name = stages.NOTEBOOKS[stage]
    command = [
        sys.executable,
        "notebooks/run.py",
        f"notebooks/{name}.ipynb",
        f"{folder}/{name}.ipynb",
        "scale=smoke",
    ]
    environment = {**os.environ, **threads, "RLHF_NB_RUNS": f"{folder}/runs"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill(process):
    """End a process and all that it has started, at once."""
    family = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
    process.communicate()


def bytes_of(folder):
    """{file: digest} of a published stage but for its manifest, which has times in it."""
    return {
        p.relative_to(folder): files.digest(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }


def killed(smoke, stage, share):
    """Kill `stage` and finish it: {"after", seconds, "left", what the kill left, "differ", files that
    differ}.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(smoke / "runs", folder / "runs")
        whole = bytes_of(folder / "runs" / "smoke" / stage)
        copy = json.loads((smoke / "book" / "notebooks" / f"{stages.NOTEBOOKS[stage]}.ipynb").read_text())
        if stage == "data":  # its points are stages of their own: they are made anew too
            shutil.rmtree(folder / "runs" / "smoke" / "study")
        process, after = begin(stage, folder), share * copy["metadata"]["papermill"]["duration"]
        try:
            process.wait(after)
            left = "it had ended"
        except subprocess.TimeoutExpired:
            kill(process)
            attempts = (folder / "runs" / "smoke" / f"{stage}.partial").glob("*/*")
            left = ", ".join(sorted({p.name for p in attempts} - {"started.json"}))[:28] or "nothing"
        assert bytes_of(folder / "runs" / "smoke" / stage) == whole, f"a kill changed the published {stage}"
        begun = time.time()
        process = begin(stage, folder)
        said = process.communicate()[0]
        assert process.returncode == 0, said
        manifest = folder / "runs" / "smoke" / stage / "manifest.json"
        assert manifest.stat().st_mtime > begun, f"{stage} was not published anew"
        again = bytes_of(folder / "runs" / "smoke" / stage)
        differ = [k for k in whole.keys() | again.keys() if whole.get(k) != again.get(k)]
        return {"after": after, "left": left, "differ": differ, "again": time.time() - begun}


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("folder", type=Path)
    ask.add_argument("--count", type=int, default=25)
    ask.add_argument("--seed", type=int, default=18)
    args = ask.parse_args()
    print(LINE.format("stage", "killed", "again", "left by the kill", "differ"))
    differ = 0
    with ThreadPoolExecutor(2) as pool:
        chosen = points(args.count, args.seed)
        for (stage, _), row in zip(chosen, pool.map(lambda p: killed(args.folder, *p), chosen), strict=True):
            differ += len(row["differ"])
            seconds = (f"{row[k]:.1f} s" for k in ("after", "again"))
            print(LINE.format(stage, *seconds, row["left"], len(row["differ"])), flush=True)
    print(f"{args.count} kills, files that differ: {differ}")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
