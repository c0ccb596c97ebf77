"""What each arm of an experiment weighs, and that a point twice is one point."""

import functools
import shutil

import numpy as np
import pandas as pd
import pytest

from rlhf_nb import config, diffusion, pictures, reward, runs
from rlhf_nb.stages import Study
from rlhf_nb.study import point, points

SMALL = {"scale": "smoke", "updates": 2, "model_batch": 4, "pre_batch": 4, "pre_images": 16}
SMALL |= {"prompts": 4, "steps": 3, "renders": 64}


def settings(**given):
    return config.settings("study", **SMALL, **given)


@pytest.fixture(scope="module")
def clip():
    return reward.Clip("toy/clip")


@pytest.fixture
def weighed(smoke, clip, monkeypatch):
    """weighed(arm=...) -> (weights, rows) of the smoke run's images."""
    monkeypatch.setenv("RLHF_NB_RUNS", str(smoke / "runs"))

    class Point:  # what `runs.Run` would be, writing nothing
        def __init__(self, settings):
            self.settings = settings

        def read(self, stage, name):
            return runs.result("smoke", stage, name)

    def of(**given):
        run, images = (
            Point(settings(**given)),
            pictures.ImageFolder(runs.result("smoke", "generate", "images")),
        )
        rows, score = point.labels_for(run, images), None
        if run.settings.arm in ("reward", "shuffled", "eye"):
            score, count = point.learnt(run, clip, images, rows)
            assert count == (463 if run.settings.arm == "eye" else rows.label.count())
        return point.weigh(run.settings, clip, images, rows, score), rows

    return of


@pytest.mark.slow
def test_what_each_arm_weighs(weighed):
    value, rows = weighed(arm="labels")
    good = (rows.label > 0.5).to_numpy()
    assert (value == good).all()
    random, _ = weighed(arm="random")
    assert random.sum() == good.sum() and (random != good).any()
    assert (weighed(arm="constant")[0] == 1).all()
    assert (weighed(arm="oracle")[0] == rows.truth).all()
    learnt, shuffled, similar = (weighed(arm=arm)[0] for arm in ("reward", "shuffled", "similarity"))
    for value in (learnt, shuffled, similar):
        assert 0 <= value.min() < value.max() <= 1
    assert (learnt != shuffled).any()


@pytest.mark.slow
def test_labels_can_be_shuffled_worsened_and_withheld(weighed):
    plain = weighed(arm="labels")[1].label
    shuffled = weighed(arm="shuffled")[1].label
    assert sorted(shuffled.dropna()) == sorted(plain.dropna()) and not shuffled.equals(plain)
    clean = weighed(raters=3, error=0.0)[1]
    assert (clean.label == clean.truth).all()
    assert (weighed(raters=3, error=0.4)[1].label != clean.truth).any()
    value, half = weighed(label_share=0.5, unlabelled=False)
    assert 0.3 < half.label.notna().mean() < 0.7 and (value[half.label.isna()] == 0).all()
    assert (weighed(label_share=0.5)[0][half.label.isna()] > 0).any()


@pytest.mark.slow
def test_a_narrow_set_has_few_objects_and_as_many_images(weighed):
    (narrow, rows), (broad, _) = weighed(objects=2, kept=5), weighed(kept=5)
    assert (narrow > 0).sum() == (broad > 0).sum() == 5
    assert rows.object[narrow > 0].nunique() <= 2


@pytest.mark.slow
def test_labels_given_by_looking_teach_a_reward(weighed):
    (by_eye, rows), (recorded, _) = weighed(arm="eye"), weighed()
    assert ((by_eye > 0) & (by_eye < 1)).all() and len(by_eye) == len(rows)
    assert not np.allclose(by_eye, recorded)


@pytest.mark.slow
def test_a_point_twice_gives_the_same_rows(smoke, runs_folder):
    shutil.copytree(smoke / "runs", runs_folder)
    given = settings(arm="oracle", drawing_guidance=2.0, kept=24, seed=3)
    path = runs_folder / "smoke" / "study" / points.key(given) / "rows.csv"
    texts = []
    for _ in range(2):
        point.main(given)
        texts.append(path.read_text())
    row = pd.read_csv(path).iloc[0]
    assert texts[0] == texts[1] and Study.model_validate_json(row.settings) == given
    assert row.purity == 1 and (row.labels, row.images) == (0, 24)


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"power": 0.0}, {"baseline": 0.5}])
def test_images_left_out_stay_out(smoke, runs_folder, given):
    shutil.copytree(smoke / "runs", runs_folder)
    with pytest.raises(
        config.ConfigError, match="leaves images out needs a power above zero and no baseline"
    ):
        point.main(settings(arm="random", knobs=given))


@pytest.mark.slow
def test_hits_are_the_verdicts_in_the_order_of_the_prompts(pipe, reader):
    class Score:
        def __call__(self, images, prompts):
            return np.zeros(len(images), np.float32)

    asked = pd.DataFrame({"prompt": ["Two stars.", "A red cat."], "object": ["star", "cat"]})
    asked = asked.assign(count=[2, None], colour=[None, "red"], background=None, split="seen")
    given = settings(guidances=[1.0, 4.0], repeats=3)
    draw = functools.partial(diffusion.sample, pipe)
    first, second = point.measure(draw, given.guidances, reader, Score(), asked, given)
    assert (first["guidance"], second["guidance"], first["n"]) == (1.0, 4.0, 2)
    for row in (first, second):
        assert len(row["hits"]) == 6 and row["hits"].count("x") / 6 == pytest.approx(row["all"])
        assert row["all"] <= min(row["object"], row["count"], row["colour"])


def test_an_experiment_of_another_kind_is_refused():
    with pytest.raises(config.ConfigError, match="the toy world only: run them at scale 'smoke' or 'toy'"):
        point.main(config.settings("study", scale="sd15"))
    with pytest.raises(config.ConfigError, match="'precision' of notebook 'study' must be 'no', not 'bf16'"):
        settings(precision="bf16")
