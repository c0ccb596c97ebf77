"""What the smoke run prints and keeps, held against itself: verdicts against their intervals, tables against
what they sum up, orders against what is sorted.

`outputs` leaves measured numbers, and the words and orders that they choose, out of the comparison with the
references. Here they are compared with the numbers they stand beside, so that a swapped arm, a lost row or a
turned verdict shows on any processor.
"""

import json
import re

import nbformat
import numpy as np
import outputs
import pandas as pd
import pytest
import torch

from rlhf_nb import config, diffusion, evaluate, files, losses, pictures, reward
from rlhf_nb.study import league
from rlhf_nb.toy import judge, world

pytestmark = pytest.mark.slow
NUMBER = r"[-+]?\d+(?:\.\d+)?"
CALLED = {
    "seen": "seen prompts",
    "heldout": "held-out prompts",
    "unseen": "unseen objects",
    "ood": "out of distribution",
}
ATTRIBUTES = ["count", "colour", "object", "background"]


@pytest.fixture
def said(smoke):
    """said(stem) -> everything a notebook prints, in lines with their numbers; said(stem, start) -> the table
    of the cell whose source has `start`."""

    def of(stem, start=None):
        cells = nbformat.read(smoke / "book" / "notebooks" / f"{stem}.ipynb", 4)["cells"]
        cells = [c for c in cells if c["cell_type"] == "code" and (start is None or start in c["source"])]
        return [line for c in cells for line in outputs.lines(c["outputs"], ["exact"])]

    return of


@pytest.fixture
def kept(smoke):
    """kept(stage, file) -> a table or the numbers of the smoke run."""

    def of(stage, name):
        path = smoke / "runs" / "smoke" / stage / name
        return json.loads(path.read_text()) if name.endswith(".json") else pd.read_csv(path)

    return of


def side(low, high, words=("borne out", "refuted", "undecided")):
    """The word for an interval, found without the package; None where rounding hides on which side of zero it
    ends."""
    if 0 < abs(low) < 0.051 or 0 < abs(high) < 0.051:
        return None
    return words[0] if low > 0 else words[1] if high < 0 else words[2]


@pytest.mark.parametrize(
    "stem",
    [
        *("04_reward", "05_align", "06_evaluate", "07_best_of_n", "08_data"),
        *("09_sensitivity", "10_stress", "11_reach"),
    ],
)
def test_an_effect_lies_in_its_interval(said, stem):
    found = [
        list(map(float, m))
        for line in said(stem)
        for m in re.findall(rf"({NUMBER}) points \[({NUMBER}), ({NUMBER})\]", line)
    ]
    assert found and all(low <= value <= high for value, low, high in found), found


@pytest.mark.parametrize(
    "stage, name",
    [
        ("reward", "pairwise.csv"),
        ("reward", "gains.csv"),
        ("stress", "study.csv"),
        ("stress", "confused.csv"),
        ("evaluate", "accuracy.csv"),
        ("evaluate", "paired.csv"),
        ("reach", "attribute_gains.csv"),
        ("evaluate", "guidance_gain.csv"),
        ("reach", "gains.csv"),
        ("reach", "attributes.csv"),
        ("best_of_n", "best_of_n.csv"),
        ("data", "controls.csv"),
        ("sensitivity", "frontier.csv"),
        ("pretrain", "judge.csv"),
        ("pretrain", "gates.csv"),
    ],
)
def test_every_share_lies_in_its_interval(kept, stage, name):
    table = kept(stage, name)
    value = table["difference" if "difference" in table else "share"]
    assert len(table) and not ((table.low > value + 1e-9) | (table.high < value - 1e-9)).any(), table


def test_prompts(kept):
    table, settings = kept("prompts", "prompts.csv"), config.settings("prompts")
    size = table[table.category == "combination"].groupby(["split", "use"]).size()
    assert size.to_dict() == {
        ("seen", "label"): settings.to_label,
        ("validation", "tune"): settings.to_tune,
        **{
            (s, use): n
            for s in ("heldout", "unseen", "ood")
            for use, n in (("evaluate", settings.to_evaluate), ("test", settings.to_test))
        },
    }
    assert not set(table[table.split == "seen"].prompt) & set(table[table.split != "seen"].prompt)


