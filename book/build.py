"""Build the site from the executed notebooks: strict (a warning is an error), offline, of one run."""

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import arrange
import frontpage
import yaml

from rlhf_nb import __version__, config, files, runs

ROOT = Path(__file__).resolve().parent.parent
DRAW = '<p><a href="lab/index.html"><strong>Draw one now</strong></a>: both models run in your browser.</p>'


def markdown(heads, rows):
    """A Markdown table of cells (text) under their heads."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def record(path):
    """The paper's record and its number, recomputed.

    It is the SHA-256 of the JSON with sorted keys and no spaces: the first 26 base-32 characters.
    """
    text = json.dumps(json.loads(path.read_text()), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode())
    number = base64.b32encode(digest.digest()).decode()[:26]
    return (
        f"Recomputed when this page was built: SHA-256 `{digest.hexdigest()}`, hence `pith:2023:{number}`.\n"
    )


def provenance(folder):
    """Every finished stage: what made it, from what, in how long; then models, devices and versions."""
    paths = [*folder.glob("*/manifest.json"), *folder.glob("study/*/manifest.json")]
    found = (files.read_json(path, **runs.MANIFEST) for path in paths)
    made = sorted(found, key=lambda m: m["finished"])
    rows, models = [], {}
    for m in made:
        models |= {name: digest for name, digest in m["inputs"].items() if "/" in name}
        seed, inputs = str(m["settings"].get("seed", "-")), ", ".join(m["inputs"]) or "-"
        when = m["finished"][:16].replace("T", " ")
        cost = "-" if m["tflop"] is None else f"{m['tflop']:.2f}"
        rows.append([m["stage"], seed, inputs, f"`{m['digest'][:12]}`", cost, f"{m['seconds']:.0f}", when])
    table = markdown(["stage", "seed", "made from", "digest", "TFLOP", "seconds", "finished"], rows)
    told = ", ".join(f"{name} `{digest[:12]}`" for name, digest in models.items())
    devices = "; ".join(sorted({m["device"] for m in made}))
    versions = ", ".join(f"{name} {version}" for name, version in made[-1]["versions"].items())
    stages = [m["tflop"] for m in made if "/" not in m["stage"]]  # the points are made within them
    total = sum(filter(None, stages))
    unknown = f", without {stages.count(None)} that went on after an interruption" * (None in stages)
    counted = f"All stages together: {total:.1f} TFLOP{unknown}."
    return f"{table}\n{counted} Models: {told}. Devices: {devices}. Versions: {versions}.\n"


def settings(folder, vendored, drawing):
    """What Jupyter Book is told: _config.yml, with what the front page's sentences say of this run.

    Where it names a repository (or the host that publishes the book does) pages link to it and can be opened
    on Binder and Colab.
    """
    found = yaml.safe_load((ROOT / "_config.yml").read_text())
    known = found.setdefault("repository", {})
    known.setdefault("branch", "main")
    if where := os.environ.get("GITHUB_REPOSITORY"):
        known.setdefault("url", f"https://github.com/{where}")
    link = f" · [The repository]({known['url']})" if "url" in known else ""
    if link:
        found["html"]["use_repository_button"] = True
        hosts = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
        found["launch_buttons"] = {"notebook_interface": "jupyterlab", **hosts}
    else:
        found.pop("repository")
    found["html"]["extra_footer"] += f" Version {__version__}."
    told = {"draw": DRAW if drawing else "", "repository": link}
    found["parse"]["myst_substitutions"] = told | {"power": frontpage.power(folder)}
    if not vendored:
        for key in ("html_extra_path", "html_js_files", "nb_ipywidgets_js", "mathjax_path"):
            found["sphinx"]["config"].pop(key)
    return found


def laboratory(made, runtime, folder):
    """The page in which the models of the run `made` draw, by onnxruntime-web's scripts, in `folder`."""
    from rlhf_nb.page import export

    shutil.copytree(ROOT / "book" / "lab", folder, dirs_exist_ok=True)
    export.write(folder, runtime, **export.parts(made))


def staged(book, folder, drawing):
    """`folder`, made anew: the pages of `book` with its executed copies arranged; returns these copies.

    drawing: whether there will be a laboratory, to which widgets that are left out link.
    """
    shutil.rmtree(folder, ignore_errors=True)
    left = shutil.ignore_patterns("lab", "onnxruntime", "*.py", "*.log", "*.old", "__pycache__")
    shutil.copytree(book, folder, ignore=left)
    instead = arrange.DEAD + arrange.LABORATORY * drawing
    copies = sorted((book / "notebooks").glob("*.ipynb"))
    for path in copies:
        found = arrange.arranged(json.loads(path.read_text()), instead)
        (folder / "notebooks" / path.name).write_text(json.dumps(found))
    return copies


def arguments():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--book", type=Path, default=ROOT / "book", help="folder with the pages and notebooks/")
    default = ROOT / "runs" / "toy"
    ask.add_argument("--runs", type=Path, default=default, help="artifacts of the run that the book shows")
    ask.add_argument("--out", type=Path, default=ROOT, help="the site goes to OUT/_build/html")
    cdn = "where browser scripts are missing, let the pages load them from CDNs"
    ask.add_argument("--cdn", action="store_true", help=cdn)
    return ask.parse_args()


def main():
    args = arguments()
    generated = args.book / "generated"
    runtime = generated / "onnxruntime"
    vendored = (generated / "extra" / "_static" / "vendor" / "fa-once.js").exists()
    if not vendored and not args.cdn:
        sys.exit(
            "error: the book's browser scripts are missing: run `python book/vendor.py` once with a network, "
            "or let pages load them by --cdn"
        )
    pages, site = (args.out / "_build" / name for name in ("pages", "html"))
    copies = staged(args.book, pages, runtime.exists())
    made = pages / "generated"
    made.mkdir(exist_ok=True)
    (made / "record.md").write_text(record(args.book / "pith-record.json"))
    (made / "provenance.md").write_text(provenance(args.runs))
    frontpage.write(args.runs, pages)
    told = made / "_config.yml"
    told.write_text(yaml.safe_dump(settings(args.runs, vendored, runtime.exists())))
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [tool, "build", pages, "--config", told, "--path-output", args.out]
    done = subprocess.run([*command, "-W", "--keep-going", "-q"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-4000:] + done.stderr[-4000:])
    for path in copies:  # to download: as it ran
        shutil.copy(path, site / "_sources" / "notebooks")
    if runtime.exists():
        laboratory(args.runs, runtime, site / "lab")
    print(f"book: {site / 'index.html'}")
    print(re.sub("<[^>]+>", "", frontpage.result(args.runs)))


if __name__ == "__main__":
    try:
        main()
    except config.UserError as error:
        sys.exit(f"error: {error}")
