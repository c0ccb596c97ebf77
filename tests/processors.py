"""`python tests/processors.py FOLDER`: every notebook as each kind of processor in `graph.PROCESSORS`
computes, against the references.

Prints a line a kind: how many of the chapters print what their reference says and hold against themselves,
and the minutes. Runs stay in FOLDER, so that a second call does only what is missing.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import graph


def main():
    if len(sys.argv) != 2:
        sys.exit("give a folder for the runs")
    failed = 0
    for kind in graph.PROCESSORS:
        folder = Path(sys.argv[1]).resolve() / kind.replace(" ", "-").replace(".", "")
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.time()
        graph.start(folder, kind).wait()
        minutes = (time.time() - begun) / 60
        asked = ["tests/test_printed.py", "tests/test_notebooks.py", "-k", "printed or reference_says"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *asked]
        environment = {**os.environ, "RLHF_NB_SMOKE": str(folder)}
        done = subprocess.run(command, cwd=graph.ROOT, env=environment, capture_output=True, text=True)
        failed += done.returncode != 0
        lines = done.stdout.strip().splitlines()
        print(f"{kind:24} {minutes:5.1f} min  {lines[-1]}", flush=True)
        for line in lines:
            if line.startswith("FAILED"):
                print(line, flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
