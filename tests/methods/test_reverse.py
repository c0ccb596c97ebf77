"""What trains the sampler's steps, DDPO, DPOK and a GRPO, and DRaFT, which follows the reward's gradient
through the last one.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from rlhf_nb import config, diffusion, losses, methods, nets, objective, reward, rollout, seeds, train

sys.path.insert(0, str(Path(__file__).parent))
import trained  # noqa: E402

RATIOS = [
    ("ddpo", {}),
    ("ddpo", {"estimator": "SF"}),
    ("dpok", {}),
    ("dpok", {"form": "step"}),
    ("grpo", {}),
    ("grpo", {"guarded": False, "kl": 0.04}),
    ("grpo", {"window": 1}),
]


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture
def at_first(pipe, clip, tmp_path):
    """(objective, its U-Net, the first batch) of a method with some knobs, before any update."""

    def of(method, knobs, **given):
        chosen = trained.settings(method, knobs=knobs, **given)
        unet = nets.trainable(pipe, chosen)
        made = objective.Objective(
            chosen, pipe, unet, trained.material(pipe), Accelerator(cpu=True), trained.head(clip), tmp_path
        )
        batch = made.at(0).take(0, torch.arange(chosen.model_batch), "cpu")
        made.nets.policy = diffusion.predictor(unet)
        return made, unet, batch

    return of


def gradient(unet, terms):
    return torch.cat([g.flatten() for g in torch.autograd.grad(terms.sum(), list(unet.parameters()))])


@pytest.mark.parametrize("method, knobs", RATIOS)
def test_the_ratio_is_one_at_first_and_the_loss_is_odd_in_the_advantage(at_first, method, knobs):
    made, unet, batch = at_first(method, knobs)
    terms, log = made.method.loss(made.nets, batch, made.knobs)
    assert torch.equal(log["ratio"], torch.ones(6)) and not log.get("kl", torch.zeros(1)).any()
    assert batch.advantage.any()
    batch.advantage = -batch.advantage
    turned, _ = made.method.loss(made.nets, batch, made.knobs)
    assert torch.equal(turned, -terms)
    one, other = gradient(unet, terms), gradient(unet, turned)
    assert one.any() and torch.allclose(one, -other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method, knobs, lora", [("dpok", {}, 0), ("grpo", {"window": 1, "stay": 1}, 2)])
def test_the_ratio_is_one_before_the_first_update_of_a_round(
    pipe, clip, tmp_path, monkeypatch, method, knobs, lora
):
    seen, loss = [], methods.load(method).loss

    def watched(*given):
        terms, log = loss(*given)
        seen.append(log["ratio"].detach())
        return terms, log

    monkeypatch.setattr(methods.load(method), "loss", watched)
    chosen = trained.settings(method, knobs=knobs, lora=lora)
    for _ in trained.rows(pipe, clip, nets.trainable(pipe, chosen), chosen, tmp_path):
        pass
    for first, second in (seen[:2], seen[2:]):
        assert torch.equal(first, torch.ones(6)) and not torch.equal(second, torch.ones(6))


def test_both_estimators_have_one_gradient_at_first(at_first):
    made, unet, batch = at_first("ddpo", {})
    found = [
        gradient(unet, made.method.loss(made.nets, batch, made.method.Knobs(estimator=name))[0])
        for name in ("SF", "IS")
    ]
    assert torch.allclose(*found, rtol=1e-3, atol=1e-6)


def moved(pipe, by):
    """Nets whose policy predicts `by` more than what was recorded, at steps of a sampler of noise 0.7."""
    forward = diffusion.forward_process(pipe.scheduler)
    etas, indices = rollout.even(0.7, 4), [0, 1, 2]
    way = rollout.recorded(pipe, pipe.unet, trained.PROMPTS[:3], etas=etas, seed=5, indices=indices)
    step = torch.tensor([0, 1, 2])
    predicted = way["predicted"][torch.arange(3), step]
    batch = SimpleNamespace(**way, step=step, text=None, advantage=torch.ones(3))
    made = SimpleNamespace(
        scheduler=forward, policy=lambda *_: predicted + by, reference=lambda *_: predicted
    )
    return made, batch


def test_the_guarded_ratio_is_the_published_one_with_the_noise_that_was_drawn(pipe):
    """exp((L - L_old + mean (m - m_old)^2 / 2 s^2) s) to the power of 1 / |dm / d eps|; its logarithm's
    gradient is the noise.
    """
    by = (0.02 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    made, batch = moved(pipe, by)
    grpo, ddpo = methods.load("grpo"), methods.load("ddpo")
    ratio = grpo.loss(made, batch, grpo.Knobs())[1]["ratio"]
    _, mean, s, given = ddpo.again(made, batch)
    predicted = batch.predicted[given.at]
    former, _ = losses.reverse_step(made.scheduler, predicted, *given.place)
    slope = losses.reverse_step(made.scheduler, torch.ones(3, 4, 8, 8), 0 * former, *given.place[1:])[0]
    assert (slope < 0).all()
    gap = losses.log_prob(given.x_next, mean, s) - losses.log_prob(given.x_next, former, s)
    gap = gap + losses.gap(mean / s, former / s) / 2
    expected = (gap * s.flatten() / slope[:, 0, 0, 0].abs()).exp()
    assert torch.allclose(ratio, expected, atol=1e-4)
    [slopes] = torch.autograd.grad(ratio.log().sum(), by)
    noise = [torch.randn(4, 8, 8, generator=seeds.generator(6, i, i)) for i in range(3)]
    assert torch.allclose(-256 * slopes, torch.stack(noise), atol=1e-2)


def test_the_divergence_of_steps_is_that_of_predictions_in_the_steps_units(pipe):
    by = (0.1 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    made, batch = moved(pipe, by)
    dpok, given = methods.load("dpok"), methods.load("ddpo").again(made, batch)
    prediction, step = (dpok.divergence(made, *given, None, form) for form in ("prediction", "step"))
    place = torch.zeros(3, 4, 8, 8), *given[3].place[1:]
    slope = losses.reverse_step(made.scheduler, torch.ones(3, 4, 8, 8), *place)[0]
    units = (slope / given[2])[:, 0, 0, 0].square() / 2
    assert torch.allclose(step, units * prediction, rtol=1e-3)
    assert torch.autograd.grad(prediction.sum(), by)[0].any()


def test_the_clip_of_dpok_holds_moves_for_the_better_too(pipe):
    """DDPO's does not: there a ratio that went the wrong way keeps its gradient."""
    found = {}
    for name in ("ddpo", "dpok"):
        by = (0.5 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))).requires_grad_()
        made, batch = moved(pipe, by)
        method = methods.load(name)
        knobs = method.Knobs(**({"kl": 0.0} if name == "dpok" else {}))
        for sign in (1, -1):
            batch.advantage = torch.full((3,), float(sign))
            terms, log = method.loss(made, batch, knobs)
            assert ((log["ratio"] - 1).abs() > knobs.clip).all()
            found[name, sign] = torch.autograd.grad(terms.sum(), by)[0].flatten(1).any(1)
    assert not found["dpok", 1].any() and not found["dpok", -1].any()
    assert torch.equal(found["ddpo", 1], ~found["ddpo", -1])


