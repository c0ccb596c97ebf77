"""Eq. 2 on the trainer: the objective, its independence of processes, micro-batches and interruptions,
guards.
"""

import itertools

import equation
import pytest
import torch

from rlhf_nb import batches, checkpoints, config, diffusion, losses, nets, seeds, train

PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]
REWARD = torch.tensor([1.0, 0.5, 0.0, 0.2, 0.7])


def encoded(pipe, n, seed=0):
    """Random latents without deviation, under four prompts."""
    text, rows = diffusion.encode_prompts(pipe, (PROMPTS * n)[:n])
    mean = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return batches.Encoded([{"mean": mean, "std": torch.zeros_like(mean), "text": text, "prompt": rows}])


def eq2(pipe, unet=None, batch=(3, 3), reward=REWARD, beta=0.3, rows_by="uniform", power=1.0, **given):
    """Eq. 2's objective over five images of the model and seven pre-training pairs."""
    knobs = {"beta": beta, "power": power, "rows_by": rows_by}
    options = {"unet": unet, "reward": reward, "batch": batch, "knobs": knobs}
    return equation.eq2(pipe, encoded(pipe, 5), encoded(pipe, 7, 1), **options, **({"seed": 5} | given))


def tuned(pipe, steps=4, ema=0.0, folder=None, stop=None, **given):
    """(U-Net, log rows) of a short training, stopped after `stop` rows or at its end."""
    unet = nets.trainable(
        pipe, config.settings("align", lora=given.get("lora", 0), extras=given.get("extras", ()))
    )
    made = eq2(pipe, unet, **given)
    plan = train.Plan(steps=steps, lr=1e-3, log_every=1, save_every=1, ema=ema)
    options = {"folder": folder, "engine": made.engine, "summed": True, "blame": made.blame}
    return unet, list(itertools.islice(train.loop(unet, made.micro_batches(), plan, **options), stop))


def same(a, b, **tolerance):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.allclose(p, q, **tolerance) if tolerance else torch.equal(p, q) for p, q in pairs)


def test_one_step_is_equation_two(pipe):
    """A step's loss against Eq. 2 written out with the error that diffusers' own training example uses."""
    from diffusers import DDPMScheduler

    diffusion.sample(
        pipe, PROMPTS[:1], guidance=2.0, steps=2, seed=0
    )  # must not change the training schedule
    made = eq2(pipe)
    plan, schedule, errors = made.batches.plan(4), DDPMScheduler.from_config(pipe.scheduler.config), []
    for i, row in enumerate(plan["row"]):
        source = made.batches.pre if i >= 3 else made.batches.samples.encoded
        mean, _, text = source.take(row[None])
        noise = torch.randn(2, 4, 8, 8, generator=seeds.generator(5, 4, i))[1:]
        t = plan["timesteps"][i : i + 1]
        noise_pred = pipe.unet(schedule.add_noise(mean, noise, t), t, text).sample
        errors.append(torch.nn.functional.mse_loss(noise_pred, noise))
    errors = torch.stack(errors)
    loss, log = made.loss_at(pipe.unet, 4)
    weighed = (REWARD[plan["row"][:3]] * errors[:3]).mean()
    assert torch.allclose(loss, weighed + 0.3 * errors[3:].mean(), rtol=1e-5)
    assert torch.allclose(log["model_error"], errors[:3].mean(), rtol=1e-5)
    assert torch.allclose(log["pre_error"], errors[3:].mean(), rtol=1e-5)
    plain = eq2(pipe, reward=torch.ones(5), beta=0.0).loss_at(pipe.unet, 4)[0]
    assert torch.allclose(plain, errors[:3].mean(), rtol=1e-5)  # reward one, beta zero: the plain loss
    assert torch.equal(loss, made.loss_at(pipe.unet, 4)[0])
    assert not torch.equal(loss, made.loss_at(pipe.unet, 5)[0])


def test_reward_zero_gives_no_gradient_from_the_model_half(pipe):
    """A bad picture is ignored: without a pre-training term a batch of them moves nothing."""
    unet = nets.trainable(pipe, config.settings("align"))
    made = eq2(pipe, unet, batch=(5, 0), reward=torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]))
    batch = made.batches.take(0, torch.arange(5), "cpu")
    terms, _, _ = made.terms(unet, 0, torch.arange(5))
    terms[batch.row != 4].sum().backward()
    assert not any(p.grad.any() for p in unet.parameters() if p.grad is not None)


