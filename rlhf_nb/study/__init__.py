"""Experiments: which points there are, what one point is, and what all of them have found."""
