"""nbval: every notebook at smoke scale, text outputs against the executed copies in tests/reference (`make reference` refreshes them)."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """nbval over the executed copies, those that need no others beside the chain: (what failed, folder of the artifacts that this second run made)."""
    folder, copies = tmp_path_factory.mktemp("nbval") / "runs", sorted((ROOT / "tests" / "reference").glob("*.ipynb"))
    assert {p.name for p in copies} == {p.name for p in (ROOT / "notebooks").glob("*.ipynb")}
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg"), "--nbval-cell-timeout", "600", "-q",
               "-p", "no:cacheprovider"]
    environment, alone = {**os.environ, "RLHF_NB_RUNS": str(folder), "OMP_NUM_THREADS": "1"}, ("00_tour", "A1_pretrain", "A2_gpu")
    running = [subprocess.Popen([*command, *(str(p) for p in copies if (p.stem in alone) == apart)], cwd=ROOT, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for apart in (True, False)]
    said = [process.communicate()[0] for process in running]
    return "".join(text[-6000:] for process, text in zip(running, said, strict=True) if process.returncode), folder


@pytest.mark.slow
def test_notebooks_print_what_they_printed(replayed):
    assert not replayed[0], replayed[0]


@pytest.mark.slow
def test_one_seed_gives_the_same_digests(replayed, smoke):
    """Papermill through the graph and nbval ran every notebook once each: all artifacts must be equal byte for byte."""
    digests = [{p.parent.name: json.loads(p.read_text())["digest"] for p in folder.glob("smoke/**/manifest.json")} for folder in (replayed[1], smoke / "runs")]
    assert len(digests[0]) == 14 and digests[0] == digests[1]


def test_reference_sources_are_the_notebooks_own():
    """A notebook changed without `make reference` would be compared with an old one."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        own = [c["source"] for c in json.loads(path.read_text())["cells"]]
        copy = [c["source"] for c in json.loads((ROOT / "tests/reference" / path.name).read_text())["cells"]
                if "injected-parameters" not in c["metadata"].get("tags", [])]
        assert own == copy, f"{path.name}: run `make reference`"
