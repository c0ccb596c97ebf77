"""The benchmark runs and prints ratios; how fast is nobody's assertion."""

import json

import benchmark
import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture
def said(monkeypatch, capsys):
    """The benchmark with the given options: what it prints."""

    def run(*options):
        monkeypatch.setattr("sys.argv", ["benchmark.py", *options])
        benchmark.main()
        return capsys.readouterr().out

    return run


def test_benchmark_prints_ratios_and_records_them(said, tmp_path):
    few = "--batches 4 --rounds 1 --steps 1".split()
    assert "of a matrix product's speed" in said(*few, "--record", str(tmp_path / "b.json"))
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [r["what"] for r in rows] == ["training", "sampling"] and all(
        r["ours"] > 0 and r["ratio"] == pytest.approx(r["ours"] / r["stock"]) for r in rows
    )


def test_cost_and_memory_of_a_growing_set(said):
    assert "MiB of its own" in said("--growth", "40", "--rounds", "1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_the_true_size_without_a_gpu_says_so(said, capsys):
    with pytest.raises(SystemExit, match="1"):
        said("--sd15")
    assert "wants a GPU and none is here" in capsys.readouterr().err
