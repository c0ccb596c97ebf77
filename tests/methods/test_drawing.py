"""What trains nothing: best of n, steering, mixing; at their ends each is plain sampling."""

import copy

import numpy as np
import pytest
import torch

from rlhf_nb import diffusion, methods, nets, rollout
from rlhf_nb.methods.drawing import best_of_n, mixing, steering

PROMPTS = ["Two green stars in the sea.", "A red colored cat.", "One heart on the moon."]
HOW = {"guidance": 2.0, "steps": 4, "seed": 7}


def light(images, prompts):
    """A reward that anyone can see: how light a picture is, in [0, 1]."""
    return images.mean((1, 2, 3)) / 255


@pytest.fixture(scope="module")
def tuned(pipe):
    """The base model's U-Net, moved a little."""
    unet, g = copy.deepcopy(pipe.unet), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in unet.parameters():
            p += 0.02 * p.std().nan_to_num() * torch.randn(p.shape, generator=g)
    return unet


def test_every_way_of_drawing_is_a_short_module_that_can_be_named():
    for module in (best_of_n, mixing, steering):
        name = module.__name__.rpartition(".")[2]
        assert methods.load(f"drawing.{name}") is module and module.Knobs().model_dump()
        with open(module.__file__) as file:
            assert len(file.readlines()) <= 60, name
    assert "drawing" not in methods.names()


def test_mixing_by_nothing_is_the_base_and_by_one_the_tuned_model(pipe, tuned):
    base, other = (diffusion.sample(pipe, PROMPTS, unet=unet, **HOW) for unet in (pipe.unet, tuned))
    found = {
        lam: mixing.draw(pipe, PROMPTS, mixing.Knobs(lam=lam), unet=tuned, **HOW) for lam in (0.0, 0.5, 1.0)
    }
    assert np.array_equal(found[0.0], base) and np.array_equal(found[1.0], other)
    assert not np.array_equal(base, other)
    assert not any(np.array_equal(found[0.5], end) for end in (base, other))
    assert np.array_equal(diffusion.sample(pipe, PROMPTS, unet=tuned, **HOW), other)  # no hook is left
    itself = mixing.draw(pipe, PROMPTS, mixing.Knobs(lam=3.0), unet=pipe.unet, **HOW)
    assert np.array_equal(itself, base)


def test_a_mixture_predicts_between_both_and_beyond(pipe, tuned, monkeypatch):
    g = torch.Generator().manual_seed(0)
    text = torch.randn(1, 20, pipe.unet.config.cross_attention_dim, generator=g)
    given = torch.randn(1, 4, 8, 8, generator=g), torch.tensor([500]), text
    base, other = (diffusion.predictor(unet)(*given) for unet in (pipe.unet, tuned))
    seen = lambda pipe, prompts, unet: unet(*given, return_dict=False)[0]  # noqa: E731
    monkeypatch.setattr(diffusion, "sample", seen)
    for lam in (0.25, 2.0):
        mixed = mixing.draw(pipe, PROMPTS, mixing.Knobs(lam=lam), unet=tuned)
        assert torch.allclose(mixed, base + lam * (other - base), atol=1e-5)


def test_adapters_mix_too(pipe):
    from rlhf_nb import config

    unet = nets.trainable(pipe, config.settings("align", lora=2))
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if "lora_B" in name:
                p += 0.1
    unet.eval()
    found = mixing.draw(pipe, PROMPTS, mixing.Knobs(lam=0.0), unet=unet, **HOW)
    assert np.array_equal(found, diffusion.sample(pipe, PROMPTS, **HOW))


def test_the_best_of_one_is_plain_sampling(pipe):
    found = best_of_n.draw(pipe, PROMPTS, best_of_n.Knobs(n=1), score=light, **HOW)
    assert np.array_equal(found, diffusion.sample(pipe, PROMPTS, **HOW))


