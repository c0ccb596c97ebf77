"""The one dial, `scale`: settings of a stage, or one sentence that says what is wrong with them."""

import ast
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from .stages import STAGES

SCALES = yaml.safe_load((Path(__file__).parent / "scales.yaml").read_text())


class UserError(Exception):
    """What one sentence can explain and its reader mend."""

    def _render_traceback_(self):
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError, ValueError):
    """A parameter is unknown or has the wrong type; nothing has been run."""


def validated(model, values, whose):
    """`model(**values)`, with what is wrong first as one sentence: a ConfigError."""
    try:
        return model(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(part for part in wrong["loc"] if isinstance(part, str))
        if wrong["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise ConfigError(f"unknown parameter {name!r} of {whose}; it takes {known or 'none'}") from None
        must = wrong["msg"].replace("Input should", "must")
        raise ConfigError(f"parameter {name!r} of {whose} {must}, not {wrong['input']!r}") from None


def settings(stage, **given):
    """Frozen settings of `stage`; a value of None means the scale's own.

    Raises ConfigError for an unknown name, a wrong type, or a value out of bounds.
    """
    model, whose = STAGES[stage], f"notebook {stage!r}"
    given = {name: value for name, value in given.items() if value is not None}
    scale = given.get("scale", "smoke")
    if not isinstance(scale, str) or scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}; choose one of {', '.join(SCALES)}")
    shared = {k: v for k, v in SCALES[scale].get("models", {}).items() if k in model.model_fields}
    found = validated(model, shared | SCALES[scale].get(stage, {}) | given, whose)
    if "knobs" not in model.model_fields:
        return found
    from . import methods

    if found.method not in methods.names():
        raise ConfigError(f"unknown method {found.method!r}; choose one of {', '.join(methods.names())}")
    own = SCALES[scale].get("knobs", {}).get(found.method, {})
    knobs = validated(methods.load(found.method).Knobs, own | found.knobs, f"method {found.method!r}")
    return found.model_copy(update={"knobs": knobs.model_dump()})


def parameters(stage, namespace):
    """Settings of a notebook from its `globals()`; a name that papermill injected and the stage lacks is
    refused.
    """
    known = STAGES[stage].model_fields
    for cell in namespace.get("In", ()):
        if cell.startswith("# Parameters"):  # papermill heads the cell it injects so
            assigned = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
            names = [target.id for node in assigned for target in node.targets]
            for name in set(names) - known.keys():
                validated(STAGES[stage], {name: None}, f"notebook {stage!r}")
    return settings(stage, **{n: namespace[n] for n in known if n in namespace})


def read(path):
    """Parameters from a YAML file, the one papermill takes with `-f`, or from YAML in braces.

    Raises ConfigError if it is not a table of names and values.
    """
    try:
        found = yaml.safe_load(path if str(path).startswith("{") else Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        cause = str(error).splitlines()[0]
        raise ConfigError(
            f"settings file {path} cannot be read ({cause}): give a YAML file of parameter names and values"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"settings file {path} must hold parameter names and values, as in `scale: toy`")
    return found


def command(stage, make):
    """The command line of a stage: make(settings) with the parameters in the YAML file that is the only
    argument.

    A UserError ends it with its sentence.
    """
    try:
        if len(sys.argv) != 2:
            raise ConfigError(f"give one YAML file of parameters of notebook {stage!r}")
        make(settings(stage, **read(sys.argv[1])))
    except UserError as error:
        sys.exit(f"error: {error}")
