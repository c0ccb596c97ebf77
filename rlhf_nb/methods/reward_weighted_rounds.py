"""Eq. 2 with fresh images in rounds: the policy draws, the reward scores, reward_weighted trains."""

from .reward_weighted import Knobs, loss, rows  # noqa: F401

DRAWS = "policy"