def samples_of(rewards, etas):
    """Groups of the given rewards, [[r, ...], ...], with that noise at the steps."""
    found = torch.tensor(rewards)
    group = torch.arange(len(found)).repeat_interleave(found.shape[1])
    return SimpleNamespace(reward=found.flatten(), group=group, etas=torch.tensor([etas] * found.numel()))


@pytest.mark.parametrize("method", ["ddpo", "dpok", "grpo"])
def test_groups_without_spread_are_left_out(method):
    module = methods.load(method)
    rows = module.rows(samples_of([[0.1, 0.1], [0.2, 0.4], [0.7, 0.7]], [0.7, 0.0, 0.7, 0.0]), module.Knobs())
    assert rows["row"].tolist() == [2, 2, 3, 3] and rows["step"].tolist() == [0, 2, 0, 2]
    assert torch.equal(rows["advantage"][:2], -rows["advantage"][2:])
    rows = module.rows(samples_of([[0.1] * 3, [0.3] * 3], [1.0, 0.0]), module.Knobs())
    assert len(rows["row"]) == 6 and not rows["advantage"].any()  # a third of a sum is not a third exactly


def test_a_round_without_spread_moves_nothing_and_its_share_is_logged(pipe, clip, tmp_path):
    chosen = trained.settings("ddpo", updates=1, rounds={"count": 1, "prompts": 2, "images": 3, "steps": 3})
    unet, score = nets.trainable(pipe, chosen), trained.head(clip)
    score.of_features = lambda image, text: 0 * image[:, 0].numpy() + 0.3
    made = objective.Objective(
        chosen, pipe, unet, trained.material(pipe), Accelerator(cpu=True), score, tmp_path
    )
    plan = train.Plan(steps=1, lr=1e-3, log_every=1, save_every=1, weight_decay=0.0)
    [row] = train.loop(unet, made.micro_batches(), plan, summed=True)
    assert row["round_flat"] == 1 and row["round_reward"] == pytest.approx(0.3) and row["gradient"] == 0
    assert all(torch.equal(p, q) for p, q in zip(unet.parameters(), pipe.unet.parameters(), strict=True))


