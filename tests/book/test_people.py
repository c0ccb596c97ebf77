"""Labels by people alone, through notebooks 03 and 04: they work, or one sentence says what is too little."""

import shutil
import sys

import papermill
import pytest
from conftest import ROOT

from rlhf_nb import files, runs
from rlhf_nb.feedback.store import Store
from rlhf_nb.pictures import ImageFolder

sys.path.insert(0, str(ROOT / "notebooks"))
import run  # noqa: E402


@pytest.fixture
def through(smoke, runs_folder, tmp_path):
    """through(label, name, ...) runs notebooks where ann and bob say label(person, place) of every image."""
    for stage in ("prompts", "generate"):
        shutil.copytree(smoke / "runs/smoke" / stage, runs_folder / "smoke" / stage)
    prompts = ImageFolder(runs_folder / "smoke/generate/images").rows.prompt

    def execute(label, *names):
        said = [
            {"rater": who, "image": i, "prompt": prompt, "label": label(who, i)}
            for who in ("ann", "bob")
            for i, prompt in enumerate(prompts)
        ]
        Store(runs_folder / "smoke/people.sqlite").add(said)
        for name in names:
            given = {"03_feedback": {"raters": 0}, "04_reward": {"updates": 4, "seeds": 1}}
            run.execute(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb", given.get(name, {}))

    return execute


@pytest.mark.slow
def test_two_people_teach_a_reward(through):
    through(
        lambda who, i: "skip" if who == "bob" and i % 9 == 0 else ("good", "bad")[i % 2], *STAGES, "10_stress"
    )
    card = files.read_json(runs.result("smoke", "reward", "model/card.json"), "labels")
    assert card["labels"] > 100 and runs.result("smoke", "stress", "study.csv").exists()


STAGES = ("03_feedback", "04_reward")
LACKING = {
    "only skips": (lambda who, i: "skip", STAGES[:1], "says good or bad"),
    "only ties": (lambda who, i: ("good", "bad")[(i + (who == "ann")) % 2], STAGES[:1], "are tied"),
    "all good": (lambda who, i: "good", STAGES, "labelled images to learn from"),
}


@pytest.mark.slow
@pytest.mark.parametrize("label, names, words", LACKING.values(), ids=LACKING)
def test_what_is_too_little_is_one_sentence(through, label, names, words):
    with pytest.raises(papermill.PapermillExecutionError, match=f"TooFewLabels.*{words}"):
        through(label, *names)
    assert runs.manifest("smoke", "generate") and not (runs.root() / "smoke/reward").exists()
