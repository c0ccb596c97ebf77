"""Encoding once: kept by content, and what does not fit is one sentence."""

import numpy as np
import pytest
import torch
from test_objective import PROMPTS

from rlhf_nb import batches, diffusion, hub


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
