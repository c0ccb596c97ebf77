"""`make lock`: renew requirements.lock from the ranges of pyproject.toml, installing nothing; PyTorch stays
as it is unless it is named.

    python book/lock.py [torch==2.14.1]

pip resolves for this machine; what belongs to one platform alone (CUDA's packages beside PyTorch) is left to
pip elsewhere. Renew it with the oldest Python that the project supports, whose versions work on the later
ones.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT = re.compile(r"nvidia-.*|cuda-.*|triton|rlhf[-_]nb|pip|setuptools|wheel", re.I)


def main():
    lock = ROOT / "requirements.lock"
    old = dict(line.split("==") for line in lock.read_text().split())
    with tempfile.TemporaryDirectory() as folder:
        fixed = Path(folder) / "fixed.txt"
        fixed.write_text((sys.argv[1] if sys.argv[1:] else f"torch=={old['torch']}") + "\n")
        options = "install --quiet --dry-run --ignore-installed --use-feature=fast-deps --report -".split()
        command = [sys.executable, "-m", "pip", *options, "-c", str(fixed), f"{ROOT}[book,lab,test]"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)[
            "install"
        ]
    new = {of["metadata"]["name"]: of["metadata"]["version"].split("+")[0] for of in found}
    new = {name: new[name] for name in sorted(new, key=str.lower) if not LEFT.fullmatch(name)}
    lock.write_text("".join(f"{name}=={version}\n" for name, version in new.items()))
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'not there')} -> {new.get(name, 'gone')}")


if __name__ == "__main__":
    main()
