"""The table of all cells that were crossed: doors | kinds | cells | clear | accepted | raw."""

from doors.doors import RESULTS

COLUMNS = ("doors", "kinds", "cells", "clear", "accepted", "raw")


def counted(cells):
    """A line's numbers of cells {(family, door, kind): what came of it}."""
    outcomes = [came.partition(":")[0] for came in cells.values()]
    doors, kinds = {(f, d) for f, d, _ in cells}, {k for _, _, k in cells}
    return [len(doors), len(kinds), len(cells), *(outcomes.count(o) for o in ("clear", "accepted", "raw"))]


def summary():
    """The table as lines, a family of doors each, and all of them."""
    families = list(dict.fromkeys(family for family, _, _ in RESULTS))
    lines = [[name, *counted({k: v for k, v in RESULTS.items() if k[0] == name})] for name in families]
    lines = [["", *COLUMNS], *lines, ["all", *counted(RESULTS)]] if lines else []
    return ["  ".join(f"{cell!s:>{9 if k else 24}}" for k, cell in enumerate(line)) for line in lines]
