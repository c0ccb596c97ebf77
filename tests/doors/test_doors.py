"""Every door crossed with every kind of damage: what comes is accepted and sane, or one clear sentence.

Nothing raw, no hang, no result lost; and the table knows every parameter, file, column and variable.
"""

import ast
import json

import pytest
from conftest import ROOT
from doors import artifacts, models, parameters, people, world
from doors.doors import WHOLE, lines_of

from rlhf_nb import methods
from rlhf_nb.stages import MAKES, STAGES

pytestmark = pytest.mark.slow
LEAST = 12  # kinds of damage a door


def crossed(box, doors):
    """Cross all doors; fail with the cells that are raw."""
    raw, few = [], []
    for door in doors:
        found = door.cross(box.kept)
        raw += [f"{door.name} | {kind} | {came}" for kind, came in found.items() if came.startswith("raw")]
        few += [door.name] if len(found.keys() - {WHOLE}) < LEAST else []
    assert not few, f"fewer than {LEAST} kinds of damage: {few}"
    assert not raw, f"{len(raw)} raw cells:\n" + "\n".join(raw)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters(box, stage):
    crossed(box, parameters.of_stage(box, stage))


def test_parameters_of_rounds(box):
    crossed(box, parameters.of_rounds(box))


@pytest.mark.parametrize("method", methods.names())
def test_knobs(box, method):
    crossed(box, parameters.of_method(box, method))


@pytest.mark.parametrize("stage", MAKES)
def test_tables(box, stage):
    names = [name for name in artifacts.csvs(box) if name.startswith(f"{stage}/")]
    crossed(box, (door for name in names for door in artifacts.of_table(box, name)))


def test_recorded_tables(box):
    crossed(box, artifacts.of_records(box))


def test_json_files(box):
    crossed(box, (door for name in artifacts.jsons(box) for door in artifacts.of_json(box, name)))


def test_attempts(box):
    crossed(box, artifacts.of_attempts(box))


def test_recorded_json_files(box):
    crossed(box, artifacts.of_recorded(box))


@pytest.mark.parametrize("model", models.ALL, ids=lambda model: model.__name__)
def test_models(box, model):
    crossed(box, model(box))


@pytest.mark.parametrize(
    "what",
    [people.label_files, people.stores, people.image_files, people.captioned_sets, people.own_pictures],
    ids=lambda what: what.__name__,
)
def test_what_people_bring(box, what):
    crossed(box, what(box))


@pytest.mark.parametrize(
    "what", [world.settings_files, world.environment, world.disk], ids=lambda what: what.__name__
)
def test_the_world_around(box, what):
    crossed(box, what(box))


# The table is complete


def sizes(doors):
    """{door: how many kinds of damage it has}, none of them crossed."""
    return {door.name: len(door.cells.keys() - {WHOLE}) for door in doors}


def test_every_parameter_is_a_door(box):
    wanted = {f"{stage}.{name}" for stage, model in STAGES.items() for name in model.model_fields}
    wanted |= {f"{m}.{n}" for m in methods.names() for n in methods.load(m).Knobs.model_fields}
    there = [door for stage in STAGES for door in parameters.of_stage(box, stage)]
    there += [door for method in methods.names() for door in parameters.of_method(box, method)]
    assert {name for name, kinds in sizes(there).items() if kinds >= LEAST} == wanted


def test_every_parameter_that_is_a_text_has_a_reader():
    texts = {name for model in STAGES.values() for name in parameters.texts(model)}
    assert texts <= parameters.TEXTS, f"say in parameters.py who reads {sorted(texts - parameters.TEXTS)}"


def test_every_cell_of_parameters_is_of_a_stage():
    for stage, name in parameters_of_notebooks():
        assert name in STAGES[stage].model_fields, f"{stage}: {name}"


def parameters_of_notebooks():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        [stage] = {text.partition('config.parameters("')[2].partition('"')[0] for text in code} - {""}
        for node in ast.parse(code[0]).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                yield stage, target.id


def test_every_table_of_a_run_is_known_and_every_column_a_door(box):
    names = artifacts.csvs(box)
    unknown = [name for name in names if not artifacts.opened(box, name)]
    assert not unknown, f"say in artifacts.py how these tables are read: {unknown}"
    there = sizes(door for name in names for door in artifacts.of_table(box, name))
    wanted = {f"{name} [{column}]" for name in names for column in lines_of(box.scale / name)[0]}
    assert {*wanted, *names} <= {name for name, kinds in there.items() if kinds >= LEAST}


OTHERS = {  # files of a run that are neither tables nor JSON, by ending, and the doors that stand for them
    ".png": "pictures",
    ".sqlite": "stores",
    ".safetensors": "models",
}


def test_every_other_file_of_a_run_is_known(box):
    unknown = {name for name, opens in artifacts.jsons(box).items() if not opens}
    for path in box.scale.rglob("*"):
        if path.is_file() and ".partial" not in str(path) and ".locks" not in str(path):
            if path.suffix not in (".csv", ".json", *OTHERS):
                unknown.add(path.relative_to(box.scale).as_posix())
    assert not unknown, f"say in artifacts.py how these are read: {sorted(unknown)}"


def test_every_variable_of_the_environment_is_known():
    assert world.variables() == {"RLHF_NB_RUNS", "RANK"}
