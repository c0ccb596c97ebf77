"""The graph at smoke scale in a folder of its own, as this processor computes or as another kind would."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
PROCESSORS = {  # other kinds that this one can imitate: what to add to the environment, and threads
    "no vector instructions": ({"ATEN_CPU_CAPABILITY": "default"}, 1),
    "AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, 1),
    "oneDNN for SSE 4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, 1),
    "MKL alike everywhere": ({"MKL_CBWR": "COMPATIBLE"}, 1),
    "one thread": ({}, 1),
    "two threads": ({}, 2),
    "four threads": ({}, 4),
}
FOREIGN = "no vector instructions"  # the one that `make test` imitates


def start(folder, processor=None, ended=False):
    """A process that runs every notebook, as a `processor` of PROCESSORS would: executed copies go to
    FOLDER/book/notebooks, artifacts to FOLDER/runs, and what it says to FOLDER/said.txt; where it is asked
    for, a file FOLDER/ended tells the end."""
    added, threads = PROCESSORS.get(processor, ({}, 1))
    if not (folder / "book").exists():
        shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("notebooks"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    added = {**added, "RLHF_NB_RUNS": f"{folder}/runs", "PATH": path}
    added["OMP_WAIT_POLICY"] = (
        "PASSIVE"  # two kernels of several threads each would else keep both cores waiting
    )
    options = "-s notebooks/Snakefile --cores 2 --quiet all --keep-going --nolock".split()
    asked = ["--config", "scale=smoke", f"out={folder}/book/notebooks", f"threads={threads}", "--", "all"]
    command, environment = [sys.executable, "-m", "snakemake", *options, *asked], {**os.environ, **added}
    if ended:
        command = ["sh", "-c", '"$@"; touch "$0"', folder / "ended", *command]
    with open(folder / "said.txt", "w") as said:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)


def shared(folder):
    """`start` for all processes that test together: the first of them starts it."""
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            start(folder, ended=True)


def waited(folder, patience=1800):
    """`folder`, when the graph there has come to its end.

    A notebook that failed is missing, with those that need it: only tests of these fail.
    """
    begun = time.time()
    while not (folder / "ended").exists():
        assert time.time() - begun < patience, (folder / "said.txt").read_text()[-3000:]
        time.sleep(0.2)
    return folder


def run(folder, processor=None):
    """`start` to its end: what it said, or None where every notebook has run."""
    return (folder / "said.txt").read_text() if start(folder, processor).wait() else None