def test_the_window_moves_on_and_keeps_off_the_last_step():
    grpo = methods.load("grpo")
    knobs = grpo.Knobs(window=2, stay=3, eta=0.5)
    starts = [
        [k for k, eta in enumerate(grpo.etas(knobs, number, 5)) if eta == 0.5][0] for number in range(12)
    ]
    assert starts == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert all(sorted(grpo.etas(knobs, number, 5)) == [0, 0, 0, 0.5, 0.5] for number in range(12))
    for window in (0, 4, 9):  # all steps but the last
        assert grpo.etas(grpo.Knobs(window=window), 7, 4) == [0.7, 0.7, 0.7, 0.0]
    assert grpo.etas(grpo.Knobs(), 0, 1) == [0.0]


def test_outside_the_window_the_sampler_draws_no_noise(pipe):
    options = {"etas": [0.0, 0.7, 0.0, 0.0], "seed": 1, "indices": [0, 1]}
    one = rollout.recorded(pipe, pipe.unet, trained.PROMPTS[:2], **options)
    assert (one["log_probs"] != 0).tolist() == [[False, True, False, False]] * 2
    forward = diffusion.forward_process(pipe.scheduler)
    for k in (0, 2, 3):
        time, then = one["times"][:, k], one["times"][:, k + 1]
        mean, _ = losses.reverse_step(forward, one["predicted"][:, k], one["states"][:, k], time, then, 0.0)
        assert torch.allclose(mean, one["states"][:, k + 1], atol=1e-6)
    assert one["times"][0].tolist() == [999, 749, 499, 249, -1]


def test_guidance_mixes_the_two_predictions(pipe):
    table, rows = diffusion.encode_prompts(pipe, [*trained.PROMPTS[:2], ""])
    predict, g = diffusion.predictor(pipe.unet), torch.Generator().manual_seed(0)
    x_t, t, text = torch.randn(2, 4, 8, 8, generator=g), torch.tensor([500, 20]), table[rows[:2]]
    empty = table[rows[2]]
    without, given = predict(x_t, t, empty.expand_as(text)), predict(x_t, t, text)
    found = rollout.guided(predict, empty, 3.0)(x_t, t, text)
    assert torch.allclose(found, 3 * given - 2 * without, atol=1e-4)
    assert rollout.guided(predict, empty, 1.0) is predict


