"""Build the site from the executed notebooks: strict (a warning is an error), offline, with a provenance page from the manifests."""

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def record(path):
    """The paper's record and its number, recomputed: SHA-256 of the JSON with sorted keys and no spaces, the first 26 base-32 characters."""
    text = json.dumps(json.loads(path.read_text()), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).digest()
    return digest.hex(), base64.b32encode(digest).decode()[:26]


def provenance(runs):
    """Markdown table of every finished stage: what made it, from what, in how long; then models, devices and versions."""
    lines = ["| stage | seed | made from | digest | seconds | finished |", "|---|---|---|---|---|---|"]
    versions, models, devices = {}, {}, set()
    for path in sorted([*runs.glob("*/manifest.json"), *runs.glob("study/*/manifest.json")], key=lambda p: json.loads(p.read_text())["finished"]):
        m = json.loads(path.read_text())
        versions = m["versions"]
        devices.add(m["device"])
        models |= {k: v for k, v in m["inputs"].items() if "/" in k}
        lines.append(f"| {m['stage']} | {m['settings']['seed']} | {', '.join(m['inputs']) or '-'} | `{m['digest'][:12]}` | {m['seconds']:.0f} | "
                     f"{m['finished'][:16].replace('T', ' ')} |")
    told = [", ".join(f"{k} `{v[:12]}`" for k, v in models.items()), "; ".join(sorted(devices)), ", ".join(f"{k} {v}" for k, v in versions.items())]
    return "\n".join(lines) + "\n\nModels: {}. Devices: {}. Versions: {}.\n".format(*told)


def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--book", type=Path, default=ROOT / "book", help="folder with the pages and notebooks/")
    ask.add_argument("--runs", type=Path, default=ROOT / "runs" / "toy", help="artifacts of the run that the book shows")
    ask.add_argument("--out", type=Path, default=ROOT, help="the site goes to OUT/_build/html")
    ask.add_argument("--cdn", action="store_true", help="where browser scripts are missing, let the pages load them from CDNs")
    args = ask.parse_args()
    generated = args.book / "generated"
    vendored = (generated / "extra" / "_static" / "vendor" / "fa-once.js").exists()
    if not vendored and not args.cdn:
        sys.exit("error: the book's browser scripts are missing: run `python book/vendor.py` once with a network, or let pages load them by --cdn")
    generated.mkdir(exist_ok=True)
    sha, number = record(args.book / "pith-record.json")
    (generated / "record.md").write_text(f"Recomputed when this page was built: SHA-256 `{sha}`, hence `pith:2023:{number}`.\n")
    (generated / "provenance.md").write_text(provenance(args.runs))
    shutil.copy(args.runs / "evaluate" / "result.png", generated)
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    if where := os.environ.get("GITHUB_REPOSITORY"):  # on the host that publishes the book
        settings |= {"repository": {"url": f"https://github.com/{where}", "branch": "main"},
                     "launch_buttons": {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}}
        settings["html"]["use_repository_button"] = True
    if not vendored:
        for key in ("html_extra_path", "html_js_files", "nb_ipywidgets_js", "mathjax_path"):
            settings["sphinx"]["config"].pop(key)
    config = generated / "_config.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", args.book, "--config", config, "--path-output", args.out, "-W", "--keep-going", "-q"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-4000:] + done.stderr[-4000:])
    print(f"book: {args.out / '_build' / 'html' / 'index.html'}")
    numbers = json.loads((args.runs / "evaluate" / "numbers.json").read_text())
    print("all attributes right on {n} held-out prompts: base {base:.1f} %, tuned {tuned:.1f} %, difference {gain:+.1f} points "
          "[{gain_low:+.1f}, {gain_high:+.1f}], p = {p:.1e}; Frechet distance x {frechet_ratio:.2f}".format(**numbers))


if __name__ == "__main__":
    main()
