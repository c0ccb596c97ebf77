"""Rows and random numbers are functions of (seed, step, row)."""

import torch

from rlhf_nb import seeds


def test_every_row_once_an_epoch():
    seen = torch.cat([seeds.rows_at(3, s, 8, 40) for s in range(5)])
    assert sorted(seen.tolist()) == list(range(40))
    assert torch.equal(seeds.rows_at(3, 2, 8, 40), seeds.rows_at(3, 2, 8, 40))
    assert len(seeds.rows_at(3, 0, 100, 40)) == 100  # a batch larger than the data goes round


def test_every_step_and_row_has_numbers_of_its_own():
    drawn = [
        torch.rand(1, generator=seeds.generator(*of)).item()
        for of in ((0, 1), (0, 2), (1, 1), (0, 1, 0), (0, 1, 1))
    ]
    assert len(set(drawn)) == 5
    assert torch.equal(
        torch.rand(3, generator=seeds.generator(2, 5, 7)), torch.rand(3, generator=seeds.generator(2, 5, 7))
    )
