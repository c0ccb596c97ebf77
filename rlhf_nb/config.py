"""The one dial, `scale`: settings of a stage, or one sentence that says what is wrong with them."""

import ast
import re
import reprlib
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from .stages import STAGES

SCALES = yaml.safe_load((Path(__file__).parent / "scales.yaml").read_bytes())
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = 80


class UserError(Exception):
    """What one sentence can explain and its reader mend: on one line, also where it quotes a damaged file."""

    def __str__(self):
        words = "".join(c if c.isprintable() else " " for c in super().__str__())
        return words if len(words) <= 2000 else f"{words[:1500]} ... {words[-300:]}"

    def _render_traceback_(self):
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError, ValueError):
    """A parameter is unknown or has the wrong type; nothing has been run."""


def contents(path):
    """The bytes of a file. Raises OSError also for a pipe or a device, which may never end."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is no file")
    return path.read_bytes()


def cause(error):
    """What a library says of an error, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shown(value):
    """A value in a sentence, however long, deep or bent into itself it is."""
    try:
        return SHOWN.repr(value)
    except ValueError:  # Python writes no number of over 4,300 digits
        return "a number of thousands of digits"


def validated(model, values, whose):
    """`model` of a dict of values, with what is wrong first as one sentence: a ConfigError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(part for part in wrong["loc"] if isinstance(part, str))
        if wrong["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown parameter {shown(name)} of {whose}; it takes "
                f"{', '.join(model.model_fields) or 'none'}"
            ) from None
        if wrong["type"] == "value_error":  # of several parameters together
            raise ConfigError(f"{whose}: {wrong['ctx']['error']}") from None
        must = re.sub(r"^\w+ should", "must", wrong["msg"])
        raise ConfigError(f"parameter {shown(name)} of {whose} {must}, not {shown(wrong['input'])}") from None


def settings(stage, /, **given):
    """Frozen settings of `stage`; a value of None means the scale's own.

    Raises ConfigError for an unknown name, a wrong type, or a value out of bounds.
    """
    model = STAGES[stage]
    given = {name: value for name, value in given.items() if value is not None}
    scale = given.get("scale", "smoke")
    if not isinstance(scale, str) or scale not in SCALES:
        raise ConfigError(f"unknown scale {shown(scale)}; choose one of {', '.join(SCALES)}")
    shared = {k: v for k, v in SCALES[scale].get("models", {}).items() if k in model.model_fields}
    found = validated(model, shared | SCALES[scale].get(stage, {}) | given, f"notebook {stage!r}")
    if "knobs" not in model.model_fields:
        return found
    from . import methods

    if found.method not in methods.names():
        raise ConfigError(f"unknown method {shown(found.method)}; choose one of {', '.join(methods.names())}")
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


def parsed(content, whose):
    """What YAML holds, text or bytes in any Unicode. Raises ConfigError."""
    try:
        return yaml.safe_load(content)
    except Exception as error:  # PyYAML passes on what its constructors of numbers, dates and the like raise
        raise ConfigError(f"{whose} cannot be read ({cause(error)}): give YAML, as in `scale: toy`") from None


def read(path):
    """Parameters from a YAML file, the one papermill takes with `-f`, or from YAML in braces.

    Raises ConfigError if it is not a table of names and values.
    """
    inline = str(path).startswith("{")
    whose = f"settings {shown(str(path))}" if inline else f"settings file {path}"
    try:
        found = parsed(path if inline else contents(path), whose)
    except OSError as error:
        raise ConfigError(
            f"{whose} cannot be read ({error.strerror or error}): give a YAML file of names and values"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{whose} must hold parameter names and values, as in `scale: toy`")
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
