"""The league: methods at equal compute, each tuned on validation prompts by one rule (notebooks/league.yaml).

python -m rlhf_nb.study.league          every row, two at a time, resumably
python -m rlhf_nb.study.league ROW      one row, or one study beside them
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
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


class Beside(BaseModel, extra="allow"):
    """A training beside the league's: a row's final settings but for those and the knobs that are named."""

    row: str
    seeds: Few
    knobs: dict[str, Any] = {}


class Again(BaseModel, extra="forbid"):
    """How many seeds the best rows and those named get in the end."""

    seeds: Few
    best: Few
    rows: list[str]


class League(BaseModel, extra="forbid"):
    """The whole of league.yaml."""

    tflop: Positive
    seeds: Few
    again: Again
    common: dict[str, Any]
    tuning: dict[str, Any]
    final: dict[str, Any]
    kinds: dict[Literal["offline", "online", "reverse"], dict[str, Any]]
    rows: dict[str, Row]
    hypotheses: dict[str, tuple[str, str]] = {}
    beside: dict[str, dict[str, Beside]] = {}


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

    def final(self, seeds=None):
        """Settings of the final points, one a seed, or [] while the tuning is not done."""
        tried = self.tried()
        if any(share is None for _, share in tried):
            return []
        best = max(tried, key=lambda of: of[1])[0]
        own = {name: best.knobs[name] for name in self.row.then}
        seeds = range(seeds or self.league.seeds)
        return [self.settings(1.0, self.league.final, best.lr, own, k) for k in seeds]

    def missing(self, seeds=None):
        """Settings of the points to make next, [] where the row is complete."""
        todo = [settings for settings, share in self.tried() if share is None]
        return todo or [settings for settings in self.final(seeds) if self.reached(settings) is None]


def again(scale, rows):
    """The names of the rows that get more seeds: the best by validation prompts, and those of league.yaml.

    None do before every row has its first seeds.
    """
    lines, more = [Line(scale, name, rows) for name in plan().rows], plan().again
    if any(line.missing() for line in lines):
        return set()
    standing = {line.name: sum(map(line.reached, line.final())) for line in lines}
    return {*more.rows, *sorted(standing, key=standing.get)[-more.best :]}


def beside(scale, study, rows):
    """{words: settings, one a seed} of a study beside the league, of the rows whose tuning is done."""
    found = {}
    for words, given in plan().beside.get(study, {}).items():
        for final in Line(scale, given.row, rows).final()[:1]:
            changed = final.model_dump() | given.model_extra | {"knobs": final.knobs | given.knobs}
            seeds = [changed | {"seed": seed} for seed in range(given.seeds)]
            found[words] = [config.settings("study", **settings) for settings in seeds]
    return found


def known(scale):
    """What points have found that rest on what this machine's do, described."""
    rows = record.described(record.known(scale))
    return rows[rows.asked == record.basis(scale)]


def missing(scale, name, rows):
    """Settings of the points of a row, or of a study beside the league, to make next."""
    if name in plan().rows:
        line = Line(scale, name, rows)
        return line.missing() or (line.missing(plan().again.seeds) if name in again(scale, rows) else [])
    todo = [*chain(*beside(scale, name, rows).values())]
    todo += [base(scale, pipeline=of) for of in {settings.pipeline for settings in todo}]
    return [settings for settings in todo if points.key(settings) not in set(rows.key)]


def make(scale, name):
    """Make the points of a row, or of a study beside the league, as far as they are missing."""
    while todo := missing(scale, name, known(scale)):
        for settings in todo:
            point.main(settings)


def base(scale, **given):
    """Settings of the base model's point, which all rows are compared with."""
    league = plan()
    given = league.common | league.final | {"scale": scale, "arm": "none", "mixing": ()} | given
    return config.settings("study", **given)


def main(scale="toy"):
    """Every row, two at a time, then the best from more seeds, then the studies beside them."""
    if not (known(scale).key == points.key(base(scale))).any():
        point.main(base(scale))

    def run(name):
        command = [sys.executable, "-m", "rlhf_nb.study.league", name]
        return name, subprocess.run(command).returncode

    with ThreadPoolExecutor(2) as pool:
        parts = plan().rows, plan().rows, plan().beside.keys() - {"live"}
        failed = [name for names in parts for name, status in pool.map(run, names) if status]
    if failed:
        sys.exit(f"error: these rows stopped: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        make("toy", sys.argv[1]) if len(sys.argv) > 1 else main()
    except config.UserError as error:
        sys.exit(f"error: {error}")
