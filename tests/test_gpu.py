"""What only a GPU shows, on a small random model in the layout of Stable Diffusion: `pytest -m gpu`."""

import itertools

import equation
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from rlhf_nb import align, batches, config, diffusion, nets, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),  # before any model is made
]


@pytest.fixture(autouse=True)
def gpu():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def training(folder, work, updates, precision):
    """Log rows of Eq. 2 on a pipeline's folder, one an update, and the U-Net in training; checkpoints go to
    `work`."""
    given = {"pipeline": str(folder), "updates": updates, "precision": precision, "extras": []}
    settings = config.settings("align", scale="sd15", model_batch=4, pre_batch=4, accumulate=2, **given)
    pipe = diffusion.load(settings.pipeline)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    images = np.random.default_rng(0).integers(0, 255, (8, side, side, 3), dtype=np.uint8)
    pairs = zip(images, ["Two cats.", "A red cup."] * 4, strict=True)
    data, unet = batches.encode(pipe, pairs, half=precision != "no"), nets.trainable(pipe, settings)
    assert next(unet.parameters()).device.type == "cuda"
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # another precision may follow in the same process
    engine = align.accelerator(settings)
    options = {"batch": (4, 4), "drop": 0.1, "accumulate": 2, "engine": engine}
    made = equation.eq2(pipe, data, data, unet=unet, **options)
    plan = train.Plan(steps=updates, lr=1e-4, save_every=1, log_every=1)
    return train.loop(unet, made.micro_batches(), plan, folder=work, engine=engine, summed=True), unet


@pytest.fixture
def folder(sd15):
    return sd15 / "sd"


def test_a_step_in_bf16(folder, tmp_path):
    rows, unet = training(folder, tmp_path / "work", 1, "bf16")
    [row] = list(rows)
    assert np.isfinite(row["loss"]) and 0 < row["gradient"] < float("inf")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in unet.parameters())
    single, _ = training(folder, tmp_path / "single", 1, "no")
    assert row["loss"] == pytest.approx(next(single)["loss"], rel=0.02)


def test_peak_memory_does_not_grow_with_the_updates(folder, tmp_path):
    peaks = []
    for updates in (2, 12):
        torch.cuda.reset_peak_memory_stats()
        rows, unet = training(folder, tmp_path / str(updates), updates, "bf16")
        list(rows)
        peaks.append(torch.cuda.max_memory_allocated())
        held = sum(p.numel() for p in unet.parameters()) * 4
        assert peaks[-1] > 4 * held  # weights, gradients and two moments
    assert peaks[1] <= 1.05 * peaks[0], peaks


def test_resumed_in_single_precision_ends_with_the_same_bits(folder, tmp_path):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        rows, whole = training(folder, tmp_path / "whole", 6, "no")
        rows = list(rows)
        started, _ = training(folder, tmp_path / "killed", 6, "no")
        list(itertools.islice(started, 3))
        again, resumed = training(folder, tmp_path / "killed", 6, "no")
        assert list(again) == rows
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
