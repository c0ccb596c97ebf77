"""Notebooks run one after the other without a kernel: each in a process of its own, as in a kernel, which
begins where the libraries are loaded.

    python shells.py '{"01_prompts": {"seed": 1}}'      with these values laid over its parameters
"""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run(name, given):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    for cell in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            shell.run_cell("".join(cell["source"])).raise_error()
        if "parameters" in cell["metadata"].get("tags", ()):
            shell.user_ns.update(given)


def executed(given, folder=NOTEBOOKS, **environment):
    """What the notebooks {name: {parameter: value}} print, run in `folder`; they must come to their ends."""
    command = [sys.executable, __file__, json.dumps(given)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as in a kernel: the folder of the tests is not on it
    import diffusers  # noqa: F401
    import matplotlib
    import peft  # noqa: F401
    import transformers  # noqa: F401

    from rlhf_nb import align, evaluate, figures, photos  # noqa: F401

    matplotlib.use("agg")
    print(align.__file__)
    for name, given in json.loads(sys.argv[1]).items():
        process = multiprocessing.get_context("fork").Process(target=run, args=(name, given))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{name} failed")
