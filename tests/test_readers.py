"""A judge or a detector by name, and nobody asks which."""

import numpy as np
import pytest
from conftest import tiny_owl

from rlhf_nb import prompts, readers, reward
from rlhf_nb.toy import world

WANTS = [world.scene(4, i) for i in range(3)]


@pytest.mark.parametrize("kind", ["judge", "detector"])
def test_every_reader_gives_the_same_kinds_of_answers(kind, tmp_path):
    name = "toy/judge" if kind == "judge" else str(tiny_owl("OwlViT", tmp_path))
    reader = readers.load(name, reward.Clip("toy/clip"))
    images = world.render(WANTS, 4, range(3))
    answers = reader.examine(images, WANTS)
    assert set(answers) == {*prompts.ATTRIBUTES, "all", "number"}
    for attribute, of in answers.items():
        assert of.shape == (3,) and of.dtype == (int if attribute == "number" else bool)
    features = reader.features(images)
    assert features.shape[0] == 3 and features.is_floating_point() and not features.requires_grad


def test_duplicated_objects_by_hand():
    wants = [prompts.Attributes("cat", 2), prompts.Attributes("cat", 2), prompts.Attributes("cat")]
    assert readers.duplicated(np.array([3, 2, 9]), wants).tolist() == [True, False, False]
