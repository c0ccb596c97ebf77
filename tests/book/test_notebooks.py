"""Every notebook at smoke scale: what it prints against its reference, here and as another processor would.

Run again, it makes the same.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import graph
import names
import nbformat
import outputs
import pytest
from conftest import ROOT

STEMS = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
SLOWEST = ["00_tour", "05_align", "06_evaluate", "A1_pretrain", "04_reward"]  # begin first


def printed(run, stem):
    """What the executed copy of a notebook in the folder of a run printed."""
    copy = run / "book" / "notebooks" / f"{stem}.ipynb"
    assert copy.exists(), (run / "said.txt").read_text()[-3000:]
    return outputs.printed(nbformat.read(copy, 4))


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_it_prints_what_its_reference_says(smoke, stem):
    wrong = outputs.differences(stem, printed(smoke, stem))
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="session")
def replays(smoke, tmp_path_factory):
    """nbval over each notebook, as another kind of processor computes, beside a copy of the smoke run's
    artifacts: the process that does so, and the folder of it all."""
    folder = tmp_path_factory.mktemp("replays")
    stems = [*SLOWEST, *(s for s in STEMS if s not in SLOWEST)]
    for stem in stems:
        shutil.copytree(smoke / "runs", folder / stem / "runs")
    shutil.rmtree(folder / "08_data" / "runs" / "smoke" / "study")  # its points are made anew, too
    added = graph.PROCESSORS[graph.FOREIGN][0] | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    added["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in a kernel that begins by itself
    command = [sys.executable, "tests/replays.py", folder, *stems]
    with open(folder / "said.txt", "w") as said:
        options = {"cwd": ROOT, "env": {**os.environ, **added}, "stdout": said, "stderr": said}
        process = subprocess.Popen(command, **options, start_new_session=True)
    yield process, folder
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # with the kernels
        process.wait()


@pytest.mark.slow
def test_nbval_begins(replays):
    """In the background, so that other tests go on beside it."""
    assert sorted(p.name for p in replays[1].iterdir() if p.is_dir()) == STEMS


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_it_does_so_on_another_processor_where_any_cell_runs_again(replays, stem):
    """nbval runs it as another kind of processor computes, then every cell once more from the last to the
    first, and all in order."""
    process, folder = replays
    while not (folder / stem / "ended").exists():
        assert process.poll() is None or (folder / stem / "ended").exists(), (folder / "said.txt").read_text()
        time.sleep(0.2)
    said = (folder / stem / "said.txt").read_text()
    assert (folder / stem / "ended").read_text() == "0", said[-6000:]


@pytest.mark.parametrize("stem", STEMS)
def test_no_cell_reads_what_two_others_bind(stem):
    assert not names.unclear(json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text()))


def test_such_a_name_is_found():
    cells = [
        {"cell_type": "code", "metadata": {}, "source": [line]}
        for line in ("x, y = 1, 2", "y += x", "z = [x for x in range(y)]", "def f():\n    return w")
    ]
    assert names.unclear({"cells": cells}) == [
        "code cell 1 reads 'y', which cells [0, 1] bind",
        "code cell 2 reads 'y', which cells [0, 1] bind",
        "code cell 3 reads 'w', which cells [] bind",
    ]


def test_every_notebook_has_its_reference_and_no_other():
    assert sorted(p.stem for p in outputs.REFERENCE.glob("*")) == STEMS
    assert sum(len(p.read_text().splitlines()) for p in outputs.REFERENCE.glob("*")) <= 4000
    assert set(graph.PROCESSORS) >= {graph.FOREIGN}
