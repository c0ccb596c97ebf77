"""The world and its captions."""

import collections

import numpy as np

from rlhf_nb import prompts
from rlhf_nb.toy import world


def test_scene_depends_on_seed_and_index_alone():
    wants = [world.scene(3, i) for i in range(40)]
    together = world.render(wants, 3, range(40))
    assert np.array_equal(together[17:20], world.render(wants[17:20], 3, range(17, 20)))
    assert not np.array_equal(together, world.render(wants, 4, range(40)))
    assert together.shape == (40, 64, 64, 3) and together.dtype == np.uint8


def test_objects_never_overlap():
    for count in range(1, 9):
        for i in range(50):
            boxes = [
                (*(centre - size / 2), size) for centre, size in world._centres(count, world.rng_of(5, i))
            ]
            assert len(boxes) == count
            for k, (x, y, size) in enumerate(boxes):
                for left, top, other in boxes[:k]:
                    apart = max(abs(x + size / 2 - left - other / 2), abs(y + size / 2 - top - other / 2))
                    assert apart >= (size + other) / 2 - 1.01, (count, i)


def test_a_spoilt_object_looks_like_no_other():
    def painted(spoilt):
        return world.paint(["cat"], ["red"], "in the sea", world.rng_of(1, 1), spoilt)

    whole, half, bent, bent_else = map(painted, ({}, {0: ("star", None)}, {0: ("cat", 3)}, {0: ("cat", 4)}))
    assert np.array_equal(whole, painted({0: ("cat", None)}))
    assert len({image.tobytes() for image in (whole, half, bent, bent_else)}) == 4
    differs = (whole != half).any((0, 2)).nonzero()[0]
    inked = (whole != world.paint([], [], "in the sea", world.rng_of(1, 1))).any((0, 2)).nonzero()[0]
    assert differs.min() >= inked.mean() - 2  # the right half alone


def test_what_is_asked_for_stays_and_the_rest_is_drawn():
    full = world.complete(prompts.Attributes("cat", colour="red"), world.rng_of(2, 0))
    assert (full.object, full.colour) == ("cat", "red") and full.asked == prompts.ATTRIBUTES[1:]
    assert world.complete(full, world.rng_of(2, 1)) == full


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
    assert total[1] > total[2] > total[3] > total[6]  # long-tailed
    # large counts are the unreliable ones
    assert all(wrong[k] / said[k] < wrong[k + 3] / said[k + 3] for k in (1, 2))
    assert world.caption(truth, 1, i) == world.caption(truth, 1, i)


def test_every_word_of_the_world_is_one_token(pipe):
    for i in range(300):
        text = world.caption(world.scene(2, i), 2, i)
        tokens = pipe.tokenizer.tokenize(text)
        assert len(tokens) == len(text.replace(".", " .").split()), text
        assert len(tokens) + 2 <= pipe.tokenizer.model_max_length, text


def test_pairs_go_on_where_others_end():
    images, captions, truths = world.pairs(6, 3)
    more = world.pairs(2, 3, start=4)
    assert np.array_equal(images[4:], more[0]) and captions[4:] == more[1] and truths[4:] == more[2]
