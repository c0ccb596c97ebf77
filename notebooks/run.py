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

# jsonschema would compile a grammar of web addresses at every start, for two seconds
sys.modules["rfc3987_syntax"] = None

import papermill  # noqa: E402
from nbclient.exceptions import DeadKernelError  # noqa: E402

from rlhf_nb import config, files  # noqa: E402
from rlhf_nb.stages import NOTEBOOKS  # noqa: E402

# Seconds that a kernel may take to answer, on a cold disk or a crowded machine.
START = 600
STAGES = {"00_tour": "tour", "A2_gpu": "gpu", "A3_methods": "methods"}
STAGES |= {v: k for k, v in NOTEBOOKS.items()}
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
        if equals and name.isidentifier():
            found[name] = config.parsed(value, f"value of {name!r}")
        else:
            found |= config.read(words)
    return found


def make(args, log):
    """Run a notebook; what it cannot take is refused before a kernel starts."""
    given = parameters(args.given)
    if not args.source.is_file():
        raise config.ConfigError(f"there is no notebook {args.source}: give one")
    if args.source.stem in STAGES:
        config.settings(STAGES[args.source.stem], **given)
    with files.writing(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as file:
            # what libraries and kernel have to say interests only where it fails
            os.dup2(file.fileno(), 2)
    execute(args.source, args.out, given, args.limit)


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
    say(name)
    try:
        make(args, log)
    except (
        *(papermill.PapermillExecutionError, RuntimeError),
        *(OSError, config.UserError),  # a cell that takes too long is an OSError
    ) as error:
        say(f"{name} failed:")
        said = log.read_text()[-2000:] if log.is_file() else ""
        told = f"{type(error).__name__}: {error}\n{said}".strip()
        print("\n".join(getattr(error, "traceback", [])) or told)
        sys.exit(1)
    log.unlink()
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    say(f"{name} done in {minutes} min {seconds} s")


if __name__ == "__main__":
    main()
