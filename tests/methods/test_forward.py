"""Identities of the methods that know the denoising error alone, offline and online."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlhf_nb import batches, diffusion, losses, methods, nets

sys.path.insert(0, str(Path(__file__).parent))
import trained  # noqa: E402

RATIOS = ("awm", "vgrpo", "dgpo")  # with a ratio of likelihoods under the policy and the old one
REWARD = (0.1, 0.9, 0.4, 0.3, 0.3, 0.3, 0.8, 0.6, 0.7)  # of three prompts, one of them without a spread


@pytest.fixture(scope="module")
def pipe(pipe):
    return trained.small(pipe)


def samples(pipe, reward=REWARD):
    """Three images of each prompt."""
    text, rows = diffusion.encode_prompts(pipe, trained.PROMPTS[:3])
    prompt = rows.repeat_interleave(3)[: len(reward)]
    mean = torch.randn(len(prompt), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    shard = {"mean": mean, "std": torch.zeros_like(mean), "text": text, "prompt": prompt}
    columns = {"reward": torch.tensor(reward), "prompt": prompt, "group": prompt + 5}
    return batches.Samples(batches.Encoded([shard]), **columns)


def given(pipe, name, reward=REWARD, apart=0.0, count=6, **knobs):
    """(module, networks, first batch, knobs) of a method; `apart`: the policy is no longer what it was."""
    method = methods.load(name)
    knobs = method.Knobs(**knobs)
    policy = trained_copy(pipe)
    made = nets.Nets(pipe, policy, method.FROZEN)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(apart * p.std(correction=0) * torch.randn_like(p))
    drawn = samples(pipe, reward)
    empty = diffusion.encode_prompts(pipe, [""])[0][0]
    options = {"total": 1000, "empty": empty, "drop": 0.3, "seed": 2, "shared": method.SHARED}
    rows = method.rows(drawn, knobs)
    return method, made, batches.Batches(drawn, rows, None, (count, 0), **options), knobs


def trained_copy(pipe):
    return nets.trainable(pipe, SimpleNamespace(lora=0, extras=()))


def first(pipe, name, **options):
    """What a method makes of its first batch: (terms, log, the policy's gradient, batch)."""
    method, made, of, knobs = given(pipe, name, **options)
    batch = of.take(0, torch.arange(6), "cpu")
    terms, log = method.loss(made, batch, knobs)
    return terms, log, gradient(terms, made.unet), batch


def gradient(terms, unet):
    return torch.cat([g.flatten() for g in torch.autograd.grad(terms.mean(), list(unet.parameters()))])


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_is_one_before_the_first_update_and_moves_after_it(pipe, name):
    knobs = {"clip": 0.1} if name == "vgrpo" else {}
    assert torch.equal(first(pipe, name, **knobs)[1]["ratio"], torch.ones(6))
    assert not torch.equal(first(pipe, name, apart=0.1, **knobs)[1]["ratio"], torch.ones(6))


def test_a_ratio_is_one_in_half_precision_too(pipe):
    method, made, of, knobs = given(pipe, "awm")
    made.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    policy = made.policy

    def half(*given):
        with made.autocast():
            return policy(*given)

    made.policy = half
    ratio = method.loss(made, of.take(0, torch.arange(6), "cpu"), knobs)[1]["ratio"]
    assert torch.equal(ratio, torch.ones(6))


@pytest.mark.parametrize("name", ["awm", "vgrpo"])
def test_minus_the_advantage_is_minus_the_loss_and_its_gradient(pipe, name):
    method, made, of, knobs = given(pipe, name)
    batch = of.take(0, torch.arange(6), "cpu")
    there = method.loss(made, batch, knobs)[0]
    batch.advantage = -batch.advantage
    back = method.loss(made, batch, knobs)[0]
    assert batch.advantage.any() and torch.equal(there, -back)
    assert torch.allclose(gradient(there, made.unet), -gradient(back, made.unet), atol=1e-6)


@pytest.mark.parametrize("name", [*RATIOS, "nft"])
def test_groups_without_spread_are_left_out_and_give_no_gradient(pipe, name):
    module, drawn = methods.load(name), samples(pipe)
    rows = module.rows(drawn, module.Knobs(pairs=1))
    assert sorted(rows["row"].tolist()) == [0, 1, 2, 6, 7, 8]
    assert not first(pipe, name, reward=(0.3,) * 9)[2].any()


def test_advantages_of_a_group_sum_to_nothing_and_shapings_bend_them(pipe):
    drawn = samples(pipe)
    for name in ("dgpo", "vgrpo"):
        module = methods.load(name)
        options = {"shaping": "none"} if name == "vgrpo" else {}
        rows = module.rows(drawn, module.Knobs(pairs=3, **options))
        sums = torch.zeros(99).index_add_(0, rows["group"], rows["advantage"])
        assert torch.allclose(sums, torch.zeros(99), atol=1e-5) and len(rows["group"].unique()) == 6
    of = {
        kind: module.rows(drawn, module.Knobs(shaping=kind))["advantage"] for kind in ("none", "tanh", "slas")
    }
    order = of["none"].argsort()
    assert (of["tanh"].abs() <= of["none"].abs()).all() and torch.equal(of["tanh"].argsort(), order)
    assert torch.equal(of["slas"].argsort(), order)
    spread = {kind: value.abs().max() / value.abs().min() for kind, value in of.items()}
    assert spread["tanh"] < spread["none"] < spread["slas"]


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_gradient_of_nft_is_matching_by_advantage_and_a_pull_to_the_old_policy(pipe, beta):
    """Of the unnormalised loss by the prediction: 10 / D ((2 r - 1) (old - u) + beta (policy - old))."""
    knobs = {"form": "plain", "beta_nft": beta, "kl": 0.0}
    method, made, of, knobs = given(pipe, "nft", apart=0.1, **knobs)
    batch = of.take(0, torch.arange(6), "cpu")
    noised = losses.Noised(made, batch)
    policy, old = noised.predicted("policy").detach().requires_grad_(), noised.predicted("old")
    made.policy = lambda *_: policy
    found = torch.autograd.grad(method.loss(made, batch, knobs)[0].sum(), policy)[0]
    sign = (2 * batch.good - 1).view(-1, 1, 1, 1)
    expected = 10 / 256 * (sign * (old - noised.target) + beta * (policy - old))
    assert torch.allclose(found, expected, atol=1e-5)


def test_methods_share_one_direction_at_a_rounds_first_step(pipe):
    """In one form of the error, on one batch: NFT's gradient is V-GRPO's, DGPO's half of it."""
    terms, _, vgrpo, batch = first(pipe, "vgrpo", form="plain", shaping="none")
    batch.good = 0.5 + batch.advantage / 10
    for name, factor, knobs in (
        ("awm", 1, {"form": "plain"}),
        ("nft", 1, {"form": "plain"}),
        ("dgpo", 0.5, {}),
    ):
        method, made, _, knobs = given(pipe, name, **knobs)
        found = gradient(method.loss(made, batch, knobs)[0], made.unet)
        assert torch.allclose(found, factor * vgrpo, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("name", ["awm", "vgrpo", "dgpo", "nft"])
def test_the_pull_to_the_reference_has_a_gradient(pipe, name):
    """Where rewards say nothing it is all there is."""
    options = {"reward": (0.3,) * 9, "apart": 0.1}
    options |= {} if name in ("dgpo", "nft") else {"pull": 0.0}
    without, pulled = (first(pipe, name, kl=kl, **options) for kl in (0.0, 0.5))
    log = pulled[1]["reference"]
    assert log.min() > 0 and torch.allclose(pulled[0] - without[0], 0.5 * log, atol=1e-5)
    assert (pulled[2] - without[2]).norm() > 1e-3


@pytest.mark.parametrize("name", ["awm", "dgpo", "nft", "dpo", "kto", "tgo"])
def test_all_networks_see_the_same_noisy_latents(pipe, name):
    method, made, of, knobs = given(pipe, name, **({"of": 3} if name == "kto" else {}))
    seen = []
    for who in ("policy", *method.FROZEN):
        ask = getattr(made, who)
        setattr(made, who, lambda *given, ask=ask: seen.append(given) or ask(*given))
    batch = of.take(0, torch.arange(6), "cpu")
    method.loss(made, batch, knobs)
    assert len(seen) == 1 + len(method.FROZEN)
    assert all(a is b for other in seen for a, b in zip(seen[0], other, strict=True))
    if method.SHARED:
        pairs = batch.timesteps.view(-1, batch.unit), batch.noise.flatten(1).view(-1, batch.unit, 256)
        assert all((value == value[:, :1]).all() for value in pairs)
        assert torch.equal(
            batch.text.view(-1, batch.unit, *batch.text.shape[1:])[:, 0], batch.text[:: batch.unit]
        )


@pytest.mark.parametrize("name", ["awm", "vgrpo", "dgpo", "nft"])
def test_the_old_policy_follows_with_a_lag_that_rises_to_its_most(pipe, name):
    method, made, _, _ = given(pipe, name, apart=0.5)
    (own, old), *_ = made.pairs
    before = old.clone()
    method.after(made, method.Knobs(lag=0.3, rise=0.1), 2)
    assert torch.allclose(old, 0.2 * before + 0.8 * own)
    method.after(made, method.Knobs(lag=0.0), 2)
    assert torch.equal(old, own)


def test_dgpo_lets_go_of_what_has_left_its_trust_region(pipe):
    """A hair's clip cuts just the images that moved the way that their advantage asks for."""
    method, made, of, _ = given(pipe, "dgpo", apart=0.05)
    batch = of.take(0, torch.arange(6), "cpu")
    terms, log = method.loss(made, batch, method.Knobs(clip=1e-9, kl=0.0))
    gone = ((log["ratio"] - 1) * batch.advantage > 0) & (log["ratio"] - 1).abs().gt(1e-8)
    assert 0 < gone.sum() < 6 and torch.equal(terms == 0, gone)


def test_preferences_begin_at_a_coin_toss(pipe):
    assert torch.allclose(first(pipe, "dpo")[0], torch.full((6,), 2.0).log())
    assert torch.allclose(first(pipe, "kto", of=3)[0], torch.full((6,), 0.5))
    terms, _, _, batch = first(pipe, "tgo", confidence=2.0)
    assert torch.allclose(terms, torch.tensor(2.0).log() * (1 + 2 * batch.above.abs()))


def test_dpo_pairs_images_of_one_prompt_and_prefers_the_better(pipe):
    module, drawn = methods.load("dpo"), samples(pipe)
    for share, count in ((1.0, 6), (0.5, 3)):
        rows = module.rows(drawn, module.Knobs(clearest=share))
        better, worse = rows["row"].view(-1, 2).T
        assert len(better) == count and torch.equal(drawn.prompt[better], drawn.prompt[worse])
        gap = drawn.reward[better] - drawn.reward[worse]
        assert gap.min() > (0 if share == 1 else 0.25)
    method, made, of, knobs = given(pipe, "dpo")
    batch = of.take(0, torch.arange(6), "cpu")
    there = gradient(method.loss(made, batch, knobs)[0], made.unet)
    for name in ("latents", "text", "noise", "timesteps"):
        value = getattr(batch, name)
        setattr(batch, name, value.view(3, 2, *value.shape[1:]).flip(1).flatten(0, 1))
    assert torch.allclose(
        there, -gradient(method.loss(made, batch, knobs)[0], made.unet), rtol=1e-2, atol=1e-4
    )


def test_kto_compares_with_the_mean_of_the_images_beside(pipe):
    method, made, of, knobs = given(pipe, "kto", of=3, apart=0.1, beta_kto=20.0, bad=0.5)
    batch = of.take(0, torch.arange(6), "cpu")
    noised = losses.Noised(made, batch)
    policy, reference = (noised.error(noised.predicted(who)) for who in ("policy", "reference"))
    for at in (slice(0, 3), slice(3, 6)):
        gained, good = (reference - policy)[at], batch.reward[at] >= 0.5
        logit = torch.where(good, 20, -20) * (gained - gained.mean().clamp(min=0))
        expected = (1 - logit.sigmoid()) * torch.where(good, 1, 0.5)
        assert torch.allclose(method.loss(made, batch, knobs)[0][at], expected, atol=1e-5)


def test_tgo_has_the_median_as_threshold_of_all_or_of_a_prompt(pipe):
    module, drawn = methods.load("tgo"), samples(pipe)
    for each, expected in ((False, [0.4] * 9), (True, [0.4] * 3 + [0.3] * 3 + [0.7] * 3)):
        rows = module.rows(drawn, module.Knobs(per_prompt=each))
        found = (drawn.reward[rows["row"]] - rows["above"])[rows["row"].argsort()]
        assert torch.allclose(found, torch.tensor(expected))


def test_best_only_keeps_the_best_of_each_prompt(pipe):
    module, drawn = methods.load("best_only"), samples(pipe)
    assert sorted(module.rows(drawn, module.Knobs())["row"].tolist()) == [1, 3, 6]  # of equal ones the first
    assert sorted(module.rows(drawn, module.Knobs(best=2))["row"].tolist()) == [1, 2, 3, 4, 6, 8]


def test_a_label_moves_the_first_token_and_guides_the_drawing(pipe):
    module = methods.load("conditioned")
    knobs = module.Knobs(w=0.0)
    text, _ = diffusion.encode_prompts(pipe, trained.PROMPTS)
    assert torch.equal(text[0, 0], text[1, 0])  # it says nothing of the prompt
    good, bad = (module.labelled(text, side, knobs) for side in (1, -1))
    assert torch.equal(module.labelled(text, 0, knobs), text) and torch.equal(good[:, 1:], text[:, 1:])
    assert torch.allclose(good + bad, 2 * text, atol=1e-5) and not torch.equal(good, bad)
    sides = {int(side) for side in given(pipe, "conditioned")[2].rows["side"]}
    assert sides == {-1, 0, 1}
    options = {"unet": pipe.unet, "guidance": 2.0, "steps": 2, "seed": 4}
    plain = diffusion.sample(pipe, trained.PROMPTS, **options)
    assert (module.draw(pipe, trained.PROMPTS, knobs, **options) == plain).all()
    assert not (module.draw(pipe, trained.PROMPTS, module.Knobs(w=3.0), **options) == plain).all()
    assert (diffusion.sample(pipe, trained.PROMPTS, **options) == plain).all()  # nothing stays behind
