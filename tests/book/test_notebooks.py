"""Every notebook at smoke scale: what it prints against its reference, here and as another processor would.

Run again, it makes the same.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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
    """nbval over each notebook, two at a time, as another kind of processor computes, beside a copy of the
    smoke run's artifacts: {stem: future}."""
    patience = "--nbval-cell-timeout 600 --nbval-kernel-startup-timeout 600"
    options = f"--nbval -p outputs --again {patience} -q -p no:cacheprovider".split()

    def replay(stem, folder):
        command = [sys.executable, "-m", "pytest", *options, f"notebooks/{stem}.ipynb"]
        added, _ = graph.PROCESSORS[graph.FOREIGN]
        added = added | {"RLHF_NB_RUNS": f"{folder}/runs", "PYTHONPATH": str(ROOT / "tests")}
        added["OMP_NUM_THREADS"] = "1"
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **added}, capture_output=True, text=True)

    folders = {
        stem: tmp_path_factory.mktemp(stem) for stem in [*SLOWEST, *(s for s in STEMS if s not in SLOWEST)]
    }
    for folder in folders.values():
        shutil.copytree(smoke / "runs", folder / "runs")
    shutil.rmtree(folders["08_data"] / "runs" / "smoke" / "study")  # its points are made anew, too
    pool = ThreadPoolExecutor(2)
    yield {stem: pool.submit(replay, stem, folder) for stem, folder in folders.items()}
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
def test_nbval_begins(replays):
    """In the background, so that other tests go on beside it."""
    assert sorted(replays) == STEMS


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_it_does_so_on_another_processor_where_any_cell_runs_again(replays, stem):
    """nbval runs it as another kind of processor computes, then every cell once more from the last to the
    first, and all in order."""
    done = replays[stem].result()
    assert done.returncode == 0, done.stdout[-6000:]


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
