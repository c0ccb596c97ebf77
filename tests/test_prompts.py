"""Grammar, contrastive prompts and splits."""

import numpy as np
import pandas as pd
import pytest

from rlhf_nb import config, files, prompts
from rlhf_nb.prompts import Attributes, phrase


def test_what_the_grammar_does_not_have_is_named():
    known = {"prompt": "Two cats.", "object": "cat", "count": 2, "colour": None, "background": None}
    for name, value in (("object", "sofa"), ("count", 2.5), ("colour", "many"), ("background", 7)):
        with pytest.raises(
            files.ArtifactError, match=f"'{name}' in a table of prompts is {value!r}: restore"
        ):
            prompts.wants(pd.DataFrame([known | {name: value}]))
    with pytest.raises(files.ArtifactError, match="'colour' in a table of prompts is 'its column is gone'"):
        prompts.wants(pd.DataFrame([known]).drop(columns="colour"))


def test_too_many_prompts_to_evaluate_would_leave_none_to_test():
    with pytest.raises(config.ConfigError, match="to_evaluate 5000 leaves none of the .* combinations"):
        prompts.split_rows(prompts.TOY, 10, 10, 5000, 10)


def test_the_papers_own_sentences():
    assert phrase(Attributes("cup", count=3)) == "Three cups."
    assert phrase(Attributes("cup", colour="green")) == "A green colored cup."
    assert phrase(Attributes("cup", background="in the forest")) == "A cup in the forest."
    assert phrase(Attributes("cup", 2, "green", "in the forest")) == "Two green cups in the forest."
    assert phrase(Attributes("orange", background="on the moon")) == "An orange on the moon."
    assert phrase(Attributes("wolf", count=2)) == "Two wolves."


@pytest.mark.parametrize("name", ["toy", "paper"])
def test_contrast_differs_in_exactly_one_attribute(name):
    rng, vocabulary = np.random.default_rng(0), prompts.VOCABULARIES[name]
    for want in (
        Attributes("cat", 2),
        Attributes("cat", colour="red"),
        Attributes("horse", 6, "blue", "on the moon"),
    ):
        others = prompts.contrast(want, 9, rng, vocabulary.seen)
        assert len({phrase(o) for o in others}) == 9
        for other in others:
            assert sum(getattr(other, a) != getattr(want, a) for a in prompts.ATTRIBUTES) == 1
            assert other.asked == want.asked
    with pytest.raises(ValueError, match="contrastive"):
        prompts.contrast(Attributes("cat", 2), 5, rng, vocabulary.seen, allowed=set())
    few = prompts.contrast(
        Attributes("cat", 2), 5, rng, vocabulary.seen, allowed={Attributes("cat", 3), Attributes("dog", 2)}
    )
    assert len(few) == 5 and set(few) <= {Attributes("cat", 3), Attributes("dog", 2)}


def test_wrong_answers_of_the_reward_are_seen_prompts():
    divided = prompts.splits(prompts.TOY)
    allowed = {w for pools in divided.values() for w in pools["seen"]}
    others = {
        w for pools in divided.values() for split in ("validation", "heldout", "unseen") for w in pools[split]
    }
    rng = np.random.default_rng(0)
    for want in divided["combination"]["seen"][:200] + divided["count"]["seen"]:
        assert not set(prompts.contrast(want, 7, rng, prompts.TOY.seen, allowed)) & others


def test_splits_share_nothing():
    rows = prompts.split_rows(prompts.TOY, to_label=900, to_tune=200, to_evaluate=500, to_test=40)
    names = ("seen", "validation", "heldout", "unseen", "ood")
    of = {s: {r["prompt"] for r in rows if r["split"] == s} for s in names}
    for a in names:
        assert of[a]
        for b in names:
            assert a == b or not of[a] & of[b], (a, b)
    counts = {
        s: sum(r["use"] == "evaluate" and r["split"] == s and r["category"] == "combination" for r in rows)
        for s in ("heldout", "unseen", "ood")
    }
    assert counts == {"heldout": 500, "unseen": 500, "ood": 500}
    seen = [r for r in rows if r["split"] == "seen"]
    assert not {r["object"] for r in seen} & set(prompts.TOY.unseen)
    assert not any(map(prompts.rare, prompts.wants(pd.DataFrame(seen))))


def test_a_prompt_never_changes_split_with_the_sizes():
    small = prompts.split_rows(prompts.TOY, 10, 5, 20, 3)
    large = {r["prompt"]: r["split"] for r in prompts.split_rows(prompts.TOY, 900, 200, 500, 40)}
    assert all(large.get(r["prompt"], r["split"]) == r["split"] for r in small)


def test_attributes_survive_the_table(tmp_path):
    rows = prompts.split_rows(prompts.TOY, 20, 5, 5, 3)
    pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False)
    wants = prompts.wants(pd.read_csv(tmp_path / "p.csv"))
    assert wants == prompts.wants(pd.DataFrame(rows))
    assert all(
        getattr(w, a) == row[a] for row, w in zip(rows, wants, strict=True) for a in prompts.ATTRIBUTES
    )
    for row, want in zip(rows, wants, strict=True):
        assert phrase(want, "wording" in row["novelty"]) == row["prompt"]


def test_some_prompts_were_measured_before_and_some_were_not():
    waiting = {w for s in ("heldout", "unseen") for w in prompts.splits(prompts.TOY)["combination"][s][:500]}
    assert 0 < len(waiting & prompts.looked_at(prompts.TOY)) < len(waiting)
    assert not prompts.looked_at(prompts.PAPER)


def test_wanted_images():
    table = pd.DataFrame(prompts.split_rows(prompts.TOY, 20, 5, 5, 3))
    settings = config.settings("generate", per_simple=2, per_combination=3, per_test=4, test_seen=6)
    wanted = prompts.wanted(table, settings)
    drawn = wanted.groupby(["use", "split", "category"]).size()
    asked = table.groupby(["use", "split", "category"]).size()
    assert drawn["label", "seen", "combination"] == 3 * 20 and drawn["test", "seen", "combination"] == 4 * 6
    assert drawn["label", "seen", "count"] == 2 * asked["label", "seen", "count"]
    assert drawn["test", "ood", "count"] == 4 * asked["test", "ood", "count"]
    assert set(wanted.use) == {"label", "test"}
