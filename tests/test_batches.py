"""Encoding once: kept by content, and what does not fit is one sentence."""

import numpy as np
import pytest
import torch
from test_objective import PROMPTS

from rlhf_nb import batches, config, diffusion, hub


def test_what_is_encoded_is_not_encoded_again(pipe, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(batches, "SHARD", 4)

    def pairs():
        return zip(images, (PROMPTS * 3)[:10], strict=True)

    first, memory = batches.encode(pipe, pairs(), tmp_path), batches.encode(pipe, pairs())
    rows = torch.tensor([9, 0, 5, 5])
    assert len(first) == len(memory) == 10 and len(list(tmp_path.iterdir())) == 3
    assert all(torch.equal(a, b) for a, b in zip(first.take(rows), memory.take(rows), strict=True))
    made = []
    real = batches.encode_shard
    monkeypatch.setattr(batches, "encode_shard", lambda *a, **k: made.append(k["first"]) or real(*a, **k))
    batches.encode(pipe, pairs(), tmp_path)
    assert made == []
    cut = min(tmp_path.iterdir())
    cut.write_bytes(cut.read_bytes()[:-9])  # by a full disk or a copy
    again = batches.encode(pipe, pairs(), tmp_path)
    assert len(made) == 1 and torch.equal(again.take(rows)[0], first.take(rows)[0])
    made.clear()
    images[5] = 255 - images[5]
    batches.encode(pipe, pairs(), tmp_path)
    assert made == [4]  # the one shard whose content is new


def test_what_does_not_fit_is_one_sentence(pipe, monkeypatch):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(hub.ModelError, match="32 x 32 give latents"):
        batches.encode(pipe, zip(images, PROMPTS[:2], strict=True))
    with pytest.raises(hub.ModelError, match="no images"):
        batches.encode(pipe, [])
    nothing = torch.full((2, 4, 8, 8), float("nan")), torch.zeros(2, 4, 8, 8)
    monkeypatch.setattr(diffusion, "encode_images", lambda *_: nothing)
    with pytest.raises(hub.ModelError, match=r"images \[0, 1\] are not finite"):
        batches.encode(pipe, zip(images, PROMPTS[:2], strict=True))


def batches_of(rows, size=(6, 0)):
    """Batches of six images of nothing, as `rows` ask for."""
    shard = {"mean": torch.zeros(6, 4, 2, 2), "std": torch.zeros(6, 4, 2, 2)}
    shard |= {"text": torch.zeros(1, 3, 5), "prompt": torch.zeros(6, dtype=torch.long)}
    samples = batches.Samples(batches.Encoded([shard]), reward=torch.ones(6))
    options = {"total": 1000, "empty": torch.zeros(3, 5), "drop": 0.5, "seed": 0, "shared": True}
    return batches.Batches(samples, rows, None, size, **options)


def test_a_group_shares_a_timestep_of_its_part_and_drops_its_prompt_together():
    low = torch.tensor([0.0, 0.9]).repeat_interleave(3)
    rows = {"row": torch.arange(6), "group": torch.arange(6) // 3, "low": low, "high": low + 0.1}
    made, dropped = batches_of(rows), set()
    for step in range(8):
        plan = made.plan(step)
        late = plan["row"] >= 3
        assert (plan["timesteps"][late] >= 900).all() and (plan["timesteps"][~late] < 100).all()
        assert all((plan[name].view(2, 3).float().std(1) == 0).all() for name in ("timesteps", "dropped"))
        dropped |= set(plan["dropped"].tolist())
    assert dropped == {True, False} and made.take(0, torch.arange(6), "cpu").unit == 3


def test_split_groups_too_few_of_them_or_nothing_to_train_on_are_one_sentence():
    rows = {"row": torch.arange(6), "group": torch.arange(6) // 3}
    with pytest.raises(config.ConfigError, match="groups of 3 images do not fill a model_batch of 8"):
        batches_of(rows, (8, 0))
    with pytest.raises(config.ConfigError, match="2 groups of images do not fill 3 processes with 1"):
        batches_of(rows).positions(3)
    for nothing in ({"row": []}, {"row": [], "group": []}):
        with pytest.raises(config.UserError, match="nothing to train on"):
            batches_of({name: torch.tensor(value).long() for name, value in nothing.items()})
