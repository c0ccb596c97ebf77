"""Which points a sweep has, and what tells two of them apart."""

import pytest

from rlhf_nb import config
from rlhf_nb.study import points

PLAN = """
scales: {toy: {updates: 5, power: 2.0}}
sweeps:
  a: {seeds: 2, vary: [{arm: [none, reward]}]}
  b: {seeds: 2, vary: [{power: [1.0, 2.0]}, {power: [6.0], seeds: 1}, {arm: [none]}]}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "sweeps.yaml"
    path.write_text(PLAN)
    return path


def test_sweeps_share_points_and_the_base_has_no_seed(plan):
    one, other, both = (points.points(plan, "toy", only) for only in (["a"], ["b"], ()))
    assert (len(one), len(other), len(both)) == (3, 6, 6) and one.keys() < both.keys()
    assert {p["updates"] for p in both.values() if p.get("arm") != "none"} == {5}
    assert [p for p in both.values() if p.get("arm") == "none"] == [{"scale": "toy", "arm": "none"}]


def test_a_name_that_is_no_setting_of_a_point_is_a_knob_of_its_method(plan):
    given = list(points.points(plan, "toy", ["b"]).values())[0]
    assert given == {"scale": "toy", "updates": 5, "seed": 0, "knobs": {"power": 1.0}}
    assert config.settings("study", **given).knobs["power"] == 1.0


def test_what_does_not_exist_is_named(plan):
    with pytest.raises(config.ConfigError, match="no sweep 'c' in .*sweeps.yaml; it has a, b"):
        points.points(plan, "toy", ["c"])
    plan.write_text("scales: {}\nsweeps: {a: {seeds: 1, vary: [{colour: [1]}]}}\n")
    with pytest.raises(config.ConfigError, match="unknown parameter 'colour' of method 'reward_weighted'"):
        points.points(plan, "toy")


@pytest.mark.parametrize(
    "content",
    [
        "sweeps: {}",
        "scales: {}\nsweeps: {a: {vary: [{arm: [none]}]}}",
        "scales: {}\nsweeps: {a: {seeds: 1, vary: []}}",
        "scales: {}\nsweeps: {a: {seeds: many, vary: [{arm: [none]}]}}",
        "scales: {}\nsweeps: {a: {seeds: 1, vary: [{updates: 3}]}}",
        "scales: [toy]\nsweeps: {}",
        "scales: {}\nsweeps: [a]",
    ],
)
def test_a_plan_that_is_none_is_one_sentence(plan, content):
    plan.write_text(content)
    with pytest.raises(config.ConfigError, match="parameter '.*' of .*sweeps.yaml"):
        points.points(plan, "toy")


@pytest.mark.parametrize("scale", ["smoke", "toy"])
def test_every_shipped_sweep_is_valid(scale):
    every = points.points(points.SWEEPS, scale)
    assert points.points(points.SWEEPS, scale, ["live"]).keys() < every.keys()
    assert all(points.key(config.settings("study", **given)) == key for key, given in every.items())


def test_how_a_run_is_done_is_no_part_of_its_key():
    def key(**given):
        return points.key(config.settings("study", scale="toy", **given))

    assert key() == key(accumulate=2) != key(knobs={"beta": 0.5})
    base = {"arm": "none"}
    assert key(**base) == key(**base, updates=7, seed=3, knobs={"beta": 0.5}) != key(**base, steps=3)
