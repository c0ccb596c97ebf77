"""The world, its captions, and the judge that reads it."""

import collections

import numpy as np
import pytest
from conftest import ROOT

from rlhf_nb import judge, prompts, world


def test_scene_depends_on_seed_and_index_alone():
    wants = [world.scene(3, i) for i in range(40)]
    together = world.render(wants, 3, range(40))
    assert np.array_equal(together[17:20], world.render(wants[17:20], 3, range(17, 20)))
    assert not np.array_equal(together, world.render(wants, 4, range(40)))
    assert together.shape == (40, 64, 64, 3) and together.dtype == np.uint8


def test_objects_never_overlap():
    for count in range(1, 9):
        for i in range(50):
            boxes = [(c[0] - s / 2, c[1] - s / 2, s) for c, s in world._places(count, world.rng_of(5, i))]
            assert len(boxes) == count
            for a in range(count):
                for b in range(a):
                    apart = max(abs(boxes[a][k] + boxes[a][2] / 2 - boxes[b][k] - boxes[b][2] / 2) for k in (0, 1))
                    assert apart >= (boxes[a][2] + boxes[b][2]) / 2 - 1.01, (count, i)


def test_captions_are_noisy_as_designed():
    wrong, said, total = collections.Counter(), collections.Counter(), collections.Counter()
    for i in range(6000):
        truth = world.scene(1, i)
        caption = world.caption(truth, 1, i).lower()
        number = [k for k, w in enumerate(prompts.COUNTS, 1) if w in caption.split()]
        total[truth.count] += 1
        if number:
            said[truth.count] += 1
            wrong[truth.count] += number[0] != truth.count
    assert total[1] > total[2] > total[3] > total[6]                     # long-tailed
    assert all(wrong[k] / said[k] < wrong[k + 3] / said[k + 3] for k in (1, 2))  # large counts are the unreliable ones
    assert world.caption(truth, 1, i) == world.caption(truth, 1, i)


def test_every_word_of_the_world_is_one_token(pipe):
    for i in range(300):
        text = world.caption(world.scene(2, i), 2, i)
        tokens = pipe.tokenizer.tokenize(text)
        assert len(tokens) == len(text.replace(".", " .").split()) and len(tokens) + 2 <= pipe.tokenizer.model_max_length, text


@pytest.mark.parametrize("kind, floor", [("render", 0.985), ("reconstruction", 0.96)])
def test_judge_reads_fresh_scenes(pipe, reader, kind, floor):
    """On 500 scenes; notebook A1 prints the figures on 2,000. Floors sit below the targets (99, 97 %) by the sampling error."""
    from rlhf_nb import diffusion

    truths = [world.scene(77, i, uniform=True) for i in range(500)]
    images = world.render(truths, 77, range(500))
    if kind == "reconstruction":
        images = diffusion.decode(pipe.vae, diffusion.encode_images(pipe.vae, images)[0])
    hits = judge.right(judge.read(reader, images), truths)
    assert all(hits[a].mean() >= floor for a in judge.CLASSES), {a: hits[a].mean() for a in judge.CLASSES}


def test_judge_refuses_wrong_pictures(reader):
    """Two colours or two shapes in one picture are not one colour or shape; nine sentences in ten are caught."""
    rng = [world.rng_of(8, i) for i in range(200)]
    colours = np.stack([world.draw(["star", "star"], ["red", "blue"], "in the sea", r) for r in rng])
    shapes = np.stack([world.draw(["star", "cat"], ["red", "red"], "in the field", r) for r in rng])
    assert (judge.read(reader, colours)["colour"] == judge.MIXED).mean() > 0.9
    assert (judge.read(reader, shapes)["object"] == judge.MIXED).mean() > 0.9


def test_judge_agrees_with_the_eye(reader):
    """200 pictures of the base model labelled by eye; the exact figures are in notebook A1. One picture in ten is a matter of taste."""
    from rlhf_nb import runs

    eye = runs.Images(ROOT / "tests" / "eye")
    answers, named = judge.read(reader, eye[:]), (eye.rows["object"] != judge.MIXED).to_numpy()
    agree = {a: np.mean(answers[a].astype(str) == eye.rows[a].astype(str)) for a in judge.CLASSES}
    assert len(eye) == 200 and agree["background"] > 0.97 and agree["count"] > 0.84 and agree["colour"] > 0.86 and agree["object"] > 0.74
    assert np.mean(answers["object"][named] == eye.rows["object"][named]) > 0.85


def test_right_counts_only_what_was_asked():
    answers = {"object": np.array(["cat"]), "count": np.array([2]), "colour": np.array(["red"]), "background": np.array(["in the sea"])}
    assert judge.right(answers, [prompts.Attributes("cat")])["all"].all()
    assert not judge.right(answers, [prompts.Attributes("cat", count=3)])["all"].any()
    assert judge.right(answers, [prompts.Attributes("cat", colour="red", background="in the sea")])["all"].all()


def test_altered_captions_differ_in_one_thing():
    from rlhf_nb import pretrain

    rng = np.random.default_rng(0)
    assert set(pretrain.altered("One star.", rng, 600)) == {f"{n} stars." for n in ("Two", "Three", "Four", "Five", "Six")} | {
        f"One {o}." for o in prompts.TOY.objects if o != "star"}
    several = pretrain.altered("A picture of two stars in San Francisco that are red.", rng, 200)
    assert "A picture of one star in san francisco that are red." in several and "A picture of two stars in san francisco that are blue." in several
    assert "A picture of two stars in the sea that are red." in several and "A picture of two hearts in san francisco that are red." in several
    assert "A picture of two stars in san francisco that are red." not in several
