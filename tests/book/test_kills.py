"""A stage killed at a random point and started again; `kills.py` does it all over the place."""

import kills
import pytest


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bytes(smoke):
    stage, share = next(point for point in kills.points(25, 18) if point[0] == "align")
    assert not kills.killed(smoke, stage, share)["differ"]


def test_points_are_spread_over_all_stages():
    chosen = kills.points(25, 18)
    assert chosen == kills.points(25, 18) and {stage for stage, _ in chosen} == set(kills.stages.NOTEBOOKS)
