"""Identities of every objective."""

import math

import pytest
import torch

from rlhf_nb import diffusion, losses


@pytest.fixture(scope="module")
def schedule(pipe):
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def batch(pipe, n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    table, rows = diffusion.encode_prompts(pipe, [f"{w} cats in the sea." for w in ("one", "two", "three")] * (n // 3))
    return {"latents": torch.randn(n, 4, 8, 8, generator=g), "encoder_hidden_states": table[rows],
            "timesteps": torch.randint(1000, (n,), generator=g), "noise": torch.randn(n, 4, 8, 8, generator=g)}


def test_denoising_is_diffusers_own_loss(pipe, schedule):
    """Against the forward process written out, after a sampler has been at work on the pipeline's own scheduler."""
    diffusion.sample(pipe, ["Two cats."], guidance=2.0, steps=2, seed=0)
    b = batch(pipe)
    a = schedule.alphas_cumprod[b["timesteps"]].view(-1, 1, 1, 1)
    noisy = a.sqrt() * b["latents"] + (1 - a).sqrt() * b["noise"]
    theirs = torch.nn.functional.mse_loss(pipe.unet(noisy, b["timesteps"], b["encoder_hidden_states"]).sample, b["noise"])
    assert torch.allclose(losses.denoising(pipe.unet, schedule, **b).mean(), theirs, rtol=1e-5)


def test_velocity_and_unknown_targets(pipe):
    from diffusers import DDIMScheduler

    b = batch(pipe)
    v = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    a = v.alphas_cumprod[b["timesteps"]].view(-1, 1, 1, 1)
    assert torch.allclose(losses.target(v, b["latents"], b["noise"], b["timesteps"]), a.sqrt() * b["noise"] - (1 - a).sqrt() * b["latents"], atol=1e-5)
    with pytest.raises(ValueError, match="'sample'"):
        losses.target(DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="sample"), b["latents"], b["noise"], b["timesteps"])


def test_reward_one_beta_zero_is_the_plain_loss():
    error, is_model = torch.rand(8), torch.tensor([True] * 5 + [False] * 3)
    total = losses.reward_weighted(error, torch.ones(8), is_model, beta=0.0).sum()
    assert torch.allclose(total, error[:5].mean())


def test_reward_zero_gives_no_gradient_from_the_model_half():
    error, is_model = torch.rand(8, requires_grad=True), torch.tensor([True] * 5 + [False] * 3)
    losses.reward_weighted(error, torch.zeros(8), is_model, beta=0.7).sum().backward()
    assert (error.grad[:5] == 0).all() and torch.allclose(error.grad[5:], torch.full((3,), 0.7 / 3))


def test_beta_scales_the_pretraining_half_exactly():
    error, is_model, r = torch.rand(8), torch.tensor([True] * 5 + [False] * 3), torch.rand(8)
    one, two = (losses.reward_weighted(error, r, is_model, beta) for beta in (1.0, 2.0))
    assert torch.equal(two[5:], 2 * one[5:]) and torch.equal(two[:5], one[:5])


def test_eq2_is_equation_two(pipe, schedule):
    """One step's loss equals Eq. 2 written out: same rows, noise and timesteps, drawn again from (seed, step)."""
    from rlhf_nb import train

    diffusion.sample(pipe, ["Two cats."], guidance=2.0, steps=2, seed=0)
    g = torch.Generator().manual_seed(0)
    table, rows = diffusion.encode_prompts(pipe, ["Two cats.", "A red star.", "One heart in the sea.", ""])
    model, pre = (diffusion.Encoded(torch.randn(3, 4, 8, 8, generator=g), torch.zeros(3, 4, 8, 8), table, rows[:3], r)
                  for r in (torch.tensor([1.0, 0.5, 0.0]), torch.ones(3)))
    loss_at = diffusion.eq2(pipe.scheduler, table[rows[3]], model, pre, batch=(3, 3), beta=0.3, drop=0.0, seed=5)
    loss, log = loss_at(pipe.unet, 4)
    g = train.generator(5, 4)
    torch.randn(6, 4, 8, 8, generator=g)  # posterior noise, times a deviation of zero
    noise, timesteps = torch.randn(6, 4, 8, 8, generator=g), torch.randint(1000, (6,), generator=g)
    picks = [train.rows_at(5, 4, 3, 3), train.rows_at(6, 4, 3, 3)]
    error = losses.denoising(pipe.unet, schedule, torch.cat([model.mean[picks[0]], pre.mean[picks[1]]]),
                             torch.cat([table[rows[:3][p]] for p in picks]), timesteps, noise)
    assert torch.allclose(loss, (model.reward[picks[0]] * error[:3]).mean() + 0.3 * error[3:].mean(), rtol=1e-5)
    assert torch.allclose(log["model"], error[:3].mean()) and torch.allclose(log["pre"], error[3:].mean())
    assert torch.equal(loss, loss_at(pipe.unet, 4)[0]) and not torch.equal(loss, loss_at(pipe.unet, 5)[0])


def test_reward_mse():
    assert losses.reward_mse(torch.tensor([1.0, 0.25]), torch.tensor([1.0, 1.0])).tolist() == [0.0, 0.5625]


def test_prompt_classification_identities():
    scores = torch.rand(7, 5, dtype=torch.double)
    value = losses.prompt_classification(scores, 2.0)
    shuffled = torch.cat([scores[:, :1], scores[:, 1:][:, torch.randperm(4)]], 1)
    assert torch.allclose(value, losses.prompt_classification(shuffled, 2.0))  # the order of the wrong prompts is nothing
    assert torch.equal(losses.prompt_classification(scores[:, :1]), torch.zeros(7, dtype=torch.double))  # N = 1: nothing to choose
    assert torch.allclose(losses.prompt_classification(torch.full((7, 5), 0.3)), torch.full((7,), math.log(5)))  # equal scores: blind
    by_hand = -torch.log(torch.exp(scores[:, 0] / 2) / torch.exp(scores / 2).sum(1))
    assert torch.allclose(value, by_hand)


def test_prompt_classification_gradient():
    assert torch.autograd.gradcheck(lambda s: losses.prompt_classification(s, 2.0), torch.rand(3, 4, dtype=torch.double, requires_grad=True))