def test_images_are_those_wanted(smoke, kept):
    from rlhf_nb import prompts

    images = pictures.ImageFolder(smoke / "runs" / "smoke" / "generate" / "images")
    wanted = prompts.wanted(kept("prompts", "prompts.csv"), config.settings("generate"))
    assert images.rows.prompt.tolist() == wanted.prompt.tolist() and len(
        list(images.folder.glob("*.png"))
    ) == len(wanted)
    assert images.rows.file_name.is_unique and len(
        np.unique(images[:].reshape(len(wanted), -1), axis=0)
    ) == len(wanted)


def test_feedback(smoke, kept, said):
    from rlhf_nb.feedback.store import Store

    table2, raters, labels = (
        kept("feedback", "table2.csv"),
        kept("feedback", "raters.csv"),
        kept("feedback", "labels.csv"),
    )
    assert np.allclose(table2[["good", "bad", "skip"]].sum(axis=1), 100)
    store = Store(smoke / "runs" / "smoke" / "feedback" / "feedback.sqlite").table()
    last = store.drop_duplicates(["rater", "image"], keep="last").query("label != 'skip'")
    assert last.groupby("rater").size().to_dict() == raters.set_index("rater").labels.to_dict()
    assert set(store.rater) == {"simulated-1", "simulated-2", "simulated-3", "careless"}
    votes = store[(store.rater != "careless") & (store.label != "skip")].drop_duplicates(
        ["rater", "image"], keep="last"
    )
    good = votes.label.eq("good").groupby(votes.image).mean()
    use = labels.set_index("image").category[votes.image].to_numpy()
    alone = votes[labels.set_index("image").use[votes.image].to_numpy() == "label"]
    share = alone.label.eq("good").groupby(labels.set_index("image").category[alone.image].to_numpy()).mean()
    ours = (table2.good / (table2.good + table2.bad)).set_axis(table2.category)
    assert len(use) and np.allclose(
        ours[share.index], share, atol=0.05
    )  # the careless rater's few votes stand in the table, unless he is caught
    decided = labels[labels.label.notna()].set_index("image").label
    plain = (good[decided.index.intersection(good.index)] > 0.5).astype(float)
    assert (plain == decided[plain.index]).mean() > 0.9 and (
        decided == labels.set_index("image").truth[decided.index]
    ).mean() > 0.7
    caught, hardest = said("03_feedback")[-2:]
    assert caught.endswith("raters caught: " + (", ".join(raters.rater[raters.caught]) or "none"))
    assert f"fewest good pictures: {table2.set_index('category').good.idxmin()}, " in hardest


def test_the_reward_is_trained_with_both_losses(kept):
    log, settings = kept("reward", "log.csv"), config.settings("reward")
    assert np.allclose(log.loss, log.mse + settings.lam * log.pc) and (log.pc > 1).all()
    shares = kept("reward", "pairwise.csv").query("`pairs of` == 'one prompt'")
    shares = shares.query("scored == 'with prompt classification'").set_index("split").share
    numbers = kept("reward", "numbers.json")
    assert len(shares) == 5 and {name: numbers[name] for name in shares.index} == pytest.approx(dict(shares))


def test_pairs_by_the_reward_that_was_kept(smoke, kept):
    """CLIP's own similarity and the shipped head, scored here: the rows of the first are told by it, and no
    group stands under another's name."""
    labels, images = (
        kept("feedback", "labels.csv"),
        pictures.ImageFolder(smoke / "runs" / "smoke" / "generate" / "images"),
    )
    test = labels[(labels.use == "test") & labels.label.notna() & (labels.split == "heldout")]
    clip = reward.Clip("toy/clip")
    features, texts = clip.images(images[test.image.to_numpy()]), clip.prompts(test.prompt.tolist())
    cosine = evaluate.pairwise(
        np.atleast_2d(np.asarray((features * texts).sum(1) / features.norm(dim=1) / texts.norm(dim=1))),
        test.label.to_numpy(),
        test.prompt.to_numpy(),
    )["share"]
    gains = (
        kept("reward", "gains.csv")
        .query("split == 'held-out' and `pairs of` == 'one prompt'")
        .set_index(["scored", "against"])
        .share
    )
    shares = kept("reward", "pairwise.csv").query("split == 'held-out' and `pairs of` == 'one prompt'")
    shares = shares.set_index("scored").share
    assert shares["CLIP similarity"] == pytest.approx(cosine)
    for scored, against in gains.index:
        assert gains[scored, against] == pytest.approx(shares[scored] - shares[against])


