"""One training loop for everything: autoencoder, CLIP, judge, U-Net, reward head and Eq. 2.

The step number is the only random state: whoever supplies `loss_at(model, step)` draws its batch, noise and timesteps from
(seed, step) alone, so an interrupted run that is resumed ends with the same bits.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def generator(seed, step, device="cpu"):
    """Random numbers of global step `step`: a pure function of (seed, step)."""
    return torch.Generator(device).manual_seed((int(seed) * 1_000_003 + int(step)) % (2**63 - 1))


def rows_at(seed, step, batch, n):
    """Indices (batch,) of step `step`: consecutive slices of one seeded permutation of range(n) per epoch."""
    first = step * batch
    place = torch.arange(first, first + batch)
    epochs = {e: torch.randperm(n, generator=generator(seed, -1 - e)) for e in range(first // n, (first + batch - 1) // n + 1)}
    return torch.stack([epochs[int(p) // n][int(p) % n] for p in place])


def schedule(step, steps, lr, warmup):
    """Learning rate of `step`: linear warm-up, then linear decay to zero."""
    return lr * min((step + 1) / max(warmup, 1), (steps - step) / max(steps - warmup, 1))


class NotFinite(ArithmeticError):
    """A loss or gradient was NaN or infinite."""


def loop(model, loss_at, *, steps, lr, warmup=0, weight_decay=0.01, clip=1.0, ema=0.0, folder=None, save_every=500,
         log_every=20, accelerator=None):
    """Train `model` in place and yield a log row every `log_every` steps; with `ema` the averaged weights remain in `model`.

    loss_at(model, step) -> (loss (), {name: value ()}). Checkpoints go to `folder` every `save_every` steps, a multiple of
    `log_every`; a later call with the same arguments yields the rows of the last one again and goes on from there. Raises
    NotFinite for a bad loss: on a CPU before it reaches the weights, elsewhere at the next row and before anything is saved.
    """
    if accelerator is None:
        from accelerate import Accelerator
        accelerator = Accelerator()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    average = [p.detach().clone() for p in parameters] if ema else None
    path = Path(folder) / "checkpoint.safetensors" if folder else None
    start, rows = restore(path, parameters, optimizer, average) if path and path.exists() else (0, [])
    model.train()
    yield from list(rows)
    logs = []
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, lr, warmup)
        loss, log = loss_at(wrapped, step)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(parameters, clip)
        logs.append(torch.stack([loss.detach(), norm.detach(), *(v.detach().float() for v in log.values())]))
        due = (step + 1) % log_every == 0 or step + 1 == steps
        if due or loss.device.type == "cpu":  # elsewhere a look at every step would make the processor wait for the device
            bad = [step + 1 - len(logs) + k for k, v in enumerate(torch.stack(logs).isfinite().all(1).tolist()) if not v]
            if bad:
                raise NotFinite(f"loss or gradient is not finite at step {bad[0]}: {logs[bad[0] - step - 1].tolist()}; nothing was saved after it")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema:
            decay = min(ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if due:
            values = torch.stack(logs).mean(0).tolist()
            rows.append({"step": step + 1, "loss": values[0], "gradient": values[1], "lr": optimizer.param_groups[0]["lr"],
                         **dict(zip(log, values[2:], strict=True))})
            logs = []
        if path and ((step + 1) % save_every == 0 or step + 1 == steps) and accelerator.is_main_process:
            checkpoint(path, step + 1, parameters, optimizer, average, rows)
        if due:
            yield rows[-1]
    if ema:
        with torch.no_grad():
            torch._foreach_copy_(parameters, average)
    model.eval()


def checkpoint(path, step, parameters, optimizer, average, rows):
    """Weights, AdamW moments, averaged weights and log rows after `step` steps as one safetensors file, written atomically."""
    tensors = {f"p{i}": p.detach() for i, p in enumerate(parameters)}
    tensors |= {f"a{i}": p for i, p in enumerate(average or ())}
    for i, p in enumerate(parameters):
        tensors |= {f"{k}{i}": v for k, v in optimizer.state[p].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, part, {"step": json.dumps(step), "rows": json.dumps(rows)})
    os.replace(part, path)


def restore(path, parameters, optimizer, average):
    """Load a `checkpoint` into place and return the number of steps it has behind it and their log rows."""
    with safe_open(path, "pt") as file, torch.no_grad():
        names = list(file.keys())
        for i, p in enumerate(parameters):
            p.copy_(file.get_tensor(f"p{i}"))
            optimizer.state[p] = {k: file.get_tensor(f"{k}{i}").to(p.device) for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}{i}" in names}
            if average:
                average[i].copy_(file.get_tensor(f"a{i}"))
        return json.loads(file.metadata()["step"]), json.loads(file.metadata()["rows"])
