"""The benchmark runs and prints ratios; how fast is nobody's assertion."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

BENCHMARK = [sys.executable, str(ROOT / "tests" / "benchmark.py")]
pytestmark = pytest.mark.slow


def test_benchmark_prints_ratios_and_records_them(tmp_path):
    done = subprocess.run(
        [*BENCHMARK, "--batches", "4", "--rounds", "1", "--steps", "1", "--record", str(tmp_path / "b.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [r["what"] for r in rows] == ["training", "sampling"] and all(
        r["ours"] > 0 and r["ratio"] == pytest.approx(r["ours"] / r["stock"]) for r in rows
    )
    assert "of a matrix product's speed" in done.stdout
    grown = subprocess.run([*BENCHMARK, "--growth", "40"], cwd=ROOT, capture_output=True, text=True)
    assert "MiB of its own" in grown.stdout, grown.stderr[-2000:]


def test_the_true_size_without_a_gpu_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    done = subprocess.run([*BENCHMARK, "--sd15"], cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode and "wants a GPU and none is here" in done.stderr and "Traceback" not in done.stderr
    )