def test_verdicts_of_the_reward(said):
    words = [
        m
        for line in said("04_reward")
        for m in re.findall(rf"\[({NUMBER}), ({NUMBER})\], (better|worse|not told apart)$", line)
    ]
    assert len(words) == 6
    assert all(
        word == (side(float(low), float(high), ("better", "worse", "not told apart")) or word)
        for low, high, word in words
    ), words


def test_training_is_equation_two(smoke, kept, pipe):
    log, curve, settings = kept("align", "log.csv"), kept("align", "curve.csv"), config.settings("align")
    weight = (
        log.loss - settings.knobs["beta"] * log.pre_error
    ) / log.model_error  # the mean weight of an image, the same at every step
    assert np.allclose(weight, weight[0], rtol=1e-4) and 0 < weight[0] < 1
    assert log.step.tolist() == list(range(1, settings.updates + 1)) and curve.step.tolist() == [
        0,
        settings.updates,
    ]
    images = pictures.ImageFolder(smoke / "runs" / "smoke" / "generate" / "images")
    use = (images.rows.use == "label").to_numpy()
    score = reward.load(smoke / "runs" / "smoke" / "reward" / "model", reward.Clip("toy/clip"))
    learnt = score(images[np.flatnonzero(use)], images.rows.prompt[use].tolist())
    weights = losses.weights(torch.from_numpy(learnt), settings.knobs["power"], settings.knobs["baseline"])
    assert weight[0] == pytest.approx(float(weights.mean()), rel=1e-3)
    tuned = diffusion.load_unet(smoke / "runs" / "smoke" / "align" / "unet", pipe)
    assert files.weights_digest(tuned) != files.weights_digest(pipe.unet)


def test_accuracy_sums_up_the_verdicts(kept):
    verdicts, accuracy, paired = (kept("evaluate", f"{n}.csv") for n in ("verdicts", "accuracy", "paired"))
    whole = verdicts[verdicts.category == "combination"]
    assert (whole["all"] == whole[ATTRIBUTES].all(axis=1)).all()
    by = whole.assign(split=whole.split.map(CALLED)).groupby(["split", "condition"])
    expected = pd.DataFrame({"share": by["all"].mean(), "reward": by.reward.mean(), "n": by.size()})
    found = accuracy.set_index(["split", "group"])
    assert len(found) == len(expected) == 12 and np.allclose(
        found.loc[expected.index, ["share", "reward", "n"]], expected
    )
    tuned, base = (whole[whole.condition == c].set_index("prompt") for c in ("tuned", "base"))
    for row in paired.itertuples():
        one, other = (of[of.split.map(CALLED) == row.split]["all"].to_numpy() for of in (tuned, base))
        assert (row.won, row.lost, row.n) == ((one & ~other).sum(), (other & ~one).sum(), len(one))
        assert row.difference == pytest.approx(one.mean() - other.mean())
    held = whole[whole.split == "heldout"].groupby("condition")[[*ATTRIBUTES, "all"]].mean()
    attributes = kept("reach", "attributes.csv").set_index(["attribute", "group"]).share
    gains = kept("reach", "attribute_gains.csv").set_index("attribute").difference
    for a in (*ATTRIBUTES, "all"):
        assert (attributes[a, "base"], attributes[a, "tuned"]) == (
            pytest.approx(held[a]["base"]),
            pytest.approx(held[a]["tuned"]),
        )
        assert a == "all" or gains[a] == pytest.approx(held[a]["tuned"] - held[a]["base"])
    categories = kept("reach", "categories.csv").set_index(["split", "category", "group"]).share
    each = (
        verdicts.assign(split=verdicts.split.map(CALLED))
        .groupby(["split", "category", "condition"])["all"]
        .mean()
    )
    for (split, category, condition), share in each.items():
        assert condition not in ("base", "tuned") or categories[split, category, condition] == pytest.approx(
            share
        )


def test_the_gains_are_those_of_their_tables(kept):
    gains, fresh = kept("reach", "gains.csv"), kept("reach", "fresh.csv")
    parts = [kept("evaluate", "paired.csv"), fresh[fresh["measured before"] == "no"]]
    parts.append(kept("reach", "attribute_gains.csv").drop(columns="split"))
    expected = pd.concat(parts)
    found = gains.head(len(expected))
    assert (found.source == "this run").all() and np.allclose(found.difference, expected.difference)
    names = expected.split.fillna(expected.attribute)
    assert found.name.tolist() == [f"{name}, {n}" for name, n in zip(names, expected.n, strict=True)]
    by_eye = gains[gains.group.str.startswith("held-out, by eye")]
    assert by_eye.updates.isna().all() and (by_eye.source == "recorded").all()
    eye = kept("reach", "eye.csv").query("by == 'eye'")
    assert by_eye.difference.tolist() == pytest.approx(eye.difference.tolist())


