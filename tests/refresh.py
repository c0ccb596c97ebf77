"""Make the references that the notebooks are compared with anew: run the graph at smoke scale and keep what
`outputs` compares."""

import tempfile
from pathlib import Path

import nbformat
import outputs
from graph import run

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if said := run(Path(folder)):
            raise SystemExit(said)
        for path in sorted(Path(folder, "book", "notebooks").glob("*.ipynb")):
            outputs.write(path.stem, outputs.printed(nbformat.read(path, 4)))
            print("refreshed", path.stem)
