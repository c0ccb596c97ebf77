"""Settings are strict; README, notebooks, toc, lock and environment agree with them."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from rlhf_nb import config, stages

STEMS = {"tour": "00_tour", "gpu": "A2_gpu", "methods": "A3_methods", **stages.NOTEBOOKS}


def notebook(stem):
    return json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())


def parameters(stem):
    cells = [c for c in notebook(stem)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1, stem
    return {t.id for node in ast.parse("".join(cells[0]["source"])).body for t in node.targets}


@pytest.mark.parametrize("stage", STEMS)
def test_every_parameter_of_a_notebook_is_a_setting(stage):
    names = parameters(STEMS[stage])
    assert names == set(stages.STAGES[stage].model_fields)
    assert f'config.parameters("{stage}", globals())' in "".join(
        "".join(c["source"]) for c in notebook(STEMS[stage])["cells"]
    )


@pytest.mark.parametrize("scale", config.SCALES)
@pytest.mark.parametrize("stage", STEMS)
def test_every_scale_has_valid_settings(scale, stage):
    assert config.settings(stage, scale=scale).scale == scale


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"betta": 1}, "betta"),
        ({"scale": "huge"}, "huge"),
        ({"lr": "much"}, "lr"),
        ({"updates": 1.5}, "updates"),
        ({"lr": float("nan")}, "lr"),
        ({"min_score": -1.0}, "min_score"),
        ({"seed": True}, "seed"),
        ({"drop": 3.0}, "less than or equal to 1"),
        ({"lora_targets": [1]}, "'lora_targets'.* valid string"),
        ({"extras": "compile"}, "'extras'.* valid tuple"),
    ],
)
def test_bad_settings_are_one_sentence(bad, words):
    with pytest.raises(config.ConfigError, match=words):
        config.settings("align", **bad)


@pytest.mark.parametrize(
    "stage, bad",
    [
        ("prompts", {"vocabulary": "papr"}),
        ("prompts", {"to_tune": 0}),
        ("evaluate", {"guidances": ["a"]}),
        ("evaluate", {"guidances": [float("nan")]}),
        ("evaluate", {"guidances": []}),
        ("study", {"scorer": "similarity"}),
    ],
)
def test_what_a_stage_cannot_use_is_refused(stage, bad):
    with pytest.raises(config.ConfigError, match=f"{next(iter(bad))!r}"):
        config.settings(stage, **bad)


@pytest.mark.parametrize(
    "content",
    [
        *("", "- 1", "1: 2", "updates: [", "? [a]\n: 1", "a: !!python/object:os.system x", "a: !!bool x"),
        *(
            "a: !!timestamp x",
            "a: 2020-13-45",
            "lr: " + "9" * 5000,
            "[" * 2000,
            "\ud800: 1",
            b"\xe9",
            bytes(9),
        ),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_one_sentence(tmp_path, content):
    path = tmp_path / "s.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    with pytest.raises(config.ConfigError, match="settings file .*s.yaml (cannot be read|must hold)") as said:
        config.read(path)
    assert "\n" not in str(said.value) and len(str(said.value)) < 600


@pytest.mark.parametrize("make", [lambda path: None, os.mkfifo, os.mkdir])
def test_a_settings_file_that_is_none_is_not_waited_for(tmp_path, make):
    make(tmp_path / "s.yaml")
    with pytest.raises(config.ConfigError, match="s.yaml cannot be read"):
        config.read(tmp_path / "s.yaml")


def test_a_settings_file_in_any_unicode(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "s.yaml").write_text("pipeline: modèle", encoding=encoding)
        assert config.read(tmp_path / "s.yaml") == {"pipeline": "modèle"}


@pytest.mark.parametrize(
    "given, words",
    [
        ("lr: 0x" + "f" * 5000, "'lr' .* must be a valid number, not a number of thousands of digits"),
        ("drop: &a [1, 1]\nlr: [*a, *a]", "'(lr|drop)' .* must be a valid number, not"),
        ("lr: &a [*a]", r"'lr' .* must be a valid number, not \[+\.\.\.\]+"),
        ("knobs: {1: 2}", "method 'reward_weighted' must be strings, not 1"),
        ("knobs: &k {knobs: *k}", "unknown parameter 'knobs' of method"),
        ("scale: [toy]", r"unknown scale \['toy'\]"),
        ("method: [a]", "'method' .* must be a valid string"),
        ("method: " + "x" * 5000, "unknown method 'xxx.*xxx'; choose one of"),
        ("stage: align", "unknown parameter 'stage'"),
        ("rounds: 3", "'rounds' .* must be a valid dictionary"),
    ],
)
def test_what_yaml_can_hold_and_a_setting_cannot(tmp_path, given, words):
    (tmp_path / "s.yaml").write_text(given)
    with pytest.raises(config.ConfigError, match=words) as said:
        config.settings("align", **config.read(tmp_path / "s.yaml"))
    assert len(str(said.value)) < 500


def test_papermills_unknown_parameter_is_refused():
    namespace = {
        "In": ["", "scale = 'smoke'", "# Parameters\nscale = 'smoke'\nbetta = 3\n"],
        "scale": "smoke",
    }
    with pytest.raises(config.ConfigError, match="betta"):
        config.parameters("align", namespace)
    namespace["In"][-1] = "# Parameters\nlr = 3\n"
    assert config.parameters("align", namespace | {"lr": 3}).lr == 3.0


@pytest.mark.parametrize("stem", STEMS.values())
def test_notebooks_are_committed_clean(stem):
    nb = notebook(stem)
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    lengths = sorted(len("".join(c["source"]).splitlines()) for c in code)
    assert lengths[-1] <= 25 and lengths[len(lengths) // 2] <= 12, lengths
    assert nb["cells"][0]["source"][0].startswith("# ")
    assert nb["metadata"]["kernelspec"]["name"] == "python3"


def test_toc_graph_and_readme_name_every_notebook():
    toc, graph, readme = (
        (ROOT / p).read_text() for p in ("book/_toc.yml", "notebooks/Snakefile", "README.md")
    )
    for stem in STEMS.values():
        assert f"notebooks/{stem}" in toc and f'"{stem}"' in graph and stem in readme
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == set(STEMS.values())


def test_environment_installs_the_lock():
    assert "-r requirements.lock" in (ROOT / "environment.yml").read_text()
    python = re.search(r"python=([\d.]+)", (ROOT / "environment.yml").read_text())[1]
    project = (ROOT / "pyproject.toml").read_text()
    assert tuple(map(int, python.split("."))) >= tuple(
        map(int, re.search(r'requires-python = ">=([\d.]+)"', project)[1].split("."))
    )
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
    assert not any("+" in v for v in locked.values())
    from packaging.requirements import Requirement

    quoted = re.findall(
        r'"([A-Za-z][\w-]*[<>=][^"]*)"', project.split("[tool.setuptools]")[0].split("dependencies", 1)[1]
    )
    names = {k.lower().replace("_", "-"): v for k, v in locked.items()}
    for requirement in map(Requirement, quoted):
        assert names[requirement.name.lower()] in requirement.specifier, requirement


def test_readme_commands_exist():
    readme, make = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", readme)):
        assert re.search(rf"^{target}:", make, re.M), target


@pytest.mark.slow
@pytest.mark.parametrize(
    "stem, given, words",
    [
        ("05_align", ["-p", "betta", "1"], "unknown parameter 'betta'"),
        ("01_prompts", ["-p", "scale", "huge"], "unknown scale 'huge'"),
        ("02_generate", [], "run notebook 01_prompts first"),
    ],
)
def test_papermill_fails_with_one_sentence(tmp_path, stem, given, words):
    command = [
        sys.executable,
        "-m",
        "papermill",
        ROOT / "notebooks" / f"{stem}.ipynb",
        tmp_path / "out.ipynb",
        *given,
        "--no-progress-bar",
        "--start-timeout",
        "600",
    ]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "RLHF_NB_RUNS": str(tmp_path / "runs")},
    )
    assert done.returncode != 0 and words in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.glob("runs/*/*/manifest.json"))


@pytest.mark.slow
def test_the_graph_stops_with_the_notebook_and_its_sentence(tmp_path):
    (tmp_path / "01_prompts.yaml").write_text("betta: 1\n")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        "notebooks/Snakefile",
        "--cores",
        "1",
        "--nolock",
        "--quiet",
        "all",
        "--config",
        "scale=smoke",
        f"out={tmp_path}/a b/out",
        f"settings={tmp_path}",
        "--",
        f"{tmp_path}/a b/out/01_prompts.ipynb",
    ]
    environment = {
        **os.environ,
        "RLHF_NB_RUNS": str(tmp_path / "runs"),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout.strip().splitlines()
    assert (
        done.returncode
        and said[-2].endswith("01_prompts failed:")
        and said[-1].startswith("ConfigError: unknown parameter 'betta'")
    ), done
    assert not (tmp_path / "runs").exists() and not (tmp_path / "a b" / "out" / "01_prompts.ipynb").exists()
