"""The house: imports flow one way, the maths knows no files, functions and files stay short, a wheel holds it
all.
"""

import ast
import subprocess
import sys
import zipfile

import pytest
import shells
from conftest import ROOT

from rlhf_nb import files

PACKAGE = ROOT / "rlhf_nb"
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in PACKAGE.rglob("*.py")
}


def imported(name):
    """Modules of the package that module `name` imports, at its top or inside a function."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return (found & MODULES.keys()) - {name, "rlhf_nb"}


def reached(name, seen=()):
    """All that module `name` imports, directly or not."""
    found = imported(name) - set(seen)
    for other in sorted(found):
        found |= reached(other, {*seen, *found})
    return found


def test_no_import_leads_back():
    circles = [name for name in MODULES if any(name in reached(other) for other in imported(name))]
    parents = {"rlhf_nb.methods"}  # a package that its own modules import
    assert not set(circles) - parents


@pytest.mark.parametrize(
    "name",
    ["losses", "seeds"]
    + [
        f"methods.{p.stem}"
        for p in (PACKAGE / "methods").glob("[a-z]*.py")
        if "def draw(" not in p.read_text()
    ],
)
def test_the_maths_knows_nothing_of_files_and_runs(name):
    assert not {found for found in reached(f"rlhf_nb.{name}") if not found.startswith("rlhf_nb.methods")} - {
        "rlhf_nb.losses"
    }


@pytest.mark.parametrize("wing", ["toy.world", "feedback.store", "feedback.raters"])
def test_wings_stand_alone(wing):
    assert not reached(f"rlhf_nb.{wing}") & {
        f"rlhf_nb.{n}" for n in ("align", "runs", "reward", "study.point")
    }


def test_functions_and_files_are_short():
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 280, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, (path, node.name)


def test_the_tests_tree_is_the_packages():
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        assert (PACKAGE / folder).is_dir() or folder.parts in (("book",), ("doors",)), path


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_makes_the_same_bytes_in_the_first_five_chapters(smoke, tmp_path):
    """Sub-packages, scales and the shipped models are in it: 01 to 05 run without the clone."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(list(map(str, build)), check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    given = dict.fromkeys(("01_prompts", "02_generate", "03_feedback", "04_reward", "05_align"), {})
    told = shells.executed(given, tmp_path, PYTHONPATH=f"{tmp_path}/site", HOME=str(tmp_path))
    assert told.startswith(str(tmp_path))
    for stage in ("prompts", "generate", "feedback", "reward", "align"):
        here, there = (
            files.read_json(folder / "runs/smoke" / stage / "manifest.json", digest=str)["digest"]
            for folder in (tmp_path, smoke)
        )
        assert here == there, stage
