"""Identities of every objective."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlhf_nb import diffusion, judge, losses, pretrain, reward, train


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


def test_velocity_flow_and_unknown_targets(pipe):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    b = batch(pipe)
    latents, noise, t = b["latents"], b["noise"], b["timesteps"]
    v = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    a = v.alphas_cumprod[t].view(-1, 1, 1, 1)
    assert torch.allclose(losses.diffused(v, latents, noise, t)[1], a.sqrt() * noise - (1 - a).sqrt() * latents, atol=1e-5)
    flow = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    noisy, target, time, _ = losses.diffused(flow, latents, noise, t)
    there = theirs.timesteps.flip(0)[t]  # sigma_t T
    assert torch.allclose(time, there, rtol=1e-4)
    assert torch.allclose(noisy, torch.cat([theirs.scale_noise(latents[[i]], there[[i]], noise[[i]]) for i in range(len(t))]), atol=1e-4)
    assert torch.equal(target, noise - latents)
    with pytest.raises(ValueError, match="'sample'"):
        losses.diffused(DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="sample"), latents, noise, t)


def test_min_snr_weighs_as_diffusers_example_does(pipe, schedule):
    from diffusers.training_utils import compute_snr

    b = batch(pipe)
    snr = compute_snr(schedule, b["timesteps"])
    plain, weighed = (losses.denoising(pipe.unet, schedule, **b, min_snr=g) for g in (0.0, 5.0))
    assert torch.allclose(weighed, plain * torch.stack([snr, torch.full_like(snr, 5.0)], 1).min(1)[0] / snr, rtol=1e-4)


@pytest.mark.parametrize("kind", losses.PREDICTIONS)
def test_min_snr_weighs_the_error_of_the_clean_latents(pipe, kind):
    """min(SNR, gamma) |x_hat - x|^2, whatever the U-Net predicts."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    b, g = batch(pipe), torch.Generator().manual_seed(1)
    predicted = torch.randn(b["latents"].shape, generator=g)
    flow = kind == "flow_prediction"
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type=kind) if flow else DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type=kind)
    noisy, _, time, snr = losses.diffused(scheduler, b["latents"], b["noise"], b["timesteps"])
    a, sigma = (v.view(-1, 1, 1, 1) for v in (scheduler.alphas_cumprod[b["timesteps"]], time / 1000))
    clean = {"epsilon": (noisy - (1 - a).sqrt() * predicted) / a.sqrt(), "v_prediction": a.sqrt() * noisy - (1 - a).sqrt() * predicted,
             "flow_prediction": noisy - sigma * predicted}[kind]
    weighed = losses.denoising(lambda *_: SimpleNamespace(sample=predicted), scheduler, **b, min_snr=5.0)
    assert torch.allclose(weighed, snr.clamp(max=5.0) * (clean - b["latents"]).square().mean((1, 2, 3)), rtol=1e-3)


def test_reward_one_beta_zero_is_the_plain_loss():
    error, is_model = torch.rand(8), torch.tensor([True] * 5 + [False] * 3)
    assert torch.allclose(losses.eq2(torch.ones(8), is_model, beta=0.0) @ error, error[:5].mean())


def test_reward_zero_gives_no_gradient_from_the_model_half():
    error, is_model = torch.rand(8, requires_grad=True), torch.tensor([True] * 5 + [False] * 3)
    (losses.eq2(torch.zeros(8), is_model, beta=0.7) @ error).backward()
    assert (error.grad[:5] == 0).all() and torch.allclose(error.grad[5:], torch.full((3,), 0.7 / 3))


def test_beta_scales_the_pretraining_half_exactly():
    is_model, r = torch.tensor([True] * 5 + [False] * 3), torch.rand(8)
    one, two = (losses.eq2(r, is_model, beta) for beta in (1.0, 2.0))
    assert torch.equal(two[5:], 2 * one[5:]) and torch.equal(two[:5], one[:5])


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


def by_hand(logits, target):
    return -(target * logits.log_softmax(1)).sum(1).mean()


