"""Methods that differ, on one trainer: exact under a kill, alike on one process and two; DDPO's ratio;
DRaFT's gradient.
"""

import importlib
import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from rlhf_nb import batches, config, losses, methods, nets, objective, reward, stages

sys.path.insert(0, str(Path(__file__).parent))
import trained  # noqa: E402


@pytest.fixture(scope="module")
def pipe(pipe):
    return trained.small(pipe)


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


def run(pipe, clip, chosen, folder, stop=None):
    """(log rows, weights) of a training that is stopped after `stop` rows, or goes to its end."""
    unet = nets.trainable(pipe, chosen)
    rows = list(itertools.islice(trained.rows(pipe, clip, unet, chosen, folder), stop))
    return rows, trained.weights(unet)


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(pipe, clip, tmp_path_factory):
    """Trainings that nobody stopped, each made once: a function of the method's name."""
    kept = {}

    def of(method):
        if method not in kept:
            kept[method] = run(pipe, clip, trained.settings(method), tmp_path_factory.mktemp(method))
        return kept[method]

    return of


def test_every_method_is_one_short_module_with_the_interface():
    assert set(methods.names()) >= set(trained.METHODS)
    for name in methods.names():
        lines = Path(methods.load(name).__file__).read_text().splitlines()
        assert len(lines) <= 60, name
        module = methods.load(name)
        assert set(module.FROZEN) <= {"reference", "old", "decoder", "reward"}
        assert module.DRAWS in (None, "policy", "old") and module.Knobs().model_dump() is not None
        assert callable(module.rows) and callable(module.loss)
        assert hasattr(module, "after") == ("old" in module.FROZEN)
    trainer = "".join(
        (ROOT / "rlhf_nb" / f"{f}.py").read_text()
        for f in ("objective", "train", "batches", "rollout", "nets")
    )
    assert not any(f'"{name}"' in trainer for name in methods.names())  # nobody asks for a method by name


UNLIKE = ("reward_weighted", "reward_weighted_rounds", "ddpo", "draft")  # one of each kind of training
KILLED = [pytest.param(name, marks=() if name in UNLIKE else pytest.mark.slow) for name in trained.METHODS]


@pytest.mark.parametrize("method", KILLED)
def test_killed_and_resumed_ends_with_the_same_bits(pipe, clip, whole, tmp_path, method):
    chosen, (rows, weights) = trained.settings(method), whole(method)
    for stop in (1, 2):  # within the first round, and at its end, before the second one is drawn
        run(pipe, clip, chosen, tmp_path / f"{stop}", stop)
        again, resumed = run(pipe, clip, chosen, tmp_path / f"{stop}")
        assert again == rows and equal(resumed, weights)


