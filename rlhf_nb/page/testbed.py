"""Tables and figures of the appendix on the small model: its training, its gates."""

import matplotlib.pyplot as plt
import pandas as pd

from .. import figures, files
from . import rewards

CURVES = {"error": "The error on unseen pairs", "all": "The share all right"}
GATES = {  # shares that must lie from one to another: of a U-Net's pictures, then of what judge and eye say
    "all": (0.25, 0.60),
    "others above count": (0, 1),
    "count": (0.35, 0.80),
    "colour": (0, 0.97),
    "object": (0.93, 1),
    "background": (0.93, 1),
    "mixed": (0, 0.04),
    "Fréchet distance, of the bundle before": (0, 0.50),
    "reconstructions read right": (0.97, 1),
    "renders read right": (0.99, 1),
    "the eye names a shape": (0.96, 1),
    "eye and judge agree, lower end": (0.93, 1),
    "right to the judge, wrong to the eye": (0, 0.07),
    "wrong, but clean and read surely": (0.80, 1),
}


def costs(logs, clocks):
    """What the parts took whose `logs` say so; `clocks` has the seconds of an update, where known."""
    rows = {}
    for path in logs.glob("*.json"):
        row, clock = files.read_json(path, updates=int, samples=int, tflop=float), clocks / path.name
        each = files.read_json(clock, seconds=float)["seconds"] if clock.exists() else float("nan")
        took = {"TFLOP": row["tflop"], "seconds": each}
        rows[path.stem] = row | {name: row["updates"] * of for name, of in took.items()}
    return pd.DataFrame(rows, ["updates", "samples", "TFLOP", "seconds"]).T.sort_values("TFLOP")


def shipped(curve):
    """The U-Net's updates as it is shipped: those of its last point "inside", else all."""
    own = curve.query("model == 'unet'")
    return (own[own.inside] if own.inside.any() else own).updates.max()


def points(path):
    """Show a U-Net's `CURVES` over its updates, its rival's dotted; returns what they found, in words.

    The table at `path` has model, updates, error, shares and whether all gates but the colour's
    held, "inside".
    """
    kinds = {"model": str, "updates": int, "error": float, "all": float, "inside": bool}
    curve = files.read_table(path, kinds)
    own = curve.query("model == 'unet'").to_dict("records")
    if not own:
        raise files.ArtifactError(f"{path} says nothing of a model 'unet': restore it")
    first, last = own[0], own[-1]
    told = [f"{words} goes from {first[c]:.3f} to {last[c]:.3f}" for c, words in CURVES.items()]
    for axis, name in zip(rewards.panels(*told), CURVES, strict=True):
        axis.axvline(shipped(curve), color="grey", linewidth=1)
        for model, rows in curve.groupby("model"):
            style = ":" if model == "rival" else "-"
            axis.plot(rows.updates, rows[name], style, color=figures.ACCENT)
        axis.set(xlabel="updates")
    plt.show()
    return f"from {first['updates']} to {last['updates']} updates: {'; '.join(told).lower()}"


def gates(share):
    """A line for each gate whose share is given: what it must be, what it is, "passed" or "FAILED"."""
    share, rows = dict(share), {}
    if "count" in share:
        share["others above count"] = min(map(share.get, ("object", "colour", "background"))) - share["count"]
    for gate, (low, high) in GATES.items():
        if gate in share:
            verdict = "passed" if low <= share[gate] <= high else "FAILED"
            rows[gate] = f"{100 * low:.0f} to {100 * high:.0f}", round(100 * share[gate], 1), verdict
    return pd.DataFrame(rows, ["must be, %", "is, %", "verdict"]).T
