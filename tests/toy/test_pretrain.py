"""What the parts of the toy bundle learn: each loss by hand, and the U-Net's draws."""

import math
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch

from rlhf_nb import batches, diffusion, files, losses, prompts, reward, seeds, train
from rlhf_nb.toy import pretrain, world


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1).mean()


def test_a_part_has_the_shipped_shape_and_new_weights(pipe):
    torch.manual_seed(0)
    vae = pretrain.untrained(diffusers.AutoencoderKL, "vae")
    own, shipped = vae.state_dict(), pipe.vae.state_dict()
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in shipped.items()}
    assert not torch.equal(own["encoder.conv_in.weight"], shipped["encoder.conv_in.weight"])
    wide = pretrain.untrained(diffusers.AutoencoderKL, "vae", latent_channels=6)
    assert wide.config.latent_channels == 6 and wide.config.norm_num_groups == vae.config.norm_num_groups == 8


def straight(steps, folder):
    """A small part fitted by `pretrain.fit` up to each of `steps`: its weights, and what it cost."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 2), torch.arange(20.0).view(5, 4) / 20

    def loss_at(model, step):
        return (model(x) - torch.randn(5, 2, generator=seeds.generator(0, step))).square().mean(), {}

    for n in steps:
        plan = train.Plan(steps=n, lr=0.1, warmup=2, decay=0.0, ema=0.9, log_every=1)
        _, cost = pretrain.fit(model, loss_at, plan, folder / "work", folder / f"{n}.safetensors")
    return model, cost


def test_a_part_grows_point_by_point_to_the_same_bits_and_is_left_as_shipped(tmp_path):
    whole, cost = straight([6], tmp_path / "whole")
    parts, _ = straight([2, 4, 6], tmp_path / "parts")
    again = torch.nn.Linear(4, 2)
    assert pretrain.unfinished(tmp_path / "nowhere.safetensors", again)
    assert not pretrain.unfinished(tmp_path / "parts" / "6.safetensors", again)
    for model in (parts, again):
        assert all(map(torch.equal, whole.parameters(), model.parameters()))
    assert all(torch.equal(p, p.half().float()) for p in whole.parameters())
    assert cost["tflop"] == 2 * (2 * 5 * 4 * 2) / 1e12  # the pass, and the gradient of the weights
    assert len(files.read_json(tmp_path / "parts" / "work" / "seconds.json")) == 6 and cost["seconds"] > 0


def test_the_autoencoder_pays_for_its_latents_alone_where_it_returns_the_picture():
    class Perfect:
        device = torch.device("cpu")

        def encode(self, x):
            self.x = x
            divergence = torch.full((len(x),), 512.0)
            mean, std = torch.zeros(len(x), 4, 8, 8), torch.ones(())
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=std, kl=lambda: divergence))

        def decode(self, latents):
            return SimpleNamespace(sample=self.x + self.off)

    model, images = Perfect(), np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3)).astype(np.uint8)
    for model.off in (0.0, 0.5):  # an even error has no edges
        loss, log = pretrain.autoencoder_loss(images, 2, 0)(model, 0)
        assert float(loss) == pytest.approx(model.off + model.off**2 + 5e-4 * 2, rel=1e-3)
        assert float(log["kl"]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "captions, target", [([[1], [2]], torch.eye(2)), ([[1], [1]], torch.full((2, 2), 0.5))]
)
def test_equal_captions_are_no_negatives(captions, target):
    logits = torch.tensor([[2.0, -1.0], [0.5, 1.0]])

    class Clip:
        device = torch.device("cpu")

        def __call__(self, **_):
            return SimpleNamespace(logits_per_image=logits)

    images = np.zeros((2, 64, 64, 3), np.uint8)
    loss, _ = pretrain.clip_loss(images, torch.tensor(captions), 2, 0)(Clip(), 0)
    by_hand = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    assert torch.allclose(loss, by_hand)


def test_near_misses_are_negatives_of_the_image_alone():
    image, text, miss = torch.eye(4)[:2], torch.eye(4)[:2], torch.eye(4)[2:, None].expand(2, 3, 4)
    model = SimpleNamespace(
        device=torch.device("cpu"),
        visual_projection=lambda _: image,
        vision_model=lambda _: SimpleNamespace(pooler_output=None),
        text_projection=lambda x: x,
        logit_scale=torch.tensor(2.0),
    )
    in_order = next(s for s in range(99) if seeds.rows_at(s, 0, 2, 2).tolist() == [0, 1])
    images = np.zeros((2, 64, 64, 3), np.uint8)
    loss, _ = pretrain.hard_clip_loss(images, text, miss, 2, in_order)(model, 0)
    s = math.exp(2.0)
    alone, among = math.log(1 + math.exp(-s)), math.log(1 + 4 * math.exp(-s))
    assert float(loss) == pytest.approx((alone + among) / 2, rel=1e-4)


def test_altered_captions_differ_in_one_thing():
    rng = np.random.default_rng(0)
    counts = {f"{n} stars." for n in ("Two", "Three", "Four", "Five", "Six")}
    objects = {f"One {o}." for o in prompts.TOY.objects if o != "star"}
    assert set(pretrain.altered("One star.", rng, 600)) == counts | objects
    told = "A picture of two stars in San Francisco that are red."
    several = pretrain.altered(told, rng, 200)
    assert "A picture of one star in san francisco that are red." in several
    assert "A picture of two stars in san francisco that are blue." in several
    assert "A picture of two stars in the sea that are red." in several
    assert "A picture of two hearts in san francisco that are red." in several
    assert told.lower().capitalize() not in several


def test_captions_keep_their_rows():
    clip = reward.Clip("toy/clip")
    captions = ["Two cats.", "One star.", "Two cats."]
    states, near = pretrain.near_misses(clip.model, clip.tokenizer, captions, 0)
    assert states.shape == (3, 96) and near.shape == (3, 4, 96)
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    assert torch.allclose(clip.model.text_projection(states), clip.prompts(captions), atol=1e-5)
    assert not (near[1] == states[1]).all(1).any()


def test_two_pictures_in_three_are_broken(pipe):
    images = world.pairs(30, 4)[0]
    broken = pretrain.broken(pipe.vae, images, 0)
    off = np.abs(broken.astype(float) - images).mean((1, 2, 3))
    assert not off[::3].any() and (off[1::3] > 0).all() and off[2::3].mean() > off[1::3].mean()
    assert np.array_equal(broken, pretrain.broken(pipe.vae, images, 0))


def pairs(pipe, n=12):
    images, captions, _ = world.pairs(n, 1)
    return batches.encode(pipe, zip(images, captions, strict=True))


def test_the_unets_draws_depend_on_seed_step_and_row_alone(pipe):
    encoded, seed, step = pairs(pipe), 2, 5
    loss, _ = pretrain.unet_loss(pipe, encoded, "uniform", 0.0, 4, seed)(pipe.unet, step)
    g = seeds.generator(seed, step)
    timesteps, dropped = torch.randint(1000, (4,), generator=g), torch.rand(4, generator=g) < 0.1
    mean, std, text = encoded.take(seeds.rows_at(seed + 1, step, 4, 12))
    drawn = [torch.randn(2, 4, 8, 8, generator=seeds.generator(seed, step, row)) for row in range(4)]
    latents = mean + std * torch.stack([d[0] for d in drawn])
    noise = torch.stack([d[1] for d in drawn])
    text[dropped] = diffusion.encode_prompts(pipe, [""])[0]
    inputs = latents, text, timesteps, noise
    assert torch.equal(loss, losses.denoising(diffusion.predictor(pipe.unet), pipe.scheduler, *inputs).mean())


def test_every_setting_of_the_unets_loss_changes_it(pipe, monkeypatch):
    encoded, seen = pairs(pipe), []
    monkeypatch.setattr(losses, "denoising", lambda *a: seen.append(a) or a[4].float())
    for density, gamma in (("uniform", 0.0), ("logit-normal", 5.0)):
        pretrain.unet_loss(pipe, encoded, density, gamma, 256, 2)(pipe.unet, 0)
    even, centred = (a[4] / 1000 for a in seen)
    assert [a[6] for a in seen] == [0.0, 5.0]
    assert 0.24 < even.std() < 0.34 and centred.std() < 0.24 and 0 <= centred.min() and centred.max() < 1
    assert torch.equal(seen[0][2], seen[1][2]) and torch.equal(seen[0][5], seen[1][5])


def test_fresh_pairs_never_come_twice(pipe, monkeypatch):
    seen = []
    real = batches.encode
    monkeypatch.setattr(
        batches, "encode", lambda pipe, pairs: seen.append(list(pairs)) or real(pipe, seen[-1])
    )
    loss_at = pretrain.unet_loss(pipe, None, "uniform", 0.0, 3, 2)
    values = [float(loss_at(pipe.unet, step)[0]) for step in (0, 1, 1)]
    assert values[1] == values[2] != values[0]
    images, captions, _ = world.pairs(6, 2)
    assert [caption for step in seen[:2] for _, caption in step] == captions
    assert np.array_equal([image for step in seen[:2] for image, _ in step], images)
