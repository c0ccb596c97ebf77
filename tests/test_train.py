"""The loop: resumes to the same bits, stops at a bad loss, really averages."""

import itertools

import pytest
import torch

from rlhf_nb import train


def problem():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(5, 3), torch.randn(40, 5)

    def loss_at(model, step):
        rows = train.rows_at(0, step, 8, 40)
        noise = torch.randn(8, 3, generator=train.generator(0, step))
        loss = (model(x[rows]) - noise).square().mean()
        return loss, {"mse": loss}

    return model, loss_at


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, stop, ema):
    options = {"steps": 9, "lr": 0.1, "warmup": 2, "ema": ema, "log_every": 1, "save_every": 1}
    whole, loss_at = problem()
    rows = list(train.loop(whole, loss_at, folder=tmp_path, **options))
    for path in tmp_path.iterdir():
        path.unlink()
    parts, loss_at = problem()
    list(itertools.islice(train.loop(parts, loss_at, folder=tmp_path, **options), stop))
    resumed, loss_at = problem()
    again = list(train.loop(resumed, loss_at, folder=tmp_path, **options))
    assert again == rows == list(train.loop(problem()[0], loss_at, folder=tmp_path, **options))  # resumed, and finished already
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
        list(train.loop(model, poisoned, steps=9, lr=0.1, log_every=log_every))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_averaged_weights_differ_from_the_last_ones():
    plain, loss_at = problem()
    list(train.loop(plain, loss_at, steps=20, lr=0.1))
    averaged, loss_at = problem()
    list(train.loop(averaged, loss_at, steps=20, lr=0.1, ema=0.9))
    assert not torch.equal(plain.weight, averaged.weight)


def test_every_row_once_an_epoch():
    seen = torch.cat([train.rows_at(3, s, 8, 40) for s in range(5)])
    assert sorted(seen.tolist()) == list(range(40))
    assert torch.equal(train.rows_at(3, 2, 8, 40), train.rows_at(3, 2, 8, 40))
    assert len(train.rows_at(3, 0, 100, 40)) == 100  # a batch larger than the data goes round


def run(folder, steps=4, **options):
    model, loss_at = problem()
    return model, list(train.loop(model, loss_at, steps=steps, lr=0.1, log_every=1, save_every=1, folder=folder, **options))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    whole, rows = run(tmp_path / "whole")
    save = train.save_file

    def full(tensors, path, about):
        if "00000003" in str(path):  # as a disk that fills up
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path, about)

    monkeypatch.setattr(train, "save_file", full)
    with pytest.raises(train.CheckpointError, match="No space left.*make room"):
        run(tmp_path / "disk")
    assert [p.name for p in sorted((tmp_path / "disk").iterdir())] == ["checkpoint-00000001.safetensors", "checkpoint-00000002.safetensors"]
    monkeypatch.undo()
    resumed, again = run(tmp_path / "disk")
    assert again == rows and torch.equal(whole.weight, resumed.weight)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    whole, rows = run(tmp_path)
    last = max(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:100])
    resumed, again = run(tmp_path)
    assert again == rows and torch.equal(whole.weight, resumed.weight)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path)
    _, loss_at = problem()
    with pytest.raises(train.CheckpointError, match="another model"):
        list(train.loop(torch.nn.Linear(6, 3), loss_at, steps=4, lr=0.1, folder=tmp_path))