@pytest.mark.slow
def test_two_processes_train_as_one(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        f"{sys.executable} -m accelerate.commands.launch --multi_gpu --num_processes=2 --num_machines=1 "
        f"--mixed_precision=no --dynamo_backend=no --main_process_port={port} "
        f"tests/methods/trained.py {tmp_path}"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command.split(), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for method in trained.METHODS:
        rows, weights = whole(method)
        two_losses, two = np.load(tmp_path / f"{method}.npy"), load_file(tmp_path / f"{method}.safetensors")
        assert np.allclose([row["loss"] for row in rows], two_losses, rtol=1e-3, atol=1e-4), method
        assert max(float((p - two[name]).abs().max()) for name, p in weights.items()) < 5e-4, method


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("batch", [6, 4])
def test_the_ratio_of_ddpo_is_one_before_the_first_update(pipe, clip, tmp_path, monkeypatch, lora, batch):
    seen, loss = [], methods.load("ddpo").loss

    def watched(*given):
        terms, log = loss(*given)
        seen.append(log["ratio"].detach())
        return terms, log

    monkeypatch.setattr(methods.load("ddpo"), "loss", watched)
    run(pipe, clip, trained.settings("ddpo", model_batch=batch, lora=lora), tmp_path, 3)
    for first in (seen[0], seen[2]):  # of either round
        assert torch.equal(first, torch.ones(batch))
    assert not torch.equal(seen[1], torch.ones(batch))


def test_an_advantage_sums_to_nothing_within_its_group():
    reward = torch.tensor([0.1, 0.5, 0.9, 0.3, 0.3, 0.3])
    group = torch.tensor([4, 4, 4, 7, 7, 7])
    found = losses.advantages(reward, group)
    assert torch.allclose(found[:3].sum(), torch.zeros(()), atol=1e-6) and not found[3:].any()
    assert found[2] > 0 > found[0]


def test_a_reverse_step_is_that_of_diffusers(pipe):
    """Mean and deviation against DDIMScheduler's own step with its own noise."""
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler.from_config(pipe.scheduler.config)
    theirs.set_timesteps(5)
    x, noise_pred, noise = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for t, then in itertools.pairwise([*theirs.timesteps.tolist(), -1]):
        expected = theirs.step(noise_pred, t, x, eta=0.7, variance_noise=noise).prev_sample
        times = (torch.full((2,), v) for v in (t, then))
        mean, deviation = losses.reverse_step(theirs, noise_pred, x, *times, eta=0.7)
        assert torch.allclose(mean + deviation * noise, expected, atol=1e-5)


def test_draft_follows_the_gradient_of_the_reward(pipe, clip, tmp_path):
    """One step raises the reward of the very pictures it was taken on."""
    once = {"count": 1, "prompts": 2, "images": 3, "steps": 3}
    chosen = trained.settings("draft", updates=2, rounds=once, model_batch=6, lr=2e-4, drop=0.0)
    rows, _ = run(pipe, clip, chosen, tmp_path)
    assert rows[0]["gradient"] > 0 and rows[1]["model_reward"] > rows[0]["model_reward"]


def old_and_reference():
    """A method as later ones will be: pulled to an old policy that follows, and to the reference."""

    knobs = importlib.import_module("rlhf_nb.methods.reward_weighted").Knobs

    def loss(nets, batch, knobs):
        noisy, target, time, _ = losses.diffused(nets.scheduler, batch.latents, batch.noise, batch.timesteps)
        given = noisy, time, batch.text
        policy, old, reference = nets.policy(*given), nets.old(*given), nets.reference(*given)

        def gap(a, b):
            return (a - b).square().mean((1, 2, 3))

        log = {"old": gap(policy, old).detach(), "reference": gap(policy, reference).detach()}
        return gap(policy, target) + gap(policy, old) + gap(policy, reference), log

    return SimpleNamespace(
        FROZEN=("old", "reference"),
        DRAWS="old",
        RECORD=(),
        SHARED=True,
        Knobs=knobs,
        rows=lambda samples, knobs: {"row": torch.arange(len(samples)), "group": samples.group},
        loss=loss,
        after=lambda nets, knobs, number: nets.follow(0.5),
    )


@pytest.mark.parametrize("lora", [0, 2])
def test_old_and_reference_policies(pipe, clip, tmp_path, monkeypatch, lora):
    """Both begin as the policy; the old one follows between rounds, is checkpointed, and with LoRA copies no
    U-Net.
    """
    monkeypatch.setattr(methods, "load", lambda name: old_and_reference())
    chosen = trained.settings("reward_weighted_rounds", lora=lora, pre_batch=0)
    rows, weights = run(pipe, clip, chosen, tmp_path / "whole")
    assert rows[0]["model_old"] == rows[0]["model_reference"] == 0 < rows[1]["model_old"]
    assert rows[2]["model_old"] < rows[2]["model_reference"]  # after half a step towards the policy
    run(pipe, clip, chosen, tmp_path / "killed", 3)
    again, resumed = run(pipe, clip, chosen, tmp_path / "killed")
    assert again == rows and equal(resumed, weights)
    if lora:
        made = nets.Nets(pipe, nets.trainable(pipe, chosen), ("old", "reference"))
        assert sum(p.numel() for p in made.kept) < 0.1 * sum(p.numel() for p in pipe.unet.parameters())
        assert not hasattr(made, "former")


def test_groups_share_timestep_and_noise_and_stay_together(pipe):
    material = trained.material(pipe)
    material.samples.group = torch.tensor([0, 1, 0, 1, 2])
    with pytest.raises(RuntimeError):
        objective_of(pipe, material)  # groups of unequal size
    material.samples.group = torch.tensor([0, 1, 0, 1])
    material.samples.encoded.shards[0]["mean"] = material.samples.encoded.shards[0]["mean"][:4]
    made = objective_of(pipe, material)
    plan = made.plan(3)
    assert {tuple(sorted(pair)) for pair in plan["row"][:6].view(-1, 2).tolist()} <= {(0, 2), (1, 3)}
    assert (plan["timesteps"][:6].view(-1, 2).diff() == 0).all()
    batch = made.take(3, torch.arange(8), "cpu")
    assert torch.equal(batch.noise[0], batch.noise[1]) and not torch.equal(batch.noise[1], batch.noise[2])
    mine = [made.positions(2, rank) for rank in (0, 1)]
    assert [p.tolist() for [p] in mine] == [[0, 1, 4, 5, 7], [2, 3, 6]]


def objective_of(pipe, material):
    chosen = trained.settings("reward_weighted")
    return batches.Batches(
        material.samples,
        old_and_reference().rows(material.samples, None),
        material.pre,
        (chosen.model_batch, chosen.pre_batch),
        total=1000,
        empty=material.empty,
        drop=0.0,
        seed=0,
        shared=True,
    )


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"method": "ppo"}, "unknown method 'ppo'; choose one of awm, best_only, "),
        (
            {"knobs": {"betta": 1.0}},
            "unknown parameter 'betta' of method 'reward_weighted'; it takes beta, power",
        ),
        (
            {"knobs": {"beta": -1.0}},
            "'beta' of method 'reward_weighted' must be greater than or equal to 0, not -1.0",
        ),
        ({"knobs": {"rows_by": "luck"}}, "'rows_by' .* must be 'weight' or 'uniform', not 'luck'"),
    ],
)
def test_a_wrong_method_or_knob_is_one_sentence(bad, words):
    with pytest.raises(config.ConfigError, match=words):
        config.settings("align", **bad)


def test_knobs_are_those_of_the_scale_with_what_is_given_laid_over():
    knobs = config.settings("align", scale="sd15", knobs={"power": 2.0}).knobs
    assert knobs == {"beta": 1.0, "power": 2.0, "baseline": 0.0, "rows_by": "uniform", "min_snr": 0.0}
    assert "knobs" in stages.Align.model_fields and not config.settings("align", method="draft").knobs["eta"]


@pytest.mark.parametrize(
    "given, words",
    [
        ({"method": "reward_weighted", "rounds": {"count": 2}}, "draws no images .*: leave `rounds` at one"),
        ({"method": "ddpo", "updates": 5}, "5 updates do not divide into 2 rounds"),
        ({"method": "reward_weighted", "accumulate": 9}, "9 micro-batches"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(given, words):
    chosen = trained.settings(**given)
    with pytest.raises(config.ConfigError, match=words):
        objective.check(methods.load(chosen.method), chosen, SimpleNamespace(num_processes=1, is_fsdp2=False))