def test_each_model_is_drawn_at_its_best_guidance(kept, said):
    search, numbers = kept("evaluate", "guidance.csv"), kept("evaluate", "numbers.json")
    best = {model: float(part.loc[part.share.idxmax()].guidance) for model, part in search.groupby("group")}
    assert (numbers["guidance_base"], numbers["guidance_tuned"]) == (best["base"], best["tuned"])
    assert f"best guidance: base {best['base']}, tuned {best['tuned']}" in "\n".join(said("06_evaluate"))


def test_arms_are_who_they_are_called(smoke, kept, pipe):
    """The first pictures of each arm, drawn here by that model: the rewards in the table are theirs."""
    verdicts, numbers, settings = (
        kept("evaluate", "verdicts.csv"),
        kept("evaluate", "numbers.json"),
        config.settings("evaluate"),
    )
    score = reward.load(smoke / "runs" / "smoke" / "reward" / "model", reward.Clip("toy/clip"))
    tuned = diffusion.load_unet(smoke / "runs" / "smoke" / "align" / "unet", pipe)
    unets = {"base": pipe.unet, "tuned": tuned}
    for arm, unet in unets.items():
        rows = verdicts[verdicts.condition == arm].head(8)
        options = {"guidance": numbers[f"guidance_{arm}"], "steps": settings.steps}
        drawn = diffusion.sample(pipe, rows.prompt.tolist(), unet=unet, seed=settings.seed + 12, **options)
        assert np.abs(score(drawn, rows.prompt.tolist()) - rows.reward).max() < 0.05, arm
    one, other = (verdicts[verdicts.condition == arm].head(8).reward.to_numpy() for arm in unets)
    assert np.abs(one - other).max() > 0.05  # else the arms could be swapped and nobody would see it


def test_the_claim_is_decided_by_its_intervals(kept, said):
    numbers = kept("evaluate", "numbers.json")
    box = "\n".join(said("06_evaluate")[-6:])
    first, second = re.findall(r"\*\*(borne out|refuted|undecided)\*\*", box)
    assert first == (
        "borne out" if numbers["gain_low"] > 0 else "refuted" if numbers["gain_high"] < 0 else "undecided"
    )
    assert second == (
        "borne out"
        if numbers["ratio_high"] < 1.1
        else "refuted"
        if numbers["ratio_low"] > 1.1
        else "undecided"
    )
    word = (
        "larger than"
        if numbers["ratio_low"] > 1
        else "smaller than"
        if numbers["ratio_high"] < 1
        else "not told apart from"
    )
    assert f"without one it is {word} the base's" in box and numbers["ratio_low"] <= numbers["ratio_high"]
    assert (
        f"the base model gets everything right in {numbers['base']:.1f} %, "
        f"the tuned one in {numbers['tuned']:.1f} %" in box
    )
    shares = kept("evaluate", "accuracy.csv").query("split == 'held-out prompts'").set_index("group").share
    assert (numbers["base"], numbers["tuned"]) == (
        pytest.approx(100 * shares["base"]),
        pytest.approx(100 * shares["tuned"]),
    )
    assert numbers["gain"] == pytest.approx(numbers["tuned"] - numbers["base"])
    quality = kept("evaluate", "quality.csv").set_index("measure")
    assert quality.loc["Fréchet distance", ["base", "tuned"]].tolist() == [
        numbers["frechet_base"],
        numbers["frechet_tuned"],
    ]
    assert numbers["frechet_ratio"] == pytest.approx(numbers["frechet_tuned"] / numbers["frechet_base"])


def test_votes_add_up(kept):
    for stage, asked in (
        ("reach", ["alignment"] * 3 + ["fidelity"] * 3),
        ("best_of_n", ["alignment"] * 2 + ["fidelity"] * 2),
    ):
        votes = kept(stage, "votes.csv")
        assert votes.asked.tolist() == asked and np.allclose(votes[["win", "tie", "lose"]].sum(axis=1), 100)


