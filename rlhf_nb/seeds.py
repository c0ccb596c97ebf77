"""Random numbers and rows as functions of (seed, step, row): no run has a hidden random state."""

import functools

import torch


def generator(seed, step, row=-1):
    """Random numbers of global step `step`, or of one row of its batch, by (seed, step, row) alone."""
    number = int(seed) * 1_000_003 + int(step)
    if row >= 0:
        number = number * 65_537 + int(row) + 1
    return torch.Generator().manual_seed(number % (2**63 - 1))


@functools.lru_cache(maxsize=8)
def permutation(seed, epoch, n):
    """The order (n,) in which epoch `epoch` goes through n rows."""
    return torch.randperm(n, generator=generator(seed, -1 - epoch))


def rows_at(seed, step, batch, n):
    """Indices (batch,) of step `step`: consecutive slices of one seeded permutation of range(n) per epoch."""
    place = torch.arange(step * batch, (step + 1) * batch)
    first, last = int(place[0]) // n, int(place[-1]) // n
    return torch.cat([permutation(seed, e, n)[place[place // n == e] % n] for e in range(first, last + 1)])
