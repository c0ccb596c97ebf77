"""Identities of every objective."""

import math
from types import SimpleNamespace

import pytest
import torch

from rlhf_nb import diffusion, losses


@pytest.fixture(scope="module")
def schedule(pipe):
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def batch(pipe, n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    table, rows = diffusion.encode_prompts(
        pipe, [f"{w} cats in the sea." for w in ("one", "two", "three")] * (n // 3)
    )
    return {
        "latents": torch.randn(n, 4, 8, 8, generator=g),
        "text": table[rows],
        "timesteps": torch.randint(1000, (n,), generator=g),
        "noise": torch.randn(n, 4, 8, 8, generator=g),
    }


def test_denoising_is_diffusers_own_loss(pipe, schedule):
    """Against the forward process written out, after a sampler has been at work on the pipeline's own
    scheduler.
    """
    diffusion.sample(pipe, ["Two cats."], guidance=2.0, steps=2, seed=0)
    b = batch(pipe)
    a = schedule.alphas_cumprod[b["timesteps"]].view(-1, 1, 1, 1)
    noisy = a.sqrt() * b["latents"] + (1 - a).sqrt() * b["noise"]
    theirs = torch.nn.functional.mse_loss(pipe.unet(noisy, b["timesteps"], b["text"]).sample, b["noise"])
    assert torch.allclose(
        losses.denoising(diffusion.predictor(pipe.unet), schedule, **b).mean(), theirs, rtol=1e-5
    )


def test_velocity_flow_and_unknown_targets(pipe):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    b = batch(pipe)
    latents, noise, t = b["latents"], b["noise"], b["timesteps"]
    v = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    a = v.alphas_cumprod[t].view(-1, 1, 1, 1)
    assert torch.allclose(
        losses.diffused(v, latents, noise, t)[1], a.sqrt() * noise - (1 - a).sqrt() * latents, atol=1e-5
    )
    flow = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    noisy, target, time, _ = losses.diffused(flow, latents, noise, t)
    there = theirs.timesteps.flip(0)[t]  # sigma_t T
    assert torch.allclose(time, there, rtol=1e-4)
    assert torch.allclose(
        noisy,
        torch.cat([theirs.scale_noise(latents[[i]], there[[i]], noise[[i]]) for i in range(len(t))]),
        atol=1e-4,
    )
    assert torch.equal(target, noise - latents)
    with pytest.raises(ValueError, match="'sample'"):
        losses.diffused(
            DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="sample"), latents, noise, t
        )


def test_min_snr_weighs_as_diffusers_example_does(pipe, schedule):
    from diffusers.training_utils import compute_snr

    b = batch(pipe)
    snr = compute_snr(schedule, b["timesteps"])
    plain, weighed = (
        losses.denoising(diffusion.predictor(pipe.unet), schedule, **b, min_snr=g) for g in (0.0, 5.0)
    )
    assert torch.allclose(
        weighed, plain * torch.stack([snr, torch.full_like(snr, 5.0)], 1).min(1)[0] / snr, rtol=1e-4
    )


@pytest.mark.parametrize("kind", losses.PREDICTIONS)
def test_min_snr_weighs_the_error_of_the_clean_latents(pipe, kind):
    """min(SNR, gamma) |x_hat - x|^2, whatever the U-Net predicts."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    b, g = batch(pipe), torch.Generator().manual_seed(1)
    predicted = torch.randn(b["latents"].shape, generator=g)
    flow = kind == "flow_prediction"
    scheduler = (
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type=kind)
        if flow
        else DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    )
    noisy, _, time, snr = losses.diffused(scheduler, b["latents"], b["noise"], b["timesteps"])
    a, sigma = (v.view(-1, 1, 1, 1) for v in (scheduler.alphas_cumprod[b["timesteps"]], time / 1000))
    clean = {
        "epsilon": (noisy - (1 - a).sqrt() * predicted) / a.sqrt(),
        "v_prediction": a.sqrt() * noisy - (1 - a).sqrt() * predicted,
        "flow_prediction": noisy - sigma * predicted,
    }[kind]
    weighed = losses.denoising(lambda *_: predicted, scheduler, **b, min_snr=5.0)
    assert torch.allclose(
        weighed, snr.clamp(max=5.0) * (clean - b["latents"]).square().mean((1, 2, 3)), rtol=1e-3
    )


@pytest.mark.parametrize("kind", losses.PREDICTIONS)
def test_the_self_normalised_error_is_that_of_the_clean_latents_over_its_own_size(pipe, kind):
    """|x_hat - x|^2 / mean |x_hat - x|, whatever the U-Net predicts, up to the cap."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    b, g = batch(pipe), torch.Generator().manual_seed(1)
    predicted = torch.randn(b["latents"].shape, generator=g)
    kinds = {"flow_prediction": DPMSolverMultistepScheduler}
    options = {"use_flow_sigmas": True} if kind in kinds else {}
    scheduler = kinds.get(kind, DDIMScheduler).from_config(
        pipe.scheduler.config, prediction_type=kind, **options
    )
    noised = losses.Noised(SimpleNamespace(scheduler=scheduler), SimpleNamespace(**b))
    a, sigma = (v.view(-1, 1, 1, 1) for v in (scheduler.alphas_cumprod[b["timesteps"]], noised.time / 1000))
    clean = {
        "epsilon": (noised.noisy - (1 - a).sqrt() * predicted) / a.sqrt(),
        "v_prediction": a.sqrt() * noised.noisy - (1 - a).sqrt() * predicted,
        "flow_prediction": noised.noisy - sigma * predicted,
    }[kind]
    off = clean - b["latents"]
    expected = off.square().mean((1, 2, 3)) / off.abs().mean((1, 2, 3))
    assert torch.allclose(noised.error(predicted, "self-normalised", most=1e9), expected, rtol=1e-3)
    assert (noised.error(predicted, "self-normalised", most=0.1) < expected).all()
    assert torch.allclose(noised.error(predicted), losses.gap(predicted, noised.target))


def test_strata_give_every_entry_a_part_of_the_timesteps():
    rows = losses.strata({"row": torch.tensor([4, 9]), "group": torch.tensor([0, 1])}, pairs=3, low=0.4)
    assert rows["row"].tolist() == [4, 9] * 3 and rows["group"].tolist() == list(range(6))
    assert torch.allclose(rows["low"], torch.tensor([0.4, 0.4, 0.6, 0.6, 0.8, 0.8]))
    assert torch.allclose(rows["high"] - rows["low"], torch.full((6,), 0.2))


def test_super_linear_advantages_have_the_deviation_of_one():
    advantage = torch.randn(200, generator=torch.Generator().manual_seed(0)).clamp(-1.5, 1.5)
    shaped = losses.super_linear(advantage, 0.5)
    assert torch.allclose(shaped.std(), torch.ones(()), atol=1e-5)
    assert torch.allclose(
        shaped, advantage.sign() * advantage.abs() ** 1.5 * shaped.max() / 1.5**1.5, atol=1e-5
    )
    assert not losses.super_linear(torch.zeros(4), 0.5).any()


def test_shares_make_a_sum_the_mean_over_each_source():
    error, is_model = torch.rand(8), torch.tensor([True] * 5 + [False] * 3)
    assert torch.allclose(losses.shares(is_model) @ error, error[:5].mean() + error[5:].mean())
    assert torch.allclose(losses.shares(is_model[:5]) @ error[:5], error[:5].mean())


def test_reward_mse():
    assert losses.reward_mse(torch.tensor([1.0, 0.25]), torch.tensor([1.0, 1.0])).tolist() == [0.0, 0.5625]


def test_prompt_classification_identities():
    scores = torch.rand(7, 5, dtype=torch.double)
    value = losses.prompt_classification(scores, 2.0)
    shuffled = torch.cat([scores[:, :1], scores[:, 1:][:, torch.randperm(4)]], 1)
    assert torch.allclose(
        value, losses.prompt_classification(shuffled, 2.0)
    )  # the order of the wrong prompts is nothing
    assert torch.equal(
        losses.prompt_classification(scores[:, :1]), torch.zeros(7, dtype=torch.double)
    )  # N = 1: nothing to choose
    assert torch.allclose(
        losses.prompt_classification(torch.full((7, 5), 0.3)), torch.full((7,), math.log(5))
    )  # equal scores: blind
    by_hand = -torch.log(torch.exp(scores[:, 0] / 2) / torch.exp(scores / 2).sum(1))
    assert torch.allclose(value, by_hand)


def test_prompt_classification_gradient():
    assert torch.autograd.gradcheck(
        lambda s: losses.prompt_classification(s, 2.0),
        torch.rand(3, 4, dtype=torch.double, requires_grad=True),
    )