def test_the_autoencoder_pays_for_its_latents_alone_where_it_returns_the_picture():
    class Perfect:
        device = torch.device("cpu")

        def encode(self, x):
            self.x, latents = x, SimpleNamespace(mean=torch.zeros(len(x), 4, 8, 8), std=torch.ones(()), kl=lambda: torch.full((len(x),), 512.0))
            return SimpleNamespace(latent_dist=latents)

        def decode(self, latents):
            return SimpleNamespace(sample=self.x + self.off)

    model, images = Perfect(), np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3)).astype(np.uint8)
    for model.off in (0.0, 0.5):  # an even error has no edges
        loss, log = pretrain.autoencoder_loss(images, 2, 0)(model, 0)
        assert float(loss) == pytest.approx(model.off + model.off**2 + 5e-4 * 2, rel=1e-3) and float(log["kl"]) == pytest.approx(2.0)


@pytest.mark.parametrize("captions, target", [([[1], [2]], torch.eye(2)), ([[1], [1]], torch.full((2, 2), 0.5))])
def test_equal_captions_are_no_negatives(captions, target):
    logits, images = torch.tensor([[2.0, -1.0], [0.5, 1.0]]), np.zeros((2, 64, 64, 3), np.uint8)
    model = type("Clip", (), {"device": torch.device("cpu"), "__call__": lambda *_, **__: SimpleNamespace(logits_per_image=logits)})()
    loss, _ = pretrain.clip_loss(images, torch.tensor(captions), 2, 0)(model, 0)
    assert torch.allclose(loss, (by_hand(logits, target) + by_hand(logits.T, target)) / 2)


def test_near_misses_are_negatives_of_the_image_alone():
    image, text, miss = torch.eye(4)[:2], torch.eye(4)[:2], torch.eye(4)[2:, None].expand(2, 3, 4)
    model = SimpleNamespace(device=torch.device("cpu"), visual_projection=lambda _: image, vision_model=lambda _: SimpleNamespace(pooler_output=None),
                            text_projection=lambda x: x, logit_scale=torch.tensor(2.0))
    loss, log = pretrain.hard_clip_loss(np.zeros((2, 64, 64, 3), np.uint8), text, miss, 2, seed_in_order())(model, 0)
    s = math.exp(2.0)
    alone, among = math.log(1 + math.exp(-s)), math.log(1 + 4 * math.exp(-s))
    assert float(loss) == pytest.approx((alone + among) / 2, rel=1e-4) and log["near"] == 1


def seed_in_order():
    """A seed under which the first two rows of two come in their order."""
    return next(s for s in range(99) if train.rows_at(s, 0, 2, 2).tolist() == [0, 1])


def test_the_judge_answers_every_attribute():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.ParameterDict({a: torch.nn.Parameter(torch.randn(len(c))) for a, c in judge.CLASSES.items()})

        def forward(self, x):
            return {a: v.expand(len(x), -1) for a, v in self.logits.items()}

    torch.manual_seed(0)
    model = Constant()
    loss, terms = judge.loss(np.zeros((3, 64, 64, 3), np.uint8), {a: np.zeros(3, int) for a in judge.CLASSES}, 3, 0)(model, 0)
    smooth = {a: torch.full((1, len(c)), 0.02 / len(c)) + 0.98 * torch.eye(len(c))[:1] for a, c in judge.CLASSES.items()}
    assert all(torch.allclose(terms[a], by_hand(model.logits[a][None], smooth[a]), atol=1e-4) for a in judge.CLASSES)
    assert torch.allclose(loss, sum(terms.values()))


def test_the_reward_pays_for_every_label_and_for_the_sentences_of_good_images():
    class Dot(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.3))

        def forward(self, image, texts):
            return self.scale * torch.einsum("bd,bnd->bn", image, texts)

    g = torch.Generator().manual_seed(0)
    image, texts, candidates = torch.randn(4, 8, generator=g), torch.randn(5, 8, generator=g), torch.tensor([[0, 1, 2], [1, 3, 4], [2, 0, 4], [3, 1, 0]])
    labels, model = torch.tensor([1.0, 0.0, 1.0, 0.0]), Dot()
    loss, _ = reward.reward_loss(image, texts, candidates, labels, lam=0.5, temperature=2.0, batch=4, seed=0)(model, 0)
    scores = model(image, texts[candidates])
    mse, pc = (scores[:, 0] - labels).square().mean(), -(scores[labels > 0.5] / 2.0).log_softmax(1)[:, 0].mean()
    assert torch.allclose(loss, mse + 0.5 * pc, atol=1e-6)
