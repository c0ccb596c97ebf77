"""One training loop for everything: autoencoder, CLIP, judge, U-Net, reward head and Eq. 2, on one device or many.

The step number is the only random state: whoever supplies `loss_at(model, step)` draws its batch, noise and timesteps from
(seed, step) alone, so an interrupted run that is resumed ends as if it had not been (on a processor: with the same bits), and one process or
eight see the same batches.

    accelerate launch -m rlhf_nb.train settings.yaml        Eq. 2 as notebook 05 runs it, with the same settings file
"""

import contextlib
import copy
import functools
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import config

KEPT = 2  # checkpoints


def generator(seed, step, row=-1):
    """Random numbers of global step `step`, or of one row of its batch: a pure function of (seed, step, row)."""
    number = int(seed) * 1_000_003 + int(step)
    return torch.Generator().manual_seed((number if row < 0 else number * 65_537 + int(row) + 1) % (2**63 - 1))


@functools.lru_cache(maxsize=8)
def permutation(seed, epoch, n):
    return torch.randperm(n, generator=generator(seed, -1 - epoch))


def rows_at(seed, step, batch, n):
    """Indices (batch,) of step `step`: consecutive slices of one seeded permutation of range(n) per epoch."""
    place = torch.arange(step * batch, (step + 1) * batch)
    return torch.cat([permutation(seed, e, n)[place[place // n == e] % n] for e in range(int(place[0]) // n, int(place[-1]) // n + 1)])


def schedule(step, steps, lr, warmup):
    """Learning rate of `step`: linear warm-up, then linear decay to zero."""
    return lr * min((step + 1) / max(warmup, 1), (steps - step) / max(steps - warmup, 1))


class NotFinite(config.UserError, ArithmeticError):
    """A loss or gradient was NaN or infinite; the message names the step and, where it can, the samples."""


class CheckpointError(config.UserError, RuntimeError):
    """A checkpoint cannot be written or does not fit; the message says what to do, and the last good one is still there."""


def loop(model, loss_at, *, steps, lr, batch=None, accumulate=1, warmup=0, weight_decay=0.01, clip=1.0, ema=0.0, folder=None, save_every=500,
         log_every=20, accelerator=None):
    """Train `model` in place and yield a log row every `log_every` steps; with `ema` the averaged weights remain in `model`.

    loss_at(model, step) -> (loss (), {name: value ()}). With `batch`, the size of the global batch, it is called as loss_at(model,
    step, rows) for parts of range(batch), spread over processes and `accumulate` micro-batches, and losses and values must be sums
    that add up to those of the whole batch. Checkpoints go to `folder` every `save_every` steps, a multiple of `log_every`; a later
    call with the same arguments yields the rows of the last one again and goes on from there. Where accelerate shards weights (FSDP2)
    `model` is a whole copy, brought up to date with every checkpoint and at the end. Raises NotFinite for a bad loss, with weights and
    moments as they were before that step, and CheckpointError.
    """
    if accelerator is None:
        from accelerate import Accelerator
        accelerator = Accelerator()
    sharded = accelerator.is_fsdp2
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED") and not sharded:
        raise CheckpointError("this loop shards weights by FSDP2 alone: launch with --use_fsdp --fsdp_version 2, or whole on every device with --multi_gpu")
    world, rank = accelerator.num_processes, accelerator.process_index
    share, reduction = (1, "mean") if batch is None else (world, "sum")  # without a batch every process computes the whole loss
    if batch is not None and batch < world * accumulate:
        raise config.ConfigError(f"a batch of {batch} cannot be split over {world} processes and {accumulate} micro-batches: lower either or raise the batch")
    parts = [()] if batch is None else [(torch.arange(batch)[rank::world][k::accumulate],) for k in range(accumulate)]
    trained = copy.deepcopy(model).to(memory_format=torch.contiguous_format) if sharded else model  # FSDP takes no other layout
    if trained is not model and model._compiled_call_impl:
        trained.compile()  # a copy does not inherit it
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay, fused=True)
    wrapped, optimizer = accelerator.prepare(trained, optimizer)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters] if ema else None
    scaled = accelerator.scaler is not None  # half precision with loss scaling
    start, rows = restore(folder, parameters, optimizer.optimizer, average, accelerator.scaler)
    starts = accelerator.gather(torch.tensor([start], device=accelerator.device)).tolist()
    if len(set(starts)) > 1:
        raise CheckpointError(f"the processes found checkpoints of different steps {starts} in {folder}: give all machines one folder of runs")
    bring_back(parameters, model, trained)
    trained.train()
    yield from list(rows)
    logs, bad = [], torch.zeros((), device=accelerator.device)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, lr, warmup)
        values = 0
        for part in parts:
            with contextlib.nullcontext() if part is parts[-1] else accelerator.no_sync(wrapped):
                loss, log = loss_at(wrapped, step, *part)
                accelerator.backward(loss * share)  # over processes gradients are averaged, and the loss is a sum
            values = values + torch.stack([v.detach().float() for v in (loss, *log.values())])
        norm = whole(accelerator.clip_grad_norm_(parameters, clip))
        logs.append(torch.cat([values, norm[None]]))
        due = (step + 1) % log_every == 0 or step + 1 == steps
        if due or scaled or loss.device.type == "cpu":  # elsewhere a look at every step would make the processor wait for the device
            table = torch.stack(logs)
            table[:, :-1] = accelerator.reduce(table[:, :-1], reduction)
            wrong = ~table[:, :-1 if scaled else None].isfinite().all(1)  # a scaled gradient may overflow: the scaler skips that step
            if wrong.any():
                first = step + 1 - len(logs) + int(wrong.nonzero()[0])
                blamed = getattr(loss_at, "blame", lambda *_: "")(trained, first)
                raise NotFinite(f"loss or gradient is not finite at step {first}{blamed}; the weights are those before it: correct the data or lower lr")
        if not scaled:
            bad = torch.maximum(bad, (~norm.isfinite()).float())
            optimizer.optimizer.found_inf = bad  # from a bad gradient on, fused AdamW leaves weights and moments as they are
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema:
            decay = min(ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if due:
            mean = table.mean(0).tolist()
            rows.append({"step": step + 1, "loss": mean[0], "gradient": mean[-1], "lr": optimizer.param_groups[0]["lr"],
                         **dict(zip(log, mean[1:-1], strict=True))})
            logs = []
            accelerator.log({k: v for k, v in rows[-1].items() if k != "step"}, step=step + 1)
        if folder and ((step + 1) % save_every == 0 or step + 1 == steps) and (accelerator.is_main_process or sharded):
            bring_back(parameters, model, trained)
            checkpoint(folder if accelerator.is_main_process else None, step + 1, parameters, optimizer.optimizer, average, rows, accelerator.scaler)
        if due:
            yield rows[-1]
    if ema:
        with torch.no_grad():
            for p, averaged in zip(parameters, average, strict=True):
                p.copy_(averaged)
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False).eval()
    bring_back(parameters, model, trained)
    model.eval()


def whole(tensor):
    """A tensor whose parts may lie on several devices; every process must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_of(tensor, like):
    """Of a whole tensor what this process holds of `like`."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None) if hasattr(like, "full_tensor") else tensor


@torch.no_grad()
def bring_back(parameters, model, trained):
    """Copy sharded `parameters` into the whole `model`, where that is not the one in training."""
    if model is not trained:
        for p, q in zip(parameters, (q for q in model.parameters() if q.requires_grad), strict=True):
            q.copy_(whole(p.detach()))


def write(tensors, path, about=None):
    """A safetensors file, whole or not at all. Raises CheckpointError where the disk is full."""
    path = Path(path)
    part = path.with_suffix(f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, part, about)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{path} cannot be written ({error}): make room and start again, it goes on from what is there") from None


def checkpoint(folder, step, parameters, optimizer, average, rows, scaler=None):
    """Weights, AdamW moments, averaged weights and log rows after `step` steps as one safetensors file, written atomically; the last KEPT remain.

    With sharded weights every process calls this, all but one with folder None.
    """
    tensors = {f"p{i}": p.detach() for i, p in enumerate(parameters)}
    tensors |= {f"a{i}": p for i, p in enumerate(average or ())}
    for i, p in enumerate(parameters):
        tensors |= {f"{k}{i}": v for k, v in optimizer.state[p].items()}
    for name in list(tensors):
        gathered = whole(tensors.pop(name))  # by all, and kept by one
        if folder:
            tensors[name] = gathered.cpu()
    if folder is None:
        return
    path = Path(folder) / f"checkpoint-{step:08d}.safetensors"
    about = {"step": step, "rows": rows, "scaler": scaler.state_dict() if scaler else None}
    write(tensors, path, {k: json.dumps(v) for k, v in about.items()})
    for old in sorted(path.parent.glob("checkpoint-*.safetensors"))[:-KEPT]:
        old.unlink()


def restore(folder, parameters, optimizer, average, scaler=None):
    """Load the newest whole `checkpoint` into place and return the number of steps it has behind it and their log rows; (0, []) without one."""
    for path in sorted(Path(folder).glob("checkpoint-*.safetensors"), reverse=True) if folder else ():
        try:
            file = safe_open(path, "pt")
        except (OSError, SafetensorError):
            continue  # damaged: the one before it serves
        with file, torch.no_grad():
            names = set(file.keys())
            if [file.get_slice(f"p{i}").get_shape() for i in range(sum(n[0] == "p" for n in names))] != [list(p.shape) for p in parameters]:
                raise CheckpointError(f"{path} is of another model (its weights have other shapes): remove it, or give the model it belongs to")
            for i, p in enumerate(parameters):
                p.copy_(part_of(file.get_tensor(f"p{i}"), p))
                if f"step{i}" in names:  # fused AdamW walks memory, so the moments must lie as the weights do
                    moments = {k: torch.empty_like(p).copy_(part_of(file.get_tensor(f"{k}{i}"), p)) for k in ("exp_avg", "exp_avg_sq")}
                    optimizer.state[p] = {"step": file.get_tensor(f"step{i}").to(p.device), **moments}
                if average:
                    average[i].copy_(part_of(file.get_tensor(f"a{i}"), p))
            about = {k: json.loads(v) for k, v in file.metadata().items() if k in ("step", "rows", "scaler")}
            if scaler and about["scaler"]:
                scaler.load_state_dict(about["scaler"])
            return about["step"], about["rows"]
    return 0, []


if __name__ == "__main__":
    from .align import main

    config.command("align", main)
