"""Refresh the executed copies that nbval compares with: run the graph at smoke scale, keep text outputs, drop pictures."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def strip(notebook):
    """Drop pictures, widget state and run metadata; keep everything that is text."""
    notebook.metadata = {k: notebook.metadata[k] for k in ("kernelspec", "language_info")}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                if "data" in output:
                    output["data"] = {k: v for k, v in output["data"].items() if not k.startswith("image/")}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "RLHF_NB_RUNS": f"{folder}/runs", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run([sys.executable, "-m", "snakemake", "-s", "notebooks/Snakefile", "--cores", "2", "--quiet", "all", "--nolock", "--config", "scale=smoke",
                        f"out={folder}/out"], cwd=ROOT, env=environment, check=True)
        for path in sorted(Path(f"{folder}/out").glob("*.ipynb")):
            nbformat.write(strip(nbformat.read(path, 4)), ROOT / "tests" / "reference" / path.name)
            print("refreshed", path.name)