@pytest.mark.parametrize("rows_by", ["uniform", "weight"])
def test_both_ways_to_take_rows_have_equation_two_as_expectation(pipe, rows_by):
    made = eq2(pipe, batch=(8, 0), rows_by=rows_by)
    made.batches.rows |= {"row": torch.arange(5)}
    signed = torch.tensor([1.0, 0.5, 0.0, 0.2, -0.3])
    rows = made.method.rows(batches.Samples(encoded(pipe, 5), reward=signed), made.knobs)
    made.batches.rows, total = rows, torch.zeros(5)
    for step in range(3000):
        plan = made.batches.plan(step)
        total.index_add_(0, plan["row"], plan["weight"] / 8)
    assert torch.allclose(total / 3000, signed / 5, atol=0.01)


def test_micro_batches_change_nothing(pipe):
    whole, rows = tuned(pipe, batch=(5, 4))
    parts, again = tuned(pipe, batch=(5, 4), accumulate=4)
    for a, b in zip(rows, again, strict=True):
        assert all(abs(a[k] - b[k]) <= 1e-5 * abs(a[k]) for k in ("loss", "model_error", "pre_error")), (a, b)
    assert same(whole, parts, atol=2e-4)
    with pytest.raises(ValueError, match="micro-batches"):
        eq2(pipe, batch=(2, 0), pre_batch=0, accumulate=4)


@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_fine_tuning_ends_with_the_same_bits(pipe, tmp_path, stop):
    whole, rows = tuned(pipe, drop=0.5, ema=0.9)
    tuned(pipe, drop=0.5, ema=0.9, folder=tmp_path, stop=stop)
    resumed, again = tuned(pipe, drop=0.5, ema=0.9, folder=tmp_path)
    assert again == rows and same(whole, resumed)
    assert len(list(tmp_path.iterdir())) == checkpoints.KEPT


def test_recomputed_activations_and_half_precision_train_the_same_model(pipe):
    unet, rows = tuned(pipe, extras=("checkpointing",))
    plain, expected = tuned(pipe)
    assert same(unet, plain, atol=1e-6) and rows == expected
    made = eq2(pipe)
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.loss_at(pipe.unet, 0)[0]
    assert loss.dtype == torch.float32 and abs(loss - made.loss_at(pipe.unet, 0)[0]) < 0.01


def test_weights_that_say_nothing_are_one_sentence(pipe):
    with pytest.raises(train.NotFinite, match=r"rewards of images \[3\]"):
        eq2(pipe, reward=torch.tensor([1.0, 1.0, 1.0, float("nan"), 1.0]))
    with pytest.raises(train.NotFinite, match="every image weighs nothing"):
        eq2(pipe, reward=torch.zeros(5))


def test_a_bad_sample_is_named_before_it_reaches_the_weights(pipe):
    def first_rows(seed, step):
        return eq2(pipe, seed=seed).batches.plan(step)["row"][:3]

    seed = next(s for s in itertools.count() if 2 not in first_rows(s, 0) and 2 in first_rows(s, 1))
    clean, _ = tuned(pipe, steps=5, seed=seed, stop=1)
    unet = nets.trainable(pipe, config.settings("align"))
    made = eq2(pipe, unet, seed=seed)
    made.batches.samples.encoded.shards[0]["mean"][2] = float("nan")
    plan = train.Plan(steps=5, lr=1e-3)
    with pytest.raises(train.NotFinite, match=r"step 1 \(samples 2 of D_model\)"):
        list(train.loop(unet, made.micro_batches(), plan, engine=made.engine, summed=True, blame=made.blame))
    assert same(unet, clean)


def test_the_weight_of_an_image():
    r = torch.tensor([0.0, 0.25, 1.0])
    assert torch.equal(losses.weights(r), r)
    assert losses.weights(r, 0.0).tolist() == [1, 1, 1] and losses.weights(r, 2.0).tolist() == [0, 0.0625, 1]
    assert torch.allclose(losses.weights(r, 1.0, baseline=1.0).sum(), torch.zeros(()), atol=1e-6)
