"""Drawing into a folder: it resumes, and several processes share it, to the same pictures; or own ones."""

import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_objective import PROMPTS

from rlhf_nb import config, generate, pictures, prompts
from rlhf_nb.files import ArtifactError

SAID = ("a photo of my dog, on the sofa", "ein Haus am See", "猫が二匹", "[V] dog", "two\nlines", "1984")


def test_drawing_resumes_and_shares_to_the_same_pictures(pipe, tmp_path):
    options = {"guidance": 2.0, "steps": 2, "seed": 3, "batch": 2}
    rows = {"prompt": (PROMPTS * 2)[:7]}
    generate.draw(pipe, rows["prompt"], rows, tmp_path / "whole", **options)
    for rank in (1, 0):
        generate.draw(pipe, rows["prompt"], rows, tmp_path / "shared", rank=rank, processes=2, **options)
    for name in ("000000.png", "000003.png"):
        (tmp_path / "shared" / name).unlink()
    generate.draw(pipe, rows["prompt"], rows, tmp_path / "shared", **options)
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert len(files) == 8 and files == sorted(p.name for p in (tmp_path / "shared").iterdir())
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "shared" / f).read_bytes() for f in files)


@pytest.fixture
def own(tmp_path):
    """Pictures of unlike sizes, two of each sentence, one that is broken."""
    folder = tmp_path / "own"
    (folder / "sub").mkdir(parents=True)
    rows = [(f"sub/{i} é.jpg", caption) for i, caption in enumerate(SAID * 2)]
    for i, (name, _) in enumerate(rows):
        Image.new("RGB", (70 + i, 100 - i), (20 * i, 0, 0)).save(folder / name, "PNG")
    (folder / "cut.png").write_bytes((folder / rows[0][0]).read_bytes()[:50])
    with open(folder / "metadata.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("file_name", "prompt"), ("cut.png", SAID[0]), *rows])
    return folder


def table():
    return pd.DataFrame(prompts.split_rows(prompts.TOY, 4, 2, 2, 2))


def settings(place):
    return config.settings("generate", pictures=str(place))


def test_own_pictures_take_the_place_of_drawn_ones(pipe, own, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/000099.png").write_bytes(b"of an earlier attempt")
    rows, left_out = generate.collect(pipe, table(), tmp_path / "images", settings(own))
    images = pictures.ImageFolder(tmp_path / "images", ("source", "category", "split", "use"))
    assert left_out == "1 x unreadable image, as cut.png" and images[:].shape == (12, 64, 64, 3)
    assert [int(image[0, 0, 0]) for image in images[:]] == [20 * i for i in range(12)]
    assert images.rows.source.tolist() == [f"sub/{i} é.jpg" for i in range(12)]
    assert images.rows.prompt.tolist() == [" ".join(said.split()) for said in SAID * 2] == list(rows.prompt)
    assert set(images.rows.category) == {"combination"} and len(list((tmp_path / "images").iterdir())) == 13
    of = images.rows.groupby("use").prompt.agg(set)
    assert len(of["test"]) == 2 and len(of["label"]) == 4 and not of["test"] & of["label"]
    assert set(images.rows[["use", "split"]].itertuples(index=False, name=None)) == {
        ("label", "seen"),
        ("test", "heldout"),
    }
    assert prompts.wants(images.rows) == images.rows.prompt.tolist()  # each stands for itself
    again, _ = generate.collect(pipe, table(), tmp_path / "again", settings(own))
    assert again.equals(rows)


def test_known_prompts_keep_their_split_and_what_waits_is_never_learnt_from():
    known = table()
    asked = [known.prompt[known.use == use].iloc[0] for use in ("label", "tune", "evaluate", "test")]
    rows = generate.described(pd.DataFrame({"source": list("abcde"), "prompt": [*asked, "mine"]}), known, 0)
    assert rows.use.tolist() == ["label", "test", "test", "test", "label"]
    assert rows.split.tolist() == ["seen", "heldout", "heldout", "heldout", "seen"]
    [*wants, mine] = prompts.wants(rows)
    assert list(map(prompts.phrase, wants)) == asked and mine == prompts.phrase(mine) == "mine"


def test_sentences_outside_the_grammar_are_told_from_each_other():
    rng, seen = np.random.default_rng(0), set(prompts.grammar(["cat"])["count"])
    assert sorted(prompts.contrast("a", 3, rng, (), seen | {"a", "b", "c"})) in (list("bbc"), list("bcc"))
    others = prompts.contrast("a", 8, rng, (), seen | {"a"})  # the only one, from the grammar's
    assert sorted(set(others)) == sorted(map(prompts.phrase, seen))


def test_own_pictures_that_are_too_few_or_none_are_one_sentence(pipe, own, tmp_path):
    lines = (own / "metadata.csv").read_text().splitlines()
    for kept, wrong in ((5, "2 prompts to learn"), (3, "0 prompts to learn"), (2, "no captioned image")):
        (own / "metadata.csv").write_text("\n".join(lines[:kept]))
        with pytest.raises(ArtifactError, match=wrong):
            generate.collect(pipe, table(), tmp_path / "images", settings(own))
    with pytest.raises(config.ConfigError, match="leave `pictures` out"):
        generate.collect(pipe, table(), tmp_path / "images", settings("world"))
    with pytest.raises(config.ConfigError, match="run notebook 02"):
        generate.main(settings(own))
