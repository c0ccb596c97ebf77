"""Checkpoints of a training: weights, moments, averages and log rows in one safetensors file, whole or
absent.

Where accelerate shards weights (FSDP2) every process gathers, one writes.
"""

import json

import torch
from pydantic import BaseModel, Json
from torch.distributed.tensor import distribute_tensor

from . import config, files

KEPT = 2  # checkpoints


class About(BaseModel):
    """What a checkpoint says of itself, JSON in the file's header."""

    step: Json[int]
    rows: Json[list[dict]]
    scaler: Json[dict | None]


class CheckpointError(config.UserError, RuntimeError):
    """A checkpoint does not fit; the message says what to do, and the last good one is still there."""


def whole(tensor):
    """A tensor whose parts may lie on several devices; every process must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_of(tensor, like):
    """Of a whole tensor what this process holds of `like`."""
    if not hasattr(like, "full_tensor"):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def weights(training):
    """{name: tensor} of the weights, averages and kept tensors of a `train.Training`."""
    lists = {"p": training.parameters, "a": training.average, "k": training.kept}
    return {f"{letter}{i}": p.detach() for letter, of in lists.items() for i, p in enumerate(of)}


def save(training, folder, step):
    """Write the checkpoint of a `train.Training` after `step` steps; the last KEPT remain.

    Raises ArtifactError.
    """
    engine, tensors = training.engine, weights(training)
    for i, p in enumerate(training.parameters):
        tensors |= {f"{name}{i}": value for name, value in training.moments[p].items()}
    for name in list(tensors):
        gathered = whole(tensors.pop(name))  # by all processes, and kept by one
        if engine.is_main_process:
            tensors[name] = gathered.cpu()
    if not engine.is_main_process:
        return
    scaler = engine.scaler.state_dict() if engine.scaler else None
    about = {"step": step, "rows": training.rows, "scaler": scaler}
    words = {name: json.dumps(value) for name, value in about.items()}
    files.write_tensors(tensors, folder / f"checkpoint-{step:08d}.safetensors", words)
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-KEPT]:
        old.unlink()


@torch.no_grad()
def restore(training, folder):
    """Load the newest whole checkpoint into a `train.Training`: the number of steps behind it, 0 without one.

    Raises CheckpointError where its weights have other shapes.
    """
    with files.reading(folder):
        paths = sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)
    for path in paths:
        found = files.cached_tensors(path)
        if not found:
            continue  # damaged: the one before it serves
        tensors, about = found[0], About.model_validate(found[1])
        load(training, tensors, path)
        if training.engine.scaler and about.scaler:
            training.engine.scaler.load_state_dict(about.scaler)
        training.rows = about.rows
        return about.step
    return 0


def load(training, tensors, path):
    """Copy the {name: tensor} of a checkpoint into place."""
    shapes = {name: value.shape for name, value in tensors.items()}
    differ = [name for name, value in weights(training).items() if shapes.get(name) != value.shape]
    if differ or f"p{len(training.parameters)}" in shapes:
        raise CheckpointError(
            f"{path} is of another model (its weights have other shapes): remove it, or give the model it "
            "belongs to"
        )
    for name, value in weights(training).items():
        value.copy_(part_of(tensors[name], value))
    for i, p in enumerate(training.parameters):
        if not {f"step{i}", f"exp_avg{i}", f"exp_avg_sq{i}"} <= shapes.keys():
            continue
        training.moments[p] = {"step": tensors[f"step{i}"].to(p.device)}
        for name in ("exp_avg", "exp_avg_sq"):  # fused AdamW walks memory: moments must lie as the weights do
            value = part_of(tensors[f"{name}{i}"], p)
            training.moments[p][name] = torch.empty_like(p).copy_(value)