def test_draft_first_sees_the_very_pictures_that_were_drawn(at_first):
    made, unet, batch = at_first("draft", {"kl": 0.1, "eta": 1.0})
    seen, decoder = [], made.nets.decoder
    made.nets.decoder = lambda latents: seen.append(latents.detach()) or decoder(latents)
    terms, log = made.method.loss(made.nets, batch, made.knobs)
    assert torch.equal(seen[0], batch.latents) and not log["kl"].any()
    assert torch.allclose(log["reward"], batch.reward, atol=5e-3)  # pictures have 256 levels
    assert torch.equal(terms, -log["reward"]) and gradient(unet, terms).any()


def test_a_logit_is_steeper_where_the_reward_nears_one(pipe):
    by = torch.zeros(2, 4, 8, 8, requires_grad=True)
    states, times = torch.randn(2, 3, 4, 8, 8), torch.tensor([[999, 499, -1]] * 2)
    made = SimpleNamespace(
        scheduler=diffusion.forward_process(pipe.scheduler),
        policy=lambda *_: by,
        decoder=lambda latents: latents,
        reward=lambda images, _: (4 + images.mean((1, 2, 3))).sigmoid(),
    )
    batch, draft = SimpleNamespace(states=states, times=times, text=None, prompt=None), methods.load("draft")
    steep, flat = (draft.loss(made, batch, draft.Knobs(utility=name)) for name in ("logit", "reward"))
    score = flat[1]["reward"]
    assert (score > 0.9).all()
    one, other = (torch.autograd.grad(terms.sum(), by)[0] for terms, _ in (steep, flat))
    assert torch.allclose(other, one * (score * (1 - score)).detach()[:, None, None, None], rtol=1e-3)


def test_a_divergence_holds_draft_back_from_the_reference(pipe):
    noisy = torch.zeros(2, 4, 8, 8, requires_grad=True)
    made = SimpleNamespace(
        scheduler=diffusion.forward_process(pipe.scheduler),
        policy=lambda *_: noisy + 1,
        reference=lambda *_: torch.zeros(2, 4, 8, 8),
        decoder=lambda latents: latents,
        reward=lambda images, _: 0 * images.mean((1, 2, 3)),
    )
    given = {name: torch.randn(2, 4, 8, 8) for name in ("latents", "noise")}
    batch = SimpleNamespace(
        states=torch.randn(2, 3, 4, 8, 8),
        times=torch.tensor([[999, 499, -1]] * 2),
        timesteps=torch.tensor([3, 900]),
        text=None,
        prompt=None,
        **given,
    )
    terms, log = methods.load("draft").loss(made, batch, methods.load("draft").Knobs(kl=0.5))
    assert torch.allclose(log["kl"], torch.ones(2)) and torch.allclose(terms, torch.full((2,), 0.5))
    assert torch.autograd.grad(terms.sum(), noisy)[0].min() > 0


def test_a_flow_matching_model_has_no_steps_to_train(pipe):
    flow = SimpleNamespace(
        scheduler=SimpleNamespace(config=SimpleNamespace(prediction_type="flow_prediction"))
    )
    chosen = trained.settings("ddpo")
    with pytest.raises(config.ConfigError, match="'ddpo' trains steps of DDIM, .* choose another of either"):
        objective.Objective(chosen, flow, None, trained.material(pipe), Accelerator(cpu=True))


def test_guidance_in_the_drawing_alone_is_refused(at_first):
    rounds = {"count": 2, "prompts": 2, "images": 3, "steps": 3, "guidance": 2.0}
    with pytest.raises(config.ConfigError, match="draws without guidance, as it trains"):
        at_first("grpo", {}, rounds=rounds)


def test_one_step_has_nothing_to_train(at_first):
    rounds = {"count": 2, "prompts": 2, "images": 3, "steps": 1}
    with pytest.raises(train.NotFinite, match="nothing to train on: .* more steps"):
        at_first("ddpo", {}, rounds=rounds)
