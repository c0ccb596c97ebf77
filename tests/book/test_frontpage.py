"""What the front page says of a run, whatever the run has found; and that its links lead somewhere."""

import json
import re

import frontpage
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

NUMBERS = {
    **{"base": 39.4, "tuned": 55.0, "n": 500},
    **{"gain": 15.6, "gain_low": 9.8, "gain_high": 21.2, "guidance_base": 4.0},
    **{"frechet_ratio": 0.97, "ratio_low": 0.9, "ratio_high": 1.05},
}


@pytest.fixture
def run(tmp_path):
    """A function that writes what a run has found: numbers of 06, and what the rival does."""

    def write(match=4.0, **numbers):
        made = {
            "evaluate": ({}, NUMBERS | numbers),
            "align": ({"updates": 2000, "model_batch": 32, "pre_batch": 8, "knobs": {"power": 3.0}}, {}),
            "best_of_n": (
                {"prompts": 40, "most": 64, "steps": 10},
                {"tuned": 0.5, "best": 0.4, "match": match},
            ),
        }
        for stage, (settings, found) in made.items():
            (tmp_path / stage).mkdir(exist_ok=True)
            (tmp_path / stage / "manifest.json").write_text(json.dumps({"settings": settings}))
            (tmp_path / stage / "numbers.json").write_text(json.dumps(found))
        return tmp_path

    return write


def chips(text):
    return re.findall(r'<a class="chip [\w ]+" href="notebooks/(\w+).html">([\w ]+)</a>', text)


def test_each_half_of_the_claim_and_the_rival_have_a_verdict(run):
    assert chips(frontpage.verdicts(run())) == [
        ("06_evaluate", "yes"),
        ("06_evaluate", "yes"),
        ("07_best_of_n", "at first"),
    ]
    worse = {"gain_low": -9.0, "gain_high": -1.0, "ratio_low": 1.2, "ratio_high": 1.4}
    assert [chip for _, chip in chips(frontpage.verdicts(run(**worse)))][:2] == ["no", "no"]
    open_ones = {"gain_low": -1.0, "ratio_high": 1.2}
    told = frontpage.verdicts(run(**open_ones))
    assert [chip for _, chip in chips(told)][:2] == ["undecided", "undecided"]
    assert "+15.6 points [-1.0, +21.2]" in told and "0.97 times the base model's [0.90, 1.20]" in told


def test_what_choosing_costs(run):
    chip, words = frontpage.rival(run())
    assert chip == "at first" and words.startswith("the best of 4 ")
    # 3 passes a row of 2000 updates of 40; a guided picture takes 20; three more are drawn for each one kept
    assert f"after {3 * 2000 * 40 / 20 / 3:,.0f} pictures" in words
    assert f"after {3 * 2000 * 40 / 10 / 3:,.0f} pictures" in frontpage.rival(run(guidance_base=1.0))[1]
    assert frontpage.rival(run(match=1.0))[0] == "yes"
    chip, words = frontpage.rival(run(match=None))
    assert (
        chip == "no" and "best of 64 by the learnt reward is right in 40%" in words and "50%, on 40" in words
    )


def test_the_result_says_against_what_on_what_and_after_how_much(run):
    words = re.sub("<[^>]+>", "", frontpage.result(run()))
    assert (
        words.startswith("39.4 % → 55.0 % of pictures are right") and "after 2,000 updates, on 500" in words
    )
    assert "+15.6 points, 95 % interval +9.8 to +21.2" in words and frontpage.power(run()) == "3"


def test_the_caption_counts_every_kind():
    base, tuned = [0, 0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 0, 0, 1]
    rows = pd.DataFrame({"prompt": "a", "base": base, "tuned": tuned}).astype({"base": bool, "tuned": bool})
    words = frontpage.told(rows, rows.head(4))
    assert "Of 7 held-out prompts tuning mended 2 and broke 1; 2 stayed right and 2 wrong." in words
    assert "the first 2 that tuning has mended, 1 that tuning has broken, 1 that it has not changed:" in words


def test_its_links_lead_to_pages():
    links = re.findall(r'href="([^"]+)\.html"', frontpage.loop() + frontpage.loop(tall=True))
    assert len(links) == 2 * len(frontpage.BOXES)
    assert all((ROOT / f"{link}.ipynb").exists() for link in links)


def rows(mended, broken, same):
    """Lines as `compared` gives them: so many that tuning mended, broke and left as they were."""
    base = [False] * mended + [True] * broken + [False] * same
    tuned = [True] * mended + [False] * broken + [False] * same
    found = pd.DataFrame({"prompt": map(str, range(len(base))), "base": base, "tuned": tuned})
    return found.sample(frac=1, random_state=0)


@pytest.mark.parametrize(
    "of, shown",
    [
        ((120, 60, 320), (4, 2, 0)),
        ((130, 50, 320), (4, 2, 0)),  # 1.7 of six are broken: two
        ((199, 1, 300), (5, 1, 0)),
        ((30, 0, 470), (6, 0, 0)),
        ((2, 1, 9), (2, 1, 3)),
        ((0, 0, 4), (0, 0, 4)),
    ],
)
def test_the_picture_shows_as_many_broken_prompts_as_the_run_has(of, shown):
    every = rows(*of)
    found = frontpage.chosen(every)
    change = found.tuned.astype(int) - found.base
    assert ((change > 0).sum(), (change < 0).sum(), (change == 0).sum()) == shown
    for kind in (1, -1):  # the first of their kind, in the order of the test
        first = every[every.tuned.astype(int) - every.base == kind]
        assert found[change == kind].index.tolist() == first.index[: (change == kind).sum()].tolist()


def test_compared_keeps_the_rows_of_the_drawing(tmp_path):
    kinds = [("count", "heldout"), ("combination", "ood"), ("combination", "heldout")] * 2
    lines = [
        {"prompt": f"{i}", "category": c, "split": s, "condition": model, "all": model == "tuned" and i == 5}
        for model in ("base", "tuned", "tuned, base's guidance")
        for i, (c, s) in enumerate(kinds)
    ]
    (tmp_path / "evaluate").mkdir()
    pd.DataFrame(lines).to_csv(tmp_path / "evaluate" / "verdicts.csv", index=False)
    found = frontpage.compared(tmp_path)
    assert found.index.tolist() == [2, 5] and found.prompt.tolist() == ["2", "5"]
    assert not found.base.any() and found.tuned.tolist() == [False, True]


@pytest.mark.slow
def test_pictures_are_drawn_as_they_were_judged(smoke, reader):
    from rlhf_nb import prompts

    folder = smoke / "runs" / "smoke"
    shown = frontpage.chosen(frontpage.compared(folder))
    wanted = pd.read_csv(folder / "prompts" / "prompts.csv").drop_duplicates("prompt").set_index("prompt")
    wants = prompts.wants(wanted.loc[shown.prompt].reset_index())
    for model, steps in frontpage.ways(folder, shown).items():
        assert len({images.shape for images in steps}) == 1 and len(steps) > 2
        assert np.array_equal(reader.examine(steps[-1], wants)["all"], shown[model])
