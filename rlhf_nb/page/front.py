"""What the front page says, from the run's own tables: how far the gain carries, and its sentences' numbers.

Both are made at the end of stage `verdicts`, whose run is given.
"""

import numpy as np
import pandas as pd

from .. import runs
from ..files import read_json, read_table
from .tables import EFFECT, read

SHORT = "split == 'heldout' and arm == 'reward' and updates == @updates"
LONG = "split == 'heldout' and arm == 'reward' and updates > @updates"
LINES = (  # what was measured, in which table of another stage, in which of its rows
    ("**held-out prompts, this run**", "evaluate/paired", "split == 'held-out prompts'"),
    ("new wordings and rare pairs of colour and place", "evaluate/paired", "split == 'out of distribution'"),
    ("objects that feedback never showed", "evaluate/paired", "split == 'unseen objects'"),
    (
        "those of them that no earlier run had measured",
        "evaluate/fresh",
        "split == 'unseen objects' and `measured before` == 'no'",
    ),
    ("**held-out prompts, by eye**", "evaluate/eye", "by == 'eye' and prompts == 'all'"),
    (
        "the first of these, labelled before anyone looked",
        "evaluate/eye",
        "by == 'eye' and prompts == 'the first'",
    ),
    ("those added after that look", "evaluate/eye", "by == 'eye' and prompts == 'those added'"),
    ("**trained anew from {seeds} seeds**", "evaluate/seeds", SHORT),
    ("on prompts that no earlier run had measured", "evaluate/seeds_fresh", SHORT),
    ("**{updates} updates in place of {short}, {seeds} seeds**", "evaluate/seeds", LONG),
    ("on prompts that no earlier run had measured", "evaluate/seeds_fresh", LONG),
    (
        "this longer training above an equally long one on images chosen at random, {seeds} seeds",
        "evaluate/reward_over_random",
        "split == 'heldout' and updates > @updates",
    ),
)
FORMATS = {  # how the sentences say numbers of stage `evaluate`
    "n": ".0f",
    "base": ".1f",
    "tuned": ".1f",
    "guidance_base": ".1f",
    "guidance_tuned": ".1f",
    "gain": "+.1f",
    "gain_low": "+.1f",
    "gain_high": "+.1f",
    "p": ".1e",
    "frechet_ratio": ".2f",
    "ratio_low": ".2f",
    "ratio_high": ".2f",
}
EFFECTS = ("any_prompts", "one_prompt", "power_3", "power_1")  # which the sentences say with intervals
COLUMNS = {"measured on": str, **dict.fromkeys(("gain", "low", "high", "prompts", "Fréchet ratio"), float)}
SAID = dict.fromkeys((*FORMATS, "variety_all", "variety_right", "power"), str)
SAID |= dict.fromkeys(EFFECTS, dict[str, str])
REWARD = (
    "split == 'all new prompts' and scored == 'with prompt classification' and against == 'CLIP similarity'"
)


def table(run):
    """How far the gain carries: measured on, gain, low and high in points, prompts, Fréchet ratio.

    The ratio is the tuned model's distance to the base's. What the run has no rows of has no line; of several
    rows the first counts, the record's.
    """
    updates = runs.settings_of(run.settings.scale, "align")["updates"]
    lines = []
    for words, name, which in LINES:
        rows = read(run, name).query(which).head(1)
        told = [words.format(**row, short=updates) for row in rows.to_dict("records")]
        lines.append(rows.assign(words=told))
    found = pd.concat(lines, ignore_index=True)
    found[EFFECT] *= 100
    found.loc[0, "ratio"] = read_json(run.read("evaluate", "numbers.json"))["frechet_ratio"]
    return found[["words", *EFFECT, "n", "ratio"]].set_axis(list(COLUMNS), axis=1)


def sentences(run):
    """What the sentences say: {name: words}, and {name: {"gain", "low", "high"}} for effects in points."""
    numbers = read_json(run.read("evaluate", "numbers.json"))
    said = {name: format(numbers[name], how) for name, how in FORMATS.items()}
    varied = read(run, "evaluate/diversity")
    said["variety_all"], said["variety_right"] = (100 * varied.difference / varied.base).map("{:+.0f}".format)
    said["power"] = f"{runs.settings_of(run.settings.scale, 'align')['knobs'].get('power', 1):.0f}"
    gains = read(run, "reward/gains").query(REWARD).groupby("pairs of")
    gains = gains[["share", "low", "high"]].first().reindex(["any prompts", "one prompt"])
    columns = {"source": str, **dict.fromkeys(["beta", "power", *EFFECT], float)}
    frontier = read_table(run.read("sensitivity", "frontier.csv"), columns)
    frontier = frontier.query("beta == 0.06").sort_values("source")
    powers = frontier.groupby("power")[EFFECT].first().reindex([3.0, 1.0])
    effects = pd.DataFrame(100 * np.vstack([gains, powers]), EFFECTS, ["gain", "low", "high"])
    return said | effects.map("{:+.1f}".format).to_dict("index")
