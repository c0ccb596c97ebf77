"""The doors of parameters: every setting of every stage and every knob of every method.

A value goes through `config.settings`; what is accepted then goes where the stage takes it first.
"""

import contextlib
import functools
import types
import typing

import numpy as np
import torch
from doors import kinds
from doors.doors import Door, notebook

from rlhf_nb import (
    align,
    config,
    data,
    diffusion,
    evaluate,
    methods,
    nets,
    objective,
    prompts,
    readers,
    reward,
    seeds,
    train,
)
from rlhf_nb.feedback import files as labels
from rlhf_nb.stages import STAGES, Rounds
from rlhf_nb.study import points

MEMORY = 2**40  # bytes, more than any machine has that this book is for


def fits(count, each, what):
    """Whether `count` things of `each` bytes may be in memory at once."""
    assert count * each < MEMORY, f"{what}: {count:.1g} of them cannot be in memory, and nothing was said"


def _captioned(source):
    if source != "world":
        next(iter(data.CaptionedImages(source, 1)), None)


@functools.cache  # a name means the same to every stage
def _read(name, value):
    """The reader of a parameter that is a text: None, or what it raised."""
    box = READERS["box"]
    try:
        {
            "pipeline": diffusion.load,
            "clip": reward.Clip,
            "judge": lambda value: readers.load(value, box.clip) if value else None,
            "scorer": lambda value: reward.scorer(value, box.result("reward", "model"), box.clip),
            "imported": lambda value: labels.read(value) if value else None,
            "pretraining": _captioned,
            "real": _captioned,
            "pictures": lambda value: _captioned(value) if value else None,
        }[name](value)
    except BaseException as error:
        return error


READERS = {"box": None}
TEXTS = {
    "pipeline",
    "clip",
    "judge",
    "scorer",
    "imported",
    "pretraining",
    "real",
    "pictures",
    "scale",
    "method",
}


def text(name, value):
    """Read a parameter that is a text as the stages do."""
    if name in ("scale", "method"):
        return  # settings know them all
    if error := _read(name, value):
        raise error.with_traceback(error.__traceback__)


def steps(box, count):
    diffusion.sampler(box.pipe.scheduler).set_timesteps(count)


