"""One training loop for everything: autoencoder, CLIP, judge, U-Net, reward head and every method of
alignment.

The step number is the only random state: whoever supplies `loss_at(model, step)` draws its batch, noise and
timesteps from (seed, step) alone (seeds.py), so an interrupted run that is resumed ends as if it had not been
(on a processor: with the same bits), and one process or eight see the same batches.
"""

import contextlib
import copy
import itertools
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator

from . import checkpoints, config, flops


class NotFinite(config.UserError, ArithmeticError):
    """A loss or gradient was NaN or infinite; the message names the step and, where it can, the samples."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast: AdamW under a linear warm-up and, at the end, a linear decay to zero."""

    steps: int
    lr: float
    warmup: int = 0
    decay: float = 1.0  # share of the steps after the warm-up that the rate falls in; 0: it stays
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.0  # decay of the averaged weights, 0 for none
    log_every: int = 20
    save_every: int = 500  # a multiple of log_every

    def rate(self, step):
        """Learning rate of `step`."""
        rising = (step + 1) / max(self.warmup, 1)
        falling = (self.steps - step) / max(self.decay * (self.steps - self.warmup), 1)
        return self.lr * min(rising, falling, 1)


def loop(model, losses, plan, *, folder=None, engine=None, summed=False, kept=(), blame=None):
    """Train `model` in place and yield a log row every `plan.log_every` steps; with `plan.ema` averages
    remain.

    losses: the micro-batches of this process, each loss_at(model, step) -> (loss (), {name: value ()}). With
    `summed`, losses and values of all micro-batches and processes add up to those of the whole batch; else
    every process computes the whole of one. Checkpoints go to `folder` (a Path), with the tensors `kept`
    beside the weights; a later call with the same arguments yields the rows of the last one again and goes
    on from there. Where accelerate shards weights (FSDP2) `model` is a whole copy, brought up to date with
    every checkpoint and at the end. Raises NotFinite for a bad loss, with weights and moments as they were
    before that step (blame(model, step) may name its samples), CheckpointError, and ArtifactError where a
    checkpoint cannot be written.
    """
    training = Training(model, plan, engine or Accelerator(), kept)
    start = training.resume(folder)
    yield from list(training.rows)
    yield from training.steps(start, losses, folder, summed, blame)
    training.finish()


def trainable(model):
    """The weights of a model that learn, a list."""
    return [p for p in model.parameters() if p.requires_grad]


