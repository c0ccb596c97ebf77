"""The league: methods at equal compute, each tuned on validation prompts by one rule (notebooks/league.yaml).

python -m rlhf_nb.study.league          every row, two at a time, resumably
python -m rlhf_nb.study.league ROW      one row
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import BaseModel, Field

from .. import config
from ..bounds import Few, Positive
from . import point, points, record

LEAGUE = points.SWEEPS.with_name("league.yaml")


class Row(BaseModel, extra="allow"):
    """A method's line: rates, one knob's further values, and whatever else its points are set to."""

    kind: str
    method: str
    lr: list[Positive] = Field(min_length=1)
    then: dict[str, list] = Field(max_length=1)
    knobs: dict[str, Any] = {}


class League(BaseModel, extra="forbid"):
    """The whole of league.yaml."""

    tflop: Positive
    seeds: Few
    common: dict[str, Any]
    tuning: dict[str, Any]
    final: dict[str, Any]
    kinds: dict[Literal["offline", "online", "reverse"], dict[str, Any]]
    rows: dict[str, Row]


def plan():
    """league.yaml, read and checked."""
    return config.validated(League, config.read(LEAGUE), LEAGUE)


class Line:
    """A row at a scale: what is tried, what was chosen, and what its final points are.

    rows: what points have found, as `record.described` gives it.
    """

    def __init__(self, scale, name, rows):
        self.scale, self.name, self.rows = scale, name, rows
        self.league = plan()
        self.row = self.league.rows[name]

    def settings(self, share, part, lr, knobs, seed=0):
        """Settings of a point on a `share` of the budget, measured as `part` of league.yaml says."""
        more = self.row.model_extra or {}
        given = self.league.common | self.league.kinds[self.row.kind] | more | part
        given |= {"scale": self.scale, "method": self.row.method, "lr": lr, "seed": seed}
        given |= {"tflop": share * self.league.tflop, "knobs": self.row.knobs | knobs}
        return config.settings("study", **given)

    def reached(self, settings):
        """The largest share of right pictures over guidances on validation prompts; None if not yet made."""
        of = self.rows[(self.rows.key == points.key(settings)) & (self.rows.split == "validation")]
        return of["all"].max() if len(of) else None

    def tried(self):
        """[(settings, what they reached)] of the tuning, as far as it is known what to try: rates, then the
        knob at the best of them.
        """
        half = [self.settings(0.5, self.league.tuning, lr, {}) for lr in self.row.lr]
        found = [(settings, self.reached(settings)) for settings in half]
        if all(share is not None for _, share in found):
            lr = max(found, key=lambda of: of[1])[0].lr
            for knob, values in self.row.then.items():
                more = [self.settings(0.5, self.league.tuning, lr, {knob: value}) for value in values]
                found += [(settings, self.reached(settings)) for settings in more]
        return found

    def final(self):
        """Settings of the final points, one a seed, or [] while the tuning is not done."""
        tried = self.tried()
        if any(share is None for _, share in tried):
            return []
        best = max(tried, key=lambda of: of[1])[0]
        own = {name: best.knobs[name] for name in self.row.then}
        return [self.settings(1.0, self.league.final, best.lr, own, k) for k in range(self.league.seeds)]

    def missing(self):
        """Settings of the points to make next, [] where the row is complete."""
        todo = [settings for settings, share in self.tried() if share is None]
        return todo or [settings for settings in self.final() if self.reached(settings) is None]


def known(scale):
    """What points have found that rest on what this machine's do, described."""
    rows = record.described(record.known(scale))
    return rows[rows.asked == record.basis(scale)]


def make(scale, name):
    """Make one row's points, as far as they are missing."""
    while todo := Line(scale, name, known(scale)).missing():
        for settings in todo:
            point.main(settings)


def base(scale):
    """Settings of the base model's point, which all rows are compared with."""
    league = plan()
    given = league.common | league.final | {"scale": scale, "arm": "none", "mixing": ()}
    return config.settings("study", **given)


def main(scale="toy"):
    """Every row, two at a time."""
    if not (known(scale).key == points.key(base(scale))).any():
        point.main(base(scale))

    def run(name):
        command = [sys.executable, "-m", "rlhf_nb.study.league", name]
        return name, subprocess.run(command).returncode

    with ThreadPoolExecutor(2) as pool:
        failed = [name for name, status in pool.map(run, plan().rows) if status]
    if failed:
        sys.exit(f"error: these rows stopped: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        make("toy", sys.argv[1]) if len(sys.argv) > 1 else main()
    except config.UserError as error:
        sys.exit(f"error: {error}")