def plan(updates, lr):
    found = train.Plan(steps=updates, lr=lr, warmup=updates // 20)
    assert 0 <= found.rate(0) < float("inf")


def seed(value):
    """The generators that the stages make of their seed."""
    seeds.generator(value, 1, 1)
    np.random.default_rng([value, 1])
    torch.manual_seed(value)


def start_prompts(box, s):
    notebook("01_prompts", "rows =", settings=s)


def start_generate(box, s):
    notebook("02_generate", "table =", "folder, wanted =", settings=s, run=box.run)
    steps(box, s.steps)


def start_feedback(box, s):
    fits(s.raters * len(box.images), 200, "judgements")


def start_reward(box, s):
    wants = prompts.wants(box.images.rows)[:4]
    vocabulary = prompts.TOY
    fits(s.candidates * 100, 8, "candidates")
    among = reward.candidates(box.clip, wants, s.candidates, s.seed, vocabulary.seen, None)
    image = box.clip.images(box.images[0:4])
    options = s.model_dump(include={"lam", "temperature", "batch", "lr", "hidden"})
    reward.fit(box.clip, image, *among, torch.ones(4), updates=1, seed=s.seed, **options)
    fits(s.seeds, 4 * s.hidden * box.clip.width, "heads")


def start_stress(box, s):
    reward.Head(box.clip.width, s.hidden)


def start_align(box, s):
    unet = box.pipe.unet
    if s.lora:
        unet = nets.trainable(box.pipe, s)
    plan(s.updates, s.lr)
    if methods.load(s.method).DRAWS is None:
        found = objective.Objective(s, box.pipe, unet, box.material, box.engine)
        fits(s.model_batch + s.pre_batch, 100, "rows")
        found.at(0).plan(0)
        fits(s.accumulate, 8, "micro-batches")
        found.micro_batches()
    align.plan(s)
    steps(box, s.rounds.steps)
    fits(s.rounds.prompts * s.rounds.images, 12_288, "pictures of a round")


def start_study(box, s):
    points.key(s)
    start_align(box, s)
    fits(s.prompts * s.repeats if s.prompts * s.repeats < 10**6 else s.repeats, 12_288, "pictures")
    steps(box, s.steps)
    fits(s.renders, 12_288, "real pictures")


def start_evaluate(box, s):
    steps(box, s.steps)
    fits(s.renders, 12_288, "real pictures")
    if s.renders < 10:
        scenes = evaluate.real_images("world", prompts.wants(box.images.rows)[:4], s.renders, 42)
        real = box.judge.features(scenes)
        evaluate.frechet(real, box.judge.features(box.images[0:8]))
    fits(len(s.guidances), 12_288, "pictures")


def start_best_of_n(box, s):
    steps(box, s.steps)
    fits(s.renders, 12_288, "real pictures")
    found = notebook("07_best_of_n", "sizes =", "n, few =", settings=s)
    fits(min(s.prompts, 1000) * int(found["n"]), 12_288, "pictures")
    assert found["n"] >= 1


def start_tour(box, s):
    steps(box, s.steps)
    plan(s.updates, 1e-4)


NETWORKS = (
    *("def predictor", "clip_shape =", "text =", "clip_shape.", "text.", "text."),
    *("vae =", "unet =", "clip =", "rival ="),
)


def start_pretrain(box, s):
    import transformers

    plain = box.defaults["pretrain"]
    fits(max(s.pairs, s.checked), 12_288, "pictures")
    for name in ("autoencoder", "decoder", "clip", "vision", "unet", "judge"):
        plan(getattr(s, f"{name}_steps"), getattr(s, f"{name}_lr"))
        fits(getattr(s, f"{name}_batch"), 49_152, "pictures of a batch")
    steps(box, s.steps)
    transformers.set_seed(s.seed)
    changed = {name for name in type(s).model_fields if getattr(s, name) != getattr(plain, name)}
    if not any(name.endswith(("channels", "attention", "layers", "heads", "width")) for name in changed):
        return
    with torch.device("meta"):
        notebook("A1_pretrain", *NETWORKS, settings=s)


def start_gpu(box, s):
    fits(s.lora, 1, "ranks")


STARTS = {
    "prompts": start_prompts,
    "generate": start_generate,
    "feedback": start_feedback,
    "reward": start_reward,
    "stress": start_stress,
    "align": start_align,
    "study": start_study,
    "evaluate": start_evaluate,
    "best_of_n": start_best_of_n,
    "tour": start_tour,
    "pretrain": start_pretrain,
    "gpu": start_gpu,
    "data": lambda box, s: None,
    "reach": lambda box, s: None,
    "sensitivity": lambda box, s: None,
    "league": lambda box, s: None,
    "methods": lambda box, s: None,
    "verdicts": lambda box, s: None,
}


def same(given, found):
    """Whether what was accepted is what was given."""
    if isinstance(given, list | tuple | set):
        return len(given) == len(found) and all(map(same, given, found))
    return given == found


def taken(box, stage, name, value):
    """A parameter's value as the stage takes it: through the settings, its reader, and its start."""
    found = config.settings(stage, **{"scale": "smoke", name: value})
    got = getattr(found, name)
    assert name in ("knobs", "rounds") or same(value, got), f"{ascii(got)[:60]} was made of it"
    if got == getattr(box.defaults[stage], name):
        return
    if isinstance(got, str):
        text(name, got)
    seed(found.seed)
    STARTS[stage](box, found)


WORDS = {  # a clear sentence may name the value
    kind: (repr(value), value[:40] or "''", value.rpartition("/")[2] or value)
    for kind, value in kinds.VALUES.items()
    if isinstance(value, str)
}
WORDS["a mapping"] = ("parameter 'a'",)


def of_stage(box, stage):
    """The doors of a stage's parameters."""
    READERS["box"] = box
    for name in STAGES[stage].model_fields:
        cells = {
            kind: _plain(functools.partial(taken, box, stage, name, value))
            for kind, value in kinds.VALUES.items()
        }
        yield Door("parameters", f"{stage}.{name}", (name,), cells, WORDS)


def of_rounds(box):
    """The doors of the fresh images' settings."""
    for name in Rounds.model_fields:
        cells = {
            kind: _plain(functools.partial(taken, box, "align", "rounds", {name: value}))
            for kind, value in kinds.VALUES.items()
        }
        yield Door("parameters", f"align.rounds.{name}", (name,), cells)


def knobbed(box, method, name, value):
    """A knob's value through the settings, and the method's rows under it."""
    found = config.settings("align", scale="smoke", method=method, knobs={name: value})
    assert same(value, found.knobs[name])
    module = methods.load(method)
    if module.DRAWS is None:
        objective.Objective(found, box.pipe, box.pipe.unet, box.material, box.engine).at(0).plan(0)


def of_method(box, method):
    """The doors of a method's knobs."""
    for name in methods.load(method).Knobs.model_fields:
        cells = {
            kind: _plain(functools.partial(knobbed, box, method, name, value))
            for kind, value in kinds.VALUES.items()
        }
        yield Door("knobs", f"{method}.{name}", (name,), cells)


def _plain(act):
    return lambda: contextlib.nullcontext(act)


def texts(model):
    """The parameters of a model that are any text."""
    for name, field in model.model_fields.items():
        inside = typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else ()
        if str in (field.annotation, *inside):
            yield name
