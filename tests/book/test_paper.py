"""The paper copy holds every page once, with links within it; versions agree wherever they are named."""

import re
import runpy

import paper
import pytest
import yaml
from conftest import ROOT

import rlhf_nb


def test_pages_are_bound_in_order():
    contents = [("", ["index"]), ("The method", ["notebooks/01_prompts"]), ("Appendix", ["notation"])]
    names = [name for _, part in contents for name in part]
    pages = {
        name: {"html": f'<article id="{paper.slug(name)}">{name}</article>', "rules": ""} for name in names
    }
    bound = paper.bound(pages, {name: f"<{name}>" for name in names}, contents, "<link>")
    found = re.findall(r'<article id="([\w-]+)"', bound)
    assert found == ["index", "notebooks-01_prompts", "notation"]
    assert re.findall(r'<a href="#([\w-]+)">([^<]+)<', bound) == [
        ("notebooks-01_prompts", "&lt;notebooks/01_prompts&gt;"),
        ("notation", "&lt;notation&gt;"),
    ]


def test_it_binds_what_the_table_of_contents_has():
    contents = paper.parts(ROOT / "book" / "_toc.yml")
    names = [name for _, part in contents for name in part]
    assert names[0] == "index" and {"notebooks/06_evaluate", "glossary", "limits"} <= {*names}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """What the build tells Jupyter Book."""
    build = runpy.run_path(str(ROOT / "book" / "build.py"))
    monkeypatch.setattr("frontpage.power", lambda folder: "3")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    return lambda: build["settings"](tmp_path, True, True)


def test_launch_buttons_stand_where_a_repository_is_known(configured, monkeypatch):
    found = configured()
    assert "launch_buttons" not in found and "repository" not in found
    assert found["parse"]["myst_substitutions"]["repository"] == ""
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/book")
    found = configured()
    assert {"binderhub_url", "colab_url"} <= found["launch_buttons"].keys()
    assert found["repository"] == {"url": "https://github.com/someone/book", "branch": "main"}
    assert "(https://github.com/someone/book)" in found["parse"]["myst_substitutions"]["repository"]


def test_one_version(configured):
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == rlhf_nb.__version__ and cited["license"] == "MIT"
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == rlhf_nb.__version__
    assert configured()["html"]["extra_footer"].endswith(f"Version {rlhf_nb.__version__}.")