class Training:
    """What a training holds between two steps."""

    numbers = itertools.count()

    def __init__(self, model, plan, engine, kept):
        self.sharded = engine.is_fsdp2
        if engine.distributed_type.value in ("FSDP", "DEEPSPEED") and not self.sharded:
            raise checkpoints.CheckpointError(
                "this loop shards weights by FSDP2 alone: launch with --use_fsdp --fsdp_version 2, or whole "
                "on every device with --multi_gpu"
            )
        self.model, self.plan, self.engine, self.kept = model, plan, engine, list(kept)
        self.trained = model
        if self.sharded:  # which takes no other layout
            self.trained = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
            if model._compiled_call_impl:
                self.trained.compile()  # a copy does not inherit it
        optimizer = torch.optim.AdamW(
            trainable(self.trained), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
        )
        self.wrapped, self.optimizer = engine.prepare(self.trained, optimizer)
        self.parameters = trainable(self.trained)
        self.moments = self.optimizer.optimizer.state
        self.average = [p.detach().clone() for p in self.parameters] if plan.ema else []
        self.scaled = engine.scaler is not None  # half precision with loss scaling
        # elsewhere a look at every step would make the processor wait for the device
        self.looks = self.scaled or engine.device.type == "cpu"
        self.number = next(self.numbers)  # for the ledger of FLOP: another training of a model costs another
        self.bad = torch.zeros((), device=engine.device)
        self.rows, self.logs = [], []

    def resume(self, folder):
        """The step to start at. Raises CheckpointError where the processes found different ones."""
        start = checkpoints.restore(self, folder) if folder else 0
        starts = self.engine.gather(torch.tensor([start], device=self.engine.device)).tolist()
        if len(set(starts)) > 1:
            raise checkpoints.CheckpointError(
                f"the processes found checkpoints of different steps {starts} in {folder}: give all machines "
                "one folder of runs"
            )
        self.bring_back()
        self.trained.train()
        return start

    def steps(self, start, losses, folder, summed, blame):
        """The loop itself: a log row whenever one is due."""
        plan = self.plan
        for step in range(start, plan.steps):
            work = partial(self.backward, losses, step, summed)
            flops.spend(work, self.trained, self.number)
            due = (step + 1) % plan.log_every == 0 or step + 1 == plan.steps
            if due or self.looks:
                self.check(step, summed, blame)
            self.update(step)
            if due:
                self.log(step)
            if folder and ((step + 1) % plan.save_every == 0 or step + 1 == plan.steps):
                self.save(folder, step + 1)
            if due:
                yield self.rows[-1]

    def backward(self, losses, step, summed):
        """Gradients of all micro-batches, clipped; what is to be logged of the step joins `logs`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        share = (
            self.engine.num_processes if summed else 1
        )  # gradients are averaged over processes, the loss is a sum
        values = 0
        for loss_at in losses:
            last = loss_at is losses[-1]
            with contextlib.nullcontext() if last else self.engine.no_sync(self.wrapped):
                loss, log = loss_at(self.wrapped, step)
                self.engine.backward(loss * share)
            values = values + torch.stack([v.detach().float() for v in (loss, *log.values())])
        self.names = list(log)
        self.norm = checkpoints.whole(self.engine.clip_grad_norm_(self.parameters, self.plan.clip))
        self.logs.append(torch.cat([values, self.norm[None]]))

    def check(self, step, summed, blame):
        """Raise NotFinite for the first of the steps logged since the last look that is not finite."""
        table = torch.stack(self.logs)
        table[:, :-1] = self.engine.reduce(table[:, :-1], "sum" if summed else "mean")
        # a scaled gradient may overflow: the scaler skips that step
        seen = table[:, :-1] if self.scaled else table
        wrong = ~seen.isfinite().all(1)
        if wrong.any():
            first = step + 1 - len(self.logs) + int(wrong.nonzero()[0])
            raise NotFinite(
                f"loss or gradient is not finite at step {first}"
                f"{blame(self.trained, first) if blame else ''}; the weights are those before it: correct "
                "the data or lower lr"
            )
        self.mean = table.mean(0)

    def update(self, step):
        """One step of AdamW and of the average."""
        if not self.scaled:
            self.bad = torch.maximum(self.bad, (~self.norm.isfinite()).float())
            # from a bad gradient on, fused AdamW leaves weights and moments as they are
            self.optimizer.optimizer.found_inf = self.bad
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            decay = min(self.plan.ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def log(self, step):
        """A row of means over the steps since the last one."""
        loss, *values, gradient = self.mean.tolist()
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"step": step + 1, "loss": loss, "gradient": gradient, "lr": rate}
        self.rows.append(row | dict(zip(self.names, values, strict=True)))
        self.logs = []
        self.engine.log({k: v for k, v in self.rows[-1].items() if k != "step"}, step=step + 1)

    def save(self, folder, step):
        """A checkpoint, by the first process; where weights are sharded all take part."""
        if self.engine.is_main_process or self.sharded:
            self.bring_back()
            checkpoints.save(self, folder, step)

    @torch.no_grad()
    def bring_back(self):
        """Copy sharded weights into the whole `model`, where that is not the one in training."""
        if self.model is self.trained:
            return
        for p, q in zip(self.parameters, trainable(self.model), strict=True):
            q.copy_(checkpoints.whole(p.detach()))

    @torch.no_grad()
    def finish(self):
        """Leave the averaged weights, if there are any, in a model that is ready to use."""
        if self.average:
            for p, averaged in zip(self.parameters, self.average, strict=True):
                p.copy_(averaged)
        self.engine.unwrap_model(self.wrapped, keep_fp32_wrapper=False).eval()
        self.bring_back()
        self.model.eval()
