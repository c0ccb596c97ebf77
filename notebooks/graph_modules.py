"""What a chapter is made of: the package's modules that it imports, directly or not."""

import ast
import functools
import importlib.util
import json
from pathlib import Path

PACKAGE = "rlhf_nb"
BESIDE = {  # module: pattern of the files that it reads or imports by name
    f"{PACKAGE}/config.py": f"{PACKAGE}/scales.yaml",
    f"{PACKAGE}/align.py": f"{PACKAGE}/methods/*.py",
    f"{PACKAGE}/study/points.py": f"{PACKAGE}/methods/reward_weighted.py",
}


def source(path):
    """Python of a module or of a notebook's code cells; none of another file."""
    if path.suffix == ".py":
        return path.read_text()
    if path.suffix != ".ipynb":
        return ""
    cells = json.loads(path.read_text())["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(map("".join, code))


def names(path):
    """Dotted names of all that a file imports; of `from x import y` both x and x.y."""
    package = ".".join(path.parent.parts)
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            whole = importlib.util.resolve_name(relative, package)
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)


@functools.cache
def imported(path):
    """Files of the package that a file imports or reads itself.

    The package's own __init__.py, which holds its version, is not among them.
    """
    found = set(Path().glob(BESIDE.get(path.as_posix(), "none")))
    for name in names(path):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        module = Path(*parts).with_suffix(".py")
        depths = range(2, len(parts) + 1)
        packages = [Path(*parts[:depth], "__init__.py") for depth in depths]
        found |= {file for file in (module, *packages) if file.exists()}
    return found


def modules(path):
    """Files of the package that make a notebook stale when they change, sorted strings.

    All paths are relative to the working folder, the clone.
    """
    found, waiting = set(), {Path(path)}
    while waiting:
        waiting = set().union(*map(imported, waiting)) - found
        found |= waiting
    return sorted(file.as_posix() for file in found)
