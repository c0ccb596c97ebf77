"""One notebook through papermill: a kernel that starts slowly is waited for, a failed
start is tried again, a failure ends with its own words.

python notebooks/run.py notebooks/05_align.ipynb OUT.ipynb scale=toy [settings.yaml]
[--limit SECONDS]

Parameters are words NAME=VALUE, and YAML files as papermill's `-f` takes them; what
comes later wins.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import papermill
import yaml
from nbclient.exceptions import DeadKernelError

from rlhf_nb import config

START = (
    600  # seconds that a kernel may take to answer, on a cold disk or a crowded machine
)
STARTS = 3  # how often a start is tried


def execute(source, out, parameters, limit=None, start=START, kernel="python3"):
    """Run the notebook `source`; its executed copy is `out`, or as far as it came
    OUT.part.ipynb. Raises papermill.PapermillExecutionError.
    """
    part = out.with_suffix(".part.ipynb")
    for left in reversed(range(STARTS)):
        try:
            papermill.execute_notebook(
                source,
                part,
                parameters=parameters,
                cwd=source.parent,
                kernel_name=kernel,
                progress_bar=False,
                start_timeout=start,
                execution_timeout=limit,
            )
            return part.replace(out)
        except DeadKernelError:
            raise  # it died at work, not at its start
        except RuntimeError as error:
            if not left:
                raise
            say(f"{source.stem}: the kernel did not start ({error}); once more")


def say(words):
    print(f"{time.strftime('%H:%M')}  {words}", flush=True)


def parameters(given):
    found = {}
    for words in given:
        name, equals, value = words.partition("=")
        found |= {name: yaml.safe_load(value)} if equals else config.read(words)
    return found


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("source", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument(
        "given", nargs="*", help="NAME=VALUE, or a YAML file of names and values"
    )
    ask.add_argument("--limit", type=int, help="seconds that one cell may take")
    args = ask.parse_args()
    name, begun, log = args.source.stem, time.monotonic(), args.out.with_suffix(".log")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    say(name)
    with open(log, "w") as file:
        os.dup2(
            file.fileno(), 2
        )  # what libraries and kernel have to say interests only where it fails
    try:
        execute(args.source, args.out, parameters(args.given), args.limit)
    except (papermill.PapermillExecutionError, RuntimeError, config.UserError) as error:
        say(f"{name} failed:")
        print(
            "\n".join(getattr(error, "traceback", []))
            or f"{type(error).__name__}: {error}\n{log.read_text()[-2000:]}".strip()
        )
        sys.exit(1)
    log.unlink()
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    say(f"{name} done in {minutes} min {seconds} s")


if __name__ == "__main__":
    main()