def test_best_of_n(kept, said):
    curves = kept("best_of_n", "best_of_n.csv").set_index(["group", "n"])
    oracle, learnt = curves.loc["oracle"], curves.loc["learnt reward"]
    assert (
        oracle.index.tolist() == learnt.index.tolist()
        and oracle.share.is_monotonic_increasing
        and (oracle.share >= learnt.share).all()
    )
    assert (
        learnt.reward.is_monotonic_increasing and (learnt.reward >= oracle.reward - 1e-9).all()
    )  # who ranks by the reward keeps the higher one
    assert np.allclose(curves.gain_share, curves.share - oracle.share[1])
    assert oracle.loc[1, ["share", "reward"]].equals(learnt.loc[1, ["share", "reward"]])  # one try is one try
    last = " ".join(said("07_best_of_n", "by the oracle {ceiling"))
    one, best, ceiling, _ = map(float, re.findall(r"(\d+\.\d)%", last))
    assert (one, best, ceiling) == tuple(
        round(100 * v, 1) for v in (learnt.share.iloc[0], learnt.share.iloc[-1], oracle.share.iloc[-1])
    )
    told = " ".join(said("07_best_of_n", "By how much the reward rises more than the truth"))
    low, high, word = re.search(
        rf"truth: \S+ points \[({NUMBER}), ({NUMBER})\], (.*), if its scale", told
    ).groups()
    words = (
        "a reward that fools itself",
        "below nothing, so the truth rises more",
        "not told apart from nothing",
    )
    assert word == (side(float(low), float(high), words) or word)


def test_experiments_sum_up_their_points(smoke, kept, said):
    controls = kept("data", "controls.csv").set_index("arm")
    points = {}
    for path in (smoke / "runs" / "smoke" / "study").glob("*/rows.csv"):
        row = pd.read_csv(path).iloc[0]
        points[json.loads(row.settings)["arm"]] = row
    assert set(controls.index) == set(points) - {"none"} == {"reward", "shuffled"}
    for arm in controls.index:
        assert controls.share[arm] == pytest.approx(points[arm].hits.count("x") / len(points[arm].hits))
        assert controls.difference[arm] == pytest.approx(
            controls.share[arm] - points["none"].hits.count("x") / len(points["none"].hits)
        )
        assert controls.ratio[arm] == pytest.approx(points[arm].frechet / points["none"].frechet)
    assert controls.purity["shuffled"] < controls.purity["reward"] < 1
    pattern = re.compile(r"- \*(\w+)\* against the base model.*\*\*(.*)\*\*")
    lines = {m[1]: m[2] for line in said("08_data", "against the base model (") if (m := pattern.match(line))}
    assert set(lines) == {"shuffled"}
    assert lines["shuffled"] == (
        "a gain, which contradicts the method" if controls.low["shuffled"] > 0 else "no gain seen"
    )


def test_what_holds(kept, said):
    verdicts = kept("verdicts", "verdicts.csv")
    for row in verdicts.itertuples():
        found = re.fullmatch(rf"{NUMBER} \[({NUMBER}), ({NUMBER})\]", row.here)
        assert row.verdict == (
            (side(*map(float, found.groups())) or row.verdict) if found else row.verdict
        ), row
        assert bool(found) == (row.verdict != "no result") or "nan" in row.here
        assert row[7] in (row.verdict, "undecided")
    words = ("borne out", "refuted", "undecided", "no result")
    counts = verdicts["after Holm"].value_counts()
    last = said("13_verdicts")[-1]
    assert last.startswith(f"- of all {len(verdicts)} lines: ")
    assert last.endswith(", ".join(f"{counts.get(v, 0)} {v}" for v in words))
    claims = dict(zip(verdicts.claim, verdicts.here, strict=True))
    for row in kept("evaluate", "paired.csv").itertuples():  # E and R repeat the chapters' own numbers
        if row.split != "seen prompts":
            assert (
                claims[f"tuning raises accuracy: {row.split}, one seed"]
                == f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            )
    votes = kept("reach", "votes.csv").query("prompts == 'all'").set_index("asked")
    for claim, gap in (
        ("tuned model for alignment", votes.win["alignment"] - votes.lose["alignment"]),
        ("base model for fidelity", votes.lose["fidelity"] - votes.win["fidelity"]),
    ):
        said_there = float(claims[f"simulated raters prefer the {claim}"].split()[0])
        assert said_there == pytest.approx(gap, abs=0.051)


