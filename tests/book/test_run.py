"""The graph's runner: a kernel that does not start is started again, a cell that fails is not run again."""

import json
import sys

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
import run  # noqa: E402

FLAKY = """
import pathlib, sys
tried = pathlib.Path(sys.argv[1])
with open(tried, "a") as file:
    file.write("x")
if len(tried.read_text()) < int(sys.argv[2]):
    sys.exit("as on a full process table")
sys.argv[1:] = ["-f", sys.argv[3]]
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """flaky(n) -> a notebook whose kernel starts at the n-th try, and the file that counts the tries."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    tried, source = tmp_path / "tried", tmp_path / "source.ipynb"

    def of(n, cell="print(6 * 7)"):
        spec = tmp_path / "jupyter" / "kernels" / "flaky"
        spec.mkdir(parents=True)
        argv = [sys.executable, "-c", FLAKY, str(tried), str(n), "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "flaky", "language": "python"})
        )
        metadata = {"kernelspec": {"name": "flaky", "display_name": "flaky", "language": "python"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=metadata), source
        )
        return source, tried

    return of


@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_started_again(flaky, tmp_path, capsys):
    source, tried = flaky(3)
    run.execute(source, tmp_path / "out.ipynb", {}, kernel="flaky")
    assert (
        nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text == "42\n"
        and tried.read_text() == "xxx"
    )
    assert capsys.readouterr().out.count("source: the kernel did not start") == 2


@pytest.mark.slow
def test_it_is_given_up_at_last(flaky, tmp_path):
    source, tried = flaky(99)
    with pytest.raises(RuntimeError, match="[Kk]ernel"):
        run.execute(source, tmp_path / "out.ipynb", {}, kernel="flaky")
    assert tried.read_text() == "x" * run.STARTS and not (tmp_path / "out.ipynb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["raise ValueError('no')", "import os; os._exit(1)"])
def test_a_cell_that_fails_or_ends_the_kernel_is_not_run_again(flaky, tmp_path, cell):
    source, tried = flaky(1, cell)
    with pytest.raises((run.papermill.PapermillExecutionError, run.DeadKernelError)):
        run.execute(source, tmp_path / "out.ipynb", {}, kernel="flaky")
    assert tried.read_text() == "x" and not (tmp_path / "out.ipynb").exists()


def test_parameters_come_from_words_and_files(tmp_path):
    (tmp_path / "given.yaml").write_text("beta: 0.5\nsplits: [seen]\n")
    found = run.parameters([str(tmp_path / "given.yaml"), "scale=smoke", "beta=2"])
    assert found == {"beta": 2, "splits": ["seen"], "scale": "smoke"}


@pytest.mark.parametrize(
    "given, words",
    [
        (["betta=1"], "unknown parameter 'betta' of notebook 'prompts'"),
        (["scale=["], "value of 'scale' cannot be read"),
        (["seed=" + "9" * 5000], "value of 'seed' cannot be read"),
        (["no such=file.yaml"], "settings file no such=file.yaml cannot be read"),
    ],
)
def test_what_a_notebook_cannot_take_is_said_before_a_kernel_starts(
    tmp_path, monkeypatch, capsys, given, words
):
    monkeypatch.setattr(
        "sys.argv", ["run.py", str(ROOT / "notebooks/01_prompts.ipynb"), f"{tmp_path}/o", *given]
    )
    with pytest.raises(SystemExit, match="1"):
        run.main()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[2].startswith("ConfigError: ") and words in said[2]
    assert not list(tmp_path.iterdir())
