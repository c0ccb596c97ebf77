"""Eq. 2 end to end: the objective, its independence of processes, micro-batches and interruptions, encoding once, adapters, guards."""

import itertools

import numpy as np
import pytest
import torch

from rlhf_nb import align, config, diffusion, losses, train

PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon.", "Six flags."]


def encoded(pipe, n, seed=0):
    """An Encoded of random latents without deviation, under four prompts."""
    text, rows = diffusion.encode_prompts(pipe, (PROMPTS * n)[:n])
    mean = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return align.Encoded([{"mean": mean, "std": torch.zeros_like(mean), "text": text, "prompt": rows}])


def eq2(pipe, batch=(3, 3), **options):
    options = {"beta": 0.3, "drop": 0.0, "seed": 5, "weight": torch.tensor([1.0, 0.5, 0.0, 0.2, 0.7])} | options
    return align.Eq2(pipe.scheduler, diffusion.encode_prompts(pipe, [""])[0][0], encoded(pipe, 5), encoded(pipe, 7, 1), batch=batch, **options)


def tuned(pipe, loss_at, steps=4, **options):
    unet = align.trainable(pipe, config.settings("align"))
    rows = list(train.loop(unet, loss_at, steps=steps, lr=1e-3, log_every=1, batch=sum(loss_at.batch), **options))
    return unet, rows


def same(a, b, **tolerance):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.allclose(p, q, **tolerance) if tolerance else torch.equal(p, q) for p, q in pairs)


def test_one_step_is_equation_two(pipe):
    """A step's loss against Eq. 2 written out with the forward process and error that diffusers' own training example uses."""
    from diffusers import DDPMScheduler

    diffusion.sample(pipe, PROMPTS[:1], guidance=2.0, steps=2, seed=0)  # a sampler at work must not change the training schedule
    loss_at = eq2(pipe)
    plan, schedule, errors = loss_at.plan(4), DDPMScheduler.from_config(pipe.scheduler.config), []
    for i, row in enumerate(plan["row"]):
        mean, _, text = loss_at.sources[i >= 3].take(row[None])
        noise = torch.randn(2, 4, 8, 8, generator=train.generator(5, 4, i))[1:]
        t = plan["timesteps"][i:i + 1]
        errors.append(torch.nn.functional.mse_loss(pipe.unet(schedule.add_noise(mean, noise, t), t, text).sample, noise))
    errors = torch.stack(errors)
    loss, log = loss_at(pipe.unet, 4)
    assert torch.allclose(loss, (loss_at.weight[plan["row"][:3]] * errors[:3]).mean() + 0.3 * errors[3:].mean(), rtol=1e-5)
    assert torch.allclose(log["model"], errors[:3].mean(), rtol=1e-5) and torch.allclose(log["pre"], errors[3:].mean(), rtol=1e-5)
    plain = eq2(pipe, weight=torch.ones(5), beta=0.0)(pipe.unet, 4)[0]
    assert torch.allclose(plain, errors[:3].mean(), rtol=1e-5)  # reward one, beta zero: the plain loss
    assert torch.equal(loss, loss_at(pipe.unet, 4)[0]) and not torch.equal(loss, loss_at(pipe.unet, 5)[0])


@pytest.mark.parametrize("draw", ["uniform", "weight"])
def test_both_ways_to_draw_have_equation_two_as_expectation(pipe, draw):
    loss_at = eq2(pipe, batch=(8, 0), draw=draw, weight=torch.tensor([1.0, 0.5, 0.0, 0.2, -0.3]))
    total = torch.zeros(5)
    for step in range(3000):
        plan = loss_at.plan(step)
        total.index_add_(0, plan["row"], plan["coefficient"])
    assert torch.allclose(total / 3000, loss_at.weight / 5, atol=0.01)


def test_micro_batches_change_nothing(pipe):
    whole, rows = tuned(pipe, eq2(pipe, batch=(5, 4)))
    parts, again = tuned(pipe, eq2(pipe, batch=(5, 4)), accumulate=4)
    for a, b in zip(rows, again, strict=True):
        assert all(abs(a[k] - b[k]) <= 1e-5 * abs(a[k]) for k in ("loss", "model", "pre")), (a, b)
    assert same(whole, parts, atol=2e-4)
    with pytest.raises(ValueError, match="micro-batches"):
        tuned(pipe, eq2(pipe, batch=(2, 0)), accumulate=4)