def test_one_line_a_claim(kept, said):
    """Each says what its first line of the long table does, and is sorted by how sure that is."""
    verdicts = kept("verdicts", "verdicts.csv")
    told = said("13_verdicts", "verdicts.listed")
    heads, _, *rows = (re.split(r" ?\| ?", line)[1:-1] for line in told)
    assert heads == ["", "claim", "this run", "verdict", "all its lines", "look"]
    assert sorted(row[0] for row in rows) == [f"{kind}{k}" for kind in "ER" for k in range(1, 9)]
    order = []
    for code, _, here, word, lines, *_ in rows:
        of = verdicts[verdicts.code == code]
        if not len(of):
            assert code in ("E8", "R4", "R5")
            continue
        first = of.iloc[0]
        verdict = first["after Holm"]
        missed = code < "R" and verdict in ("refuted", "undecided")
        assert here == first.here and word == (f"**not reproduced** ({verdict})" if missed else verdict)
        assert sum(map(int, re.findall(r"\d+", lines))) == len(of)
        order.append(["borne out", "refuted", "undecided", "no result"].index(verdict))
    assert order == sorted(order)


def test_the_league_says_what_its_tables_have(kept, said):
    """No row is recorded at smoke scale: every table but that of the hypotheses is empty, and it says so."""
    claims, printed = kept("league", "claims.csv"), "\n".join(said("12_league"))
    assert len(claims) == len(league.plan().hypotheses) and (claims.holm == 1).all()
    assert f"Of {len(claims)} published orderings 0 hold and 0 are reversed" in printed
    assert not any(len(kept("league", f"{name}.csv")) for name in ("gains", "knobs", "curves"))
    assert printed.count("No rows yet: `make sweeps sweep=league`") == 2
    tuning = kept("league", "tuning.csv")
    assert tuning.share.isna().all() and tuning.groupby("row").size().eq(3).all()


def test_every_design_choice(kept):
    """A line for every setting that a chapter's table has, with its numbers."""
    choices = kept("sensitivity", "choices.csv")
    tables = {
        "data": {"controls": ["arm"], "feedback": ["raters", "error", "label_share"]},
        "sensitivity": {"frontier": ["power", "beta"], "budget": ["arm", "updates"]},
    }
    for stage, names in tables.items():
        for name, dials in names.items():
            table = kept(stage, f"{name}.csv")
            both = table.merge(choices, on=[*dials, "split", "guidance", "source"], suffixes=("", "_told"))
            told = both[np.isclose(both.difference, both.difference_told)]
            assert len(told[dials].drop_duplicates()) == len(table) and np.allclose(told.low, told.low_told)
    assert not choices.drop(columns=["share", "difference", "low", "high"]).duplicated().any()


def test_the_small_model_is_told_as_it_is(smoke, kept, said):
    table = kept("pretrain", "gates.csv").pivot(index="guidance", columns="attribute", values="share")
    at, more = table.index
    lines = said("A1_pretrain", "held, at_more")
    lines = [line for line in lines if line.endswith(("passed", "FAILED"))]
    assert len(lines) == 15 and lines[7].startswith("Fréchet distance, of the bundle before | 0 to 50 | ")
    for guidance, part in (at, lines[:7]), (more, lines[8:]):
        share = table.loc[guidance]
        least = share[["object", "colour", "background"]].min()
        holds = {
            "all": 0.25 <= share["all"] <= 0.6,
            "others above count": least >= share["count"],
            "count": 0.35 <= share["count"] <= 0.8,
            "colour": share["colour"] <= 0.97,
            "object": share["object"] >= 0.93,
            "background": share["background"] >= 0.93,
            "mixed": share["mixed"] <= 0.04,
        }
        found = {line.split(" | ")[0]: line.split(" | ")[-1] for line in part}
        assert found == {gate: "passed" if good else "FAILED" for gate, good in holds.items()}
    settings, reader = (
        config.settings("pretrain"),
        judge.load(smoke / "runs" / "smoke" / "pretrain" / "bundle" / "judge"),
    )
    truths = [world.scene(settings.seed + 900, i, uniform=True) for i in range(settings.checked)]
    hits = judge.right(
        judge.read(reader, world.render(truths, settings.seed + 900, range(len(truths)))), truths
    )
    shares = kept("pretrain", "judge.csv").set_index(["images", "attribute"]).share
    assert all(shares["render", a] == pytest.approx(np.mean(hits[a]), abs=0.05) for a in hits)
    eye = kept("pretrain", "eye.csv").set_index("attribute").share
    assert eye["object, where the eye names one"] > eye["object"]