def test_the_best_of_n_is_the_best_of_those_that_were_drawn(pipe):
    found = best_of_n.draw(pipe, PROMPTS[:2], best_of_n.Knobs(n=3), score=light, indices=[4, 9], **HOW)
    for image, prompt, index in zip(found, PROMPTS, (4, 9), strict=False):
        tries = diffusion.sample(pipe, [prompt] * 3, indices=range(3 * index, 3 * index + 3), **HOW)
        assert np.allclose(image, tries[light(tries, None).argmax()].astype(float), atol=1)


def plain(pipe, prompt, places, **more):
    """Pictures by DDIM with noise, without any steering."""
    way = rollout.recorded(
        pipe, pipe.unet, [prompt] * len(places), etas=rollout.even(1.0, 4), seed=7, indices=places, **more
    )
    return diffusion.decode(pipe.vae, way["states"][:, -1])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_one_particle_is_plain_sampling(pipe, guidance):
    how = HOW | {"guidance": guidance}
    found = steering.draw(pipe, PROMPTS, steering.Knobs(particles=1), score=light, **how)
    for image, prompt, i in zip(found, PROMPTS, range(3), strict=True):
        assert np.array_equal(image, plain(pipe, prompt, [i], guidance=guidance)[0])


@pytest.mark.parametrize("knobs", [{"lam": 0.0}, {"checks": 0, "lam": 50.0}])
def test_steering_without_a_push_is_the_best_of_its_particles(pipe, knobs):
    found = steering.draw(
        pipe, PROMPTS[:2], steering.Knobs(**knobs), score=light, indices=[2, 5], **HOW | {"guidance": 1.0}
    )
    for image, prompt, index in zip(found, PROMPTS, (2, 5), strict=False):
        tries = plain(pipe, prompt, range(4 * index, 4 * index + 4))
        assert np.array_equal(image, tries[light(tries, None).argmax()])


def test_particles_on_the_way_to_a_better_image_are_copied(pipe, monkeypatch):
    went, recorded = [], rollout.recorded

    def watched(*given, choose, **options):
        def told(step, clean):
            went.append((step, choose(step, clean)))
            return went[-1][1]

        return recorded(*given, choose=told, **options)

    monkeypatch.setattr(rollout, "recorded", watched)
    knobs = steering.Knobs(lam=1e4, checks=1)
    found = steering.draw(pipe, PROMPTS[:1], knobs, score=light, **HOW)
    assert [step for step, _ in went] == [0, 1, 2, 3]
    chosen = {step: rows.tolist() for step, rows in went}
    assert len(set(chosen.pop(1))) == 1 and all(rows == [0, 1, 2, 3] for rows in chosen.values())
    monkeypatch.undo()
    again = steering.draw(pipe, PROMPTS[:1], knobs, score=light, **HOW)
    assert np.array_equal(found, again)  # no hidden random state


def test_weights_grow_by_the_potential_until_they_are_used():
    first, second = torch.tensor([0.5, 0.4, 0.3, 0.5]), torch.tensor([0.2, 0.6, 0.3, 0.4])
    g = torch.Generator().manual_seed(0)
    told = steering.Weights(steering.Knobs(lam=2.0, potential="diff"))
    assert told(first, g).tolist() == told(second, g).tolist() == [0, 1, 2, 3]
    assert torch.allclose(told.log, 2 * second)  # the differences add up to the last reward
    told = steering.Weights(steering.Knobs(lam=2.0))
    told(first, g), told(second, g)
    assert torch.allclose(told.log, 2 * (first + torch.maximum(first, second)))
    told = steering.Weights(steering.Knobs(lam=1e4))
    assert told(torch.tensor([0.1, 0.9, 0.2, 0.3]), g).tolist() == [1] * 4
    assert told.log == 0 and told.reached.tolist() == pytest.approx([0.9] * 4)
    told = steering.Weights(steering.Knobs(lam=1e4))
    assert told(torch.full((4,), 0.3), g).tolist() == [0, 1, 2, 3]  # none is better than another
