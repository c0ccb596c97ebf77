"""Artifacts are whole or absent, and everything damaged is named."""

import json
import os
import shutil

import pytest
from conftest import save_images

from rlhf_nb import align, config, runs


def made(stage="prompts", needs=(), **given):
    run = runs.Run(stage, config.settings(stage, **given), needs=needs)
    run.csv("prompts.csv", [{"prompt": "Two cats.", "use": "label"}])
    return run


def test_same_settings_same_digest(runs_folder):
    first, second = made().finish(), made().finish()
    assert first["digest"] == second["digest"] and first["files"] == second["files"]


def test_a_killed_stage_leaves_the_last_good_one(runs_folder):
    good = made().finish()
    broken = made(seed=1)
    broken.path("prompts.csv").write_text("half")
    assert runs.manifest("smoke", "prompts") == good
    assert "Two cats" in runs.result("smoke", "prompts", "prompts.csv").read_text()


def test_partial_work_is_found_again_only_with_the_same_settings(runs_folder):
    made().path("work/checkpoint").write_text("42")
    assert made().path("work/checkpoint").read_text() == "42"
    assert not made(seed=1).path("work/checkpoint").exists()


def test_a_resumed_stage_counts_what_killed_attempts_took(runs_folder):
    first = made()
    begun = json.loads(first.path("work/attempt.json").read_text())["begun"]
    first.path("work/checkpoint").write_text("42")
    for path in (first.folder, *first.folder.rglob("*")):  # as if the last write had been 100 s after the start
        os.utime(path, (begun, begun + 100))
    assert 100 <= made().finish()["seconds"] < 110 and made().finish()["seconds"] < 10


def test_missing_inputs_name_the_notebook(runs_folder):
    with pytest.raises(runs.ArtifactError, match="01_prompts first"):
        runs.Run("generate", config.settings("generate"), needs=["prompts"])
    made().finish()
    runs.result("smoke", "prompts", "prompts.csv").unlink()
    with pytest.raises(runs.ArtifactError, match="run notebook 01_prompts again"):
        runs.result("smoke", "prompts", "prompts.csv")
    (runs_folder / "smoke/prompts/manifest.json").write_text("{")
    with pytest.raises(runs.ArtifactError, match="damaged"):
        runs.manifest("smoke", "prompts")


def test_wrong_columns_are_named(tmp_path):
    (tmp_path / "p.csv").write_text("promt,use\nTwo cats.,label\n")
    with pytest.raises(runs.ArtifactError, match="no column 'prompt'"):
        runs.table(tmp_path / "p.csv", ("prompt",))
    with pytest.raises(runs.ArtifactError, match="cannot be read"):
        runs.table(tmp_path / "none.csv", ("prompt",))


def test_images_round_trip_and_a_corrupt_one_is_named(tmp_path):
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    save_images(tmp_path, images, {"prompt": ["a", "b", "c"]})
    folder = runs.Images(tmp_path)
    assert np.array_equal(folder[:], images) and np.array_equal(folder[np.array([2, 0])], images[[2, 0]])
    (tmp_path / "000001.png").write_bytes((tmp_path / "000001.png").read_bytes()[:60])
    with pytest.raises(runs.ArtifactError, match="000001.png"):
        folder[:]


def test_an_unwritable_folder_is_one_sentence(runs_folder):
    runs_folder.parent.mkdir(exist_ok=True)
    runs_folder.write_text("a file where a folder should be")
    with pytest.raises(runs.ArtifactError, match="cannot write"):
        made()


def test_a_kill_while_finishing_loses_nothing(runs_folder, monkeypatch):
    run = runs.Run("align", config.settings("align", accumulate=2))
    run.path("work/checkpoint").write_text("hours")
    run.json("numbers.json", {"a": 1})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "digest", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        run.finish()
    again = runs.Run("align", config.settings("align", accumulate=4, extras=("checkpointing",)))  # how it runs may change
    assert again.path("work/checkpoint").read_text() == "hours"
    again.finish()
    assert sorted(p.name for p in (runs_folder / "smoke/align").iterdir()) == ["manifest.json", "numbers.json"]
    assert not runs.Run("align", config.settings("align", beta=9.0)).path("numbers.json").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def rename_column(path):
    path.write_text(path.read_text().replace("category", "kind", 1))


@pytest.mark.slow
@pytest.mark.parametrize("file, damage, words", [
    ("runs/smoke/reward/model/model.safetensors", cut, "reward in .* cannot be loaded .*: run notebook 04_reward again"),
    ("runs/smoke/generate/images/000000.png", lambda path: path.write_bytes(b"no picture"), "image .*000000.png cannot be read .*: restore it"),
    ("runs/smoke/prompts/prompts.csv", rename_column, "prompts.csv has no column 'category'"),
    ("pipeline/unet", shutil.rmtree, "has no unet: not a whole Stable Diffusion folder"),
    ("runs/smoke/align.partial", lambda path: path.write_text(""), "cannot write to .*align.partial .*: free or unlock it")])
def test_bad_input_ends_the_command_with_one_sentence_and_harms_nothing(smoke, tmp_path, monkeypatch, file, damage, words):
    shutil.copytree(smoke / "runs" / "smoke", tmp_path / "runs" / "smoke")
    shutil.copytree(config.ASSETS / "toy" / "pipeline", tmp_path / "pipeline")
    damage(tmp_path / file)
    (tmp_path / "settings.yaml").write_text(f"scale: smoke\nseed: 1\npipeline: {tmp_path}/pipeline\n")
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("sys.argv", ["rlhf_nb.train", str(tmp_path / "settings.yaml")])
    before = runs.digest(tmp_path / "runs" / "smoke" / "align")
    with pytest.raises(SystemExit, match=f"^error: .*{words}") as stopped:  # a text as its status prints that text and exits with 1
        config.command("align", align.main)
    assert "\n" not in str(stopped.value) and runs.digest(tmp_path / "runs" / "smoke" / "align") == before
