"""The points of experiments, settings and a seed each: sweeps.yaml read, and a key for every point."""

from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from .. import config, files
from ..bounds import Few
from ..stages import EXECUTION, Study

SWEEPS = Path(config.__file__).parents[1] / "notebooks" / "sweeps.yaml"
# all that bears on the base model
MEASURING = "arm scale splits prompts repeats guidances own_best steps renders pipeline judge clip".split()
HEAD = "updates lr hidden lam temperature batch".split()  # of stage `reward`: how its head learns


class Grid(BaseModel, extra="allow"):
    """Values of some settings, each with each."""

    __pydantic_extra__: dict[str, list]
    seeds: Few | None = None


class Sweep(BaseModel, extra="allow"):
    """What an experiment varies, how often it is repeated, and settings that hold for all of it."""

    seeds: Few
    vary: list[Grid] = Field(min_length=1)


class Plan(BaseModel, extra="forbid"):
    """The whole of sweeps.yaml."""

    scales: dict[str, dict[str, Any]]
    sweeps: dict[str, Sweep]


def key(settings):
    """A name for a point's settings: a digest of those that make a difference to its rows."""
    given = settings.model_dump(mode="json", exclude=set(EXECUTION))
    if settings.arm == "none":
        given = {name: given[name] for name in MEASURING}
    return files.json_digest(given)[:12]


def nested(given):
    """`given` as `config.settings` takes it: what is no setting of a point is a knob of its method."""
    if given.get("arm") == "none":  # the base model has no training, and so no seed of it
        return {name: value for name, value in given.items() if name in MEASURING}
    own = {name: value for name, value in given.items() if name in Study.model_fields}
    return own | {"knobs": {name: value for name, value in given.items() if name not in own}}


def points(path, scale, only=()):
    """{key: settings} of every point of the sweeps in a YAML file, or of those in `only`.

    A point that several sweeps share is there once. The file: {"scales": {scale: {name: value}}, "sweeps":
    {sweep: {"seeds": n, "vary": [{name: [values]}], name: value}}}; each table under `vary` is a grid, which
    may have its own number of seeds. Raises ConfigError for a sweep or a name that does not exist.
    """
    plan = config.validated(Plan, config.read(path), path).model_dump()
    for name in set(only) - plan["sweeps"].keys():
        raise config.ConfigError(f"no sweep {name!r} in {path}; it has {', '.join(plan['sweeps'])}")
    found = {}
    for name in dict.fromkeys(only) or plan["sweeps"]:
        sweep = plan["sweeps"][name]
        seeds, vary = sweep.pop("seeds"), sweep.pop("vary")
        common = {"scale": scale, **plan["scales"].get(scale, {}), **sweep}
        for grid in vary:
            dials = {"seed": range(grid.pop("seeds") or seeds), **grid}
            for values in product(*dials.values()):
                given = nested(common | dict(zip(dials, values, strict=True)))
                found[key(config.settings("study", **given))] = given
    return found
