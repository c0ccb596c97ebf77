"""The loop: resumes to the same bits, stops at a bad loss, really averages."""

import itertools

import pytest
import safetensors.torch
import torch

from rlhf_nb import checkpoints, files, seeds, train


def problem():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(5, 3), torch.randn(40, 5)

    def loss_at(model, step):
        rows = seeds.rows_at(0, step, 8, 40)
        noise = torch.randn(8, 3, generator=seeds.generator(0, step))
        loss = (model(x[rows]) - noise).square().mean()
        return loss, {"mse": loss}

    return model, loss_at


def run(folder, steps=4, stop=None, **options):
    """(model, log rows) of a training with a checkpoint a step, stopped after `stop` rows or at its end."""
    model, loss_at = problem()
    plan = train.Plan(steps=steps, lr=0.1, log_every=1, save_every=1, **options)
    return model, list(itertools.islice(train.loop(model, [loss_at], plan, folder=folder), stop))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, stop, ema):
    options = {"steps": 9, "warmup": 2, "ema": ema}
    whole, rows = run(tmp_path / "whole", **options)
    run(tmp_path / "parts", stop=stop, **options)
    resumed, again = run(tmp_path / "parts", **options)
    assert again == rows == run(tmp_path / "parts", **options)[1]  # resumed, and finished already
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_bad_loss_never_reaches_the_weights(log_every):
    model, loss_at = problem()
    before = []

    def poisoned(model, step):
        loss, log = loss_at(model, step)
        if step == 3:
            before[:] = [p.detach().clone() for p in model.parameters()]
            loss = loss * float("nan")
        return loss, log

    with pytest.raises(train.NotFinite, match="step 3"):
        list(train.loop(model, [poisoned], train.Plan(steps=9, lr=0.1, log_every=log_every)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_averaged_weights_differ_from_the_last_ones():
    plain, loss_at = problem()
    list(train.loop(plain, [loss_at], train.Plan(steps=20, lr=0.1)))
    averaged, loss_at = problem()
    list(train.loop(averaged, [loss_at], train.Plan(steps=20, lr=0.1, ema=0.9)))
    assert not torch.equal(plain.weight, averaged.weight)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    whole, rows = run(tmp_path / "whole")
    save = safetensors.torch.save_file

    def full(tensors, path, about):
        if "00000003" in str(path):  # as a disk that fills up
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path, about)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(files.ArtifactError, match="No space left.*make room"):
        run(tmp_path / "disk")
    assert [p.name for p in sorted((tmp_path / "disk").iterdir())] == [
        "checkpoint-00000001.safetensors",
        "checkpoint-00000002.safetensors",
    ]
    monkeypatch.undo()
    resumed, again = run(tmp_path / "disk")
    assert again == rows and torch.equal(whole.weight, resumed.weight)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    whole, rows = run(tmp_path)
    last = max(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:100])
    resumed, again = run(tmp_path)
    assert again == rows and torch.equal(whole.weight, resumed.weight)


def test_a_foreign_file_among_checkpoints_gives_way(tmp_path):
    whole, rows = run(tmp_path)
    for about in (None, {"step": "4"}, {"step": "many", "rows": "[]", "scaler": "null"}):
        safetensors.torch.save_file(
            {"p0": torch.ones(2)}, tmp_path / "checkpoint-00000009.safetensors", about
        )
        assert run(tmp_path)[1] == rows


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path)
    _, loss_at = problem()
    with pytest.raises(checkpoints.CheckpointError, match="another model"):
        list(train.loop(torch.nn.Linear(6, 3), [loss_at], train.Plan(steps=4, lr=0.1), folder=tmp_path))


def test_a_bad_gradient_freezes_the_optimiser_without_a_look():
    """What stands in for the look on a GPU: fused AdamW leaves weights and moments alone while found_inf is
    set.
    """
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    for bad, moves in ((0.0, True), (1.0, False), (1.0, False)):
        before, weight.grad = (
            weight.detach().clone(),
            torch.ones(3) if moves else torch.full((3,), float("nan")),
        )
        optimizer.found_inf = torch.tensor(bad)
        optimizer.step()
        assert torch.equal(before, weight) != moves
    assert optimizer.state[weight]["step"] == 1 and optimizer.state[weight]["exp_avg"].isfinite().all()


def test_the_rate_rises_stays_and_falls_over_the_share_of_the_steps_asked_for():
    falls = [train.Plan(steps=6, lr=1.0, warmup=2, decay=d) for d in (1.0, 0.5, 0.0)]
    rates = [[plan.rate(step) for step in range(6)] for plan in falls]
    assert rates == [[0.5, 1, 1, 0.75, 0.5, 0.25], [0.5, 1, 1, 1, 1, 0.5], [0.5, 1, 1, 1, 1, 1]]