@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_fine_tuning_ends_with_the_same_bits(pipe, tmp_path, stop):
    whole, rows = tuned(pipe, eq2(pipe, drop=0.5), ema=0.9)
    loop = train.loop(align.trainable(pipe, config.settings("align")), eq2(pipe, drop=0.5), steps=4, lr=1e-3, log_every=1, batch=6, ema=0.9,
                      folder=tmp_path, save_every=1)
    list(itertools.islice(loop, stop))
    resumed, again = tuned(pipe, eq2(pipe, drop=0.5), ema=0.9, folder=tmp_path, save_every=1)
    assert again == rows and same(whole, resumed)
    assert len(list(tmp_path.iterdir())) == train.KEPT


def test_adapters_load_in_stock_diffusers(pipe, tmp_path):
    """LoRA: only adapters learn, and the stock pipeline with load_lora_weights draws what ours does."""
    from diffusers import StableDiffusionPipeline

    unet = align.trainable(pipe, config.settings("align", lora=4))
    before = {n: p.clone() for n, p in unet.named_parameters()}
    list(train.loop(unet, eq2(pipe), steps=3, lr=0.02, batch=6))
    changed = {n for n, p in unet.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all("lora" in n for n in changed)
    diffusion.save_unet(unet, tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(config.place("toy/pipeline"), safety_checker=None)
    stock.load_lora_weights(tmp_path)
    check_drawn_alike(pipe, stock, diffusion.load_unet(tmp_path, pipe))


def test_whole_models_load_in_stock_diffusers(pipe, tmp_path):
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    unet, _ = tuned(pipe, eq2(pipe))
    diffusion.save_unet(unet, tmp_path)
    stock = StableDiffusionPipeline.from_pretrained(config.place("toy/pipeline"), safety_checker=None, unet=UNet2DConditionModel.from_pretrained(tmp_path))
    check_drawn_alike(pipe, stock, diffusion.load_unet(tmp_path, pipe))


def check_drawn_alike(pipe, stock, unet):
    from diffusers import DPMSolverMultistepScheduler

    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    noise, base = torch.stack([diffusion.noise_of(pipe, 3, i) for i in range(4)]), pipe.unet
    theirs = stock(PROMPTS, guidance_scale=2.0, num_inference_steps=4, latents=noise, output_type="np").images * 255
    plain = diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
    pipe.unet = unet
    ours = diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=4, seed=3)
    pipe.unet = base
    assert np.abs(theirs - ours).max() <= 2 and np.abs(plain.astype(int) - ours).max() > 2


def test_recomputed_activations_and_half_precision_train_the_same_model(pipe):
    unet = align.trainable(pipe, config.settings("align", extras=("checkpointing",)))
    rows = list(train.loop(unet, eq2(pipe), steps=4, lr=1e-3, log_every=1, batch=6))
    plain, expected = tuned(pipe, eq2(pipe))
    assert same(unet, plain, atol=1e-6) and rows == expected
    with torch.autocast("cpu", torch.bfloat16):
        loss = eq2(pipe)(pipe.unet, 0)[0]
    assert loss.dtype == torch.float32 and abs(loss - eq2(pipe)(pipe.unet, 0)[0]) < 0.01


def test_what_is_encoded_is_not_encoded_again(pipe, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(align, "SHARD", 4)

    def pairs():
        return zip(images, (PROMPTS * 3)[:10], strict=True)

    first, memory = align.encode(pipe, pairs(), tmp_path), align.encode(pipe, pairs())
    rows = torch.tensor([9, 0, 5, 5])
    assert len(first) == len(memory) == 10 and len(list(tmp_path.iterdir())) == 3
    assert all(torch.equal(a, b) for a, b in zip(first.take(rows), memory.take(rows), strict=True))
    made = []
    real = align.encode_shard
    monkeypatch.setattr(align, "encode_shard", lambda *a, **k: made.append(k["first"]) or real(*a, **k))
    align.encode(pipe, pairs(), tmp_path)
    assert made == []
    images[5] = 255 - images[5]
    align.encode(pipe, pairs(), tmp_path)
    assert made == [4]  # the one shard whose content is new


def test_what_does_not_fit_is_one_sentence(pipe, monkeypatch):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(diffusion.ModelError, match="32 x 32 give latents"):
        align.encode(pipe, zip(images, PROMPTS[:2], strict=True))
    with pytest.raises(diffusion.ModelError, match="no images"):
        align.encode(pipe, [])
    monkeypatch.setattr(diffusion, "encode_images", lambda *_: (torch.full((2, 4, 8, 8), float("nan")), torch.zeros(2, 4, 8, 8)))
    with pytest.raises(diffusion.ModelError, match=r"images \[0, 1\] are not finite"):
        align.encode(pipe, zip(images, PROMPTS[:2], strict=True))
    with pytest.raises(train.NotFinite, match=r"weights of images \[3\]"):
        eq2(pipe, weight=torch.tensor([1.0, 1.0, 1.0, float("nan"), 1.0]))
    with pytest.raises(train.NotFinite, match="every image weighs nothing"):
        eq2(pipe, weight=torch.zeros(5))


def test_a_bad_sample_is_named_before_it_reaches_the_weights(pipe):
    seed = next(s for s in itertools.count() if 2 not in eq2(pipe, seed=s).plan(0)["row"][:3] and 2 in eq2(pipe, seed=s).plan(1)["row"][:3])
    bad, clean = (align.trainable(pipe, config.settings("align")) for _ in range(2))
    list(itertools.islice(train.loop(clean, eq2(pipe, seed=seed), steps=5, lr=1e-3, batch=6, log_every=1), 1))
    loss_at = eq2(pipe, seed=seed)
    loss_at.sources[0].shards[0]["mean"][2] = float("nan")
    with pytest.raises(train.NotFinite, match=r"step 1 \(samples 2 of D_model\)"):
        list(train.loop(bad, loss_at, steps=5, lr=1e-3, batch=6))
    assert same(bad, clean)


def test_a_bad_gradient_freezes_the_optimiser_without_a_look():
    """What stands in for the look on a GPU: fused AdamW leaves weights and moments alone while found_inf is set."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    for bad, moves in ((0.0, True), (1.0, False), (1.0, False)):
        before, weight.grad = weight.detach().clone(), torch.ones(3) if moves else torch.full((3,), float("nan"))
        optimizer.found_inf = torch.tensor(bad)
        optimizer.step()
        assert torch.equal(before, weight) != moves
    assert optimizer.state[weight]["step"] == 1 and optimizer.state[weight]["exp_avg"].isfinite().all()


def test_drawing_resumes_and_shares_to_the_same_pictures(pipe, tmp_path):
    options = {"guidance": 2.0, "steps": 2, "seed": 3, "batch": 2}
    rows = {"prompt": (PROMPTS * 2)[:7]}
    diffusion.draw(pipe, rows["prompt"], rows, tmp_path / "whole", **options)
    for rank in (1, 0):
        diffusion.draw(pipe, rows["prompt"], rows, tmp_path / "shared", rank=rank, world=2, **options)
    for name in ("000000.png", "000003.png"):
        (tmp_path / "shared" / name).unlink()
    diffusion.draw(pipe, rows["prompt"], rows, tmp_path / "shared", **options)
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert len(files) == 8 and files == sorted(p.name for p in (tmp_path / "shared").iterdir())
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "shared" / f).read_bytes() for f in files)


def test_the_weight_of_an_image():
    r = torch.tensor([0.0, 0.25, 1.0])
    assert torch.equal(losses.weights(r), r) and losses.weights(r, 0.0).tolist() == [1, 1, 1] and losses.weights(r, 2.0).tolist() == [0, 0.0625, 1]
    assert torch.allclose(losses.weights(r, 1.0, baseline=1.0).sum(), torch.zeros(()), atol=1e-6)
