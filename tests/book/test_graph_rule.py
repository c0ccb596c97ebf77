"""What makes a chapter stale: the modules it imports, in sub-packages too, and no others."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
import graph_modules  # noqa: E402

PACKAGE = {
    "__init__.py": "__version__ = '1'",
    "config.py": "import yaml",
    "scales.yaml": "toy: {}",
    "runs.py": "from . import (\n    config,\n)",
    "toy/__init__.py": "",
    "toy/world.py": "from .. import config",
    "toy/judge.py": "def load():\n    from .world import draw\n",
    "feedback/__init__.py": "",
    "feedback/store.py": "from ..runs import root",
    "feedback/raters.py": "import rlhf_nb.toy.judge",
    "methods/__init__.py": "",
    "methods/one.py": "from . import Numbers",
    "align.py": "from . import methods",
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """clone(*lines) -> the modules of a small clone's notebook with these lines, named within the package."""
    monkeypatch.chdir(tmp_path)
    for name, text in PACKAGE.items():
        path = tmp_path / "rlhf_nb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def of(*lines):
        graph_modules.imported.cache_clear()
        words = {"cell_type": "markdown", "source": ["from rlhf_nb import align"]}
        code = [{"cell_type": "code", "source": [line]} for line in lines]
        (tmp_path / "chapter.ipynb").write_text(json.dumps({"cells": [words, *code]}))
        return [name.removeprefix("rlhf_nb/") for name in graph_modules.modules("chapter.ipynb")]

    return of


@pytest.mark.parametrize(
    ("line", "made_of"),
    {
        "import numpy as np": [],
        "from rlhf_nb import config": ["config.py", "scales.yaml"],
        "from rlhf_nb import (\n    runs,\n)": ["config.py", "runs.py", "scales.yaml"],
        "from rlhf_nb.toy import world as w": ["config.py", "scales.yaml", "toy/__init__.py", "toy/world.py"],
        "from rlhf_nb.feedback.store import Store": [
            *("config.py", "feedback/__init__.py", "feedback/store.py", "runs.py", "scales.yaml"),
        ],
        "def late():\n    from rlhf_nb.feedback import raters": [
            *("config.py", "feedback/__init__.py", "feedback/raters.py", "scales.yaml"),
            *("toy/__init__.py", "toy/judge.py", "toy/world.py"),
        ],
        "from rlhf_nb import align": ["align.py", "methods/__init__.py", "methods/one.py"],
    }.items(),
)
def test_a_chapter_is_made_of_what_it_imports(clone, line, made_of):
    assert clone(line) == made_of
    assert clone("x = 1", line) == made_of


def test_a_change_of_the_experiments_makes_those_chapters_stale_that_show_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    of = {path.stem: graph_modules.modules(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    shown = {stem for stem, made_of in of.items() if "rlhf_nb/study/record.py" in made_of}
    run = {stem for stem, made_of in of.items() if "rlhf_nb/study/point.py" in made_of}
    assert shown == {"08_data", "09_sensitivity", "11_reach", "12_league", "13_verdicts"}
    assert run == {"08_data", "12_league"}
