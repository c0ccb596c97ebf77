"""Artifacts are whole or absent, and everything damaged is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, filled, save_images

from rlhf_nb import align, config, files, hub, locks, pictures, runs, stages


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


def test_partial_work_is_found_again_with_the_same_settings_and_kept_beside_others(runs_folder, capsys):
    made().path("work/checkpoint").write_text("42")
    assert made().path("work/checkpoint").read_text() == "42" and not capsys.readouterr().out
    other = made(seed=1)
    assert (
        not other.path("work/checkpoint").exists()
        and "1 unfinished with other settings or inputs" in capsys.readouterr().out
    )
    other.finish()
    assert made().path("work/checkpoint").read_text() == "42"


def test_a_finished_attempt_is_gone_with_its_last_user(runs_folder):
    run = made()
    run.finish()
    assert run.folder.exists()  # a cell that runs again finds what it left
    del run
    assert sorted(p.name for p in (runs_folder / "smoke").iterdir()) == [".locks", "prompts"]


def test_cells_run_again_change_a_published_stage_by_finishing_it_alone(runs_folder):
    run = made()
    first = run.finish()
    assert run.finish() == first  # the last cell again
    run.csv("prompts.csv", [{"prompt": "Three cats.", "use": "label"}])  # a middle one, changed
    assert (
        "Two cats" in runs.result("smoke", "prompts", "prompts.csv").read_text()
        and runs.manifest("smoke", "prompts") == first
    )
    second = run.finish()
    assert (
        second["digest"] != first["digest"]
        and "Three cats" in runs.result("smoke", "prompts", "prompts.csv").read_text()
    )
    again = runs.Run("prompts", config.settings("prompts"))  # the first cell again: the same attempt
    assert again.folder == run.folder and again.finish() == second


def test_pictures_are_published_by_links_and_stay_what_they_were(runs_folder):
    import numpy as np

    run, images = runs.Run("generate", config.settings("generate")), np.zeros((2, 8, 8, 3), np.uint8)
    save_images(run.path("images"), images, {"prompt": ["a", "b"]})
    run.finish()
    published = runs.result("smoke", "generate", "images")
    pictures.save_pngs(run.path("images"), images + 255, ["000000.png", "000001.png"])
    (run.path("images") / "metadata.csv").write_text("spoiled")
    assert (pictures.ImageFolder(published)[:] == 0).all()


def test_a_stage_without_its_parts_is_not_published(runs_folder):
    good = filled(runs.Run("align", config.settings("align")))
    good.finish()
    with pytest.raises(
        files.ArtifactError, match="'align' still lacks unet, log.csv, curve.csv: run the cells above"
    ):
        other = runs.Run("align", config.settings("align", seed=1))
        other.json("numbers.json", {})
        other.finish()
    assert runs.manifest("smoke", "align")["settings"]["seed"] == 0


MAKER = """
import sys, time
from rlhf_nb import config, locks, runs
locks.PATIENCE = 0.5
try:
    run = runs.Run("prompts", config.settings("prompts"))
except config.UserError as error:
    sys.exit(str(error))
run.path("work/hours").write_text("x")
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
"""


def maker(seconds, folder, **environment):
    """Another process that begins the stage and makes it for so many seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(seconds)],
        cwd=ROOT,
        env={**os.environ, "RLHF_NB_RUNS": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stage_that_is_being_made_refuses_another_process_until_that_is_killed(runs_folder, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    with maker(600, runs_folder) as other:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(
            files.ArtifactError,
            match=rf"'prompts' is being made by another process \(process {other.pid} on .*\): wait for it",
        ):
            made()
        with maker(
            0, runs_folder, RANK="1"
        ) as rank:  # the other ranks of a launch work under the lock of the first
            assert rank.communicate()[0] == "begun\n"
        other.kill()
    run = made()
    assert (run.folder / "work" / "hours").exists()
    with maker(0, runs_folder) as late:
        assert "is being made by another process" in late.communicate()[1]
    run.finish()  # gives the lock back, and takes it again to write
    with maker(600, runs_folder) as other:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(files.ArtifactError, match="is being made by another process"):
            run.csv("prompts.csv", [])
        other.kill()


def test_an_attempt_whose_removal_is_killed_is_not_gone_on_with(runs_folder, monkeypatch):
    run = made()
    run.path("work/weights").write_text("x")
    run.finish()

    def killed(folder, **_):
        (folder / "manifest.json").unlink(missing_ok=True)  # the rest stays

    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", killed)
        del run
    run = made()
    assert not (run.folder / "work" / "weights").exists()
    assert [p.name for p in run.folder.parent.iterdir()] == [run.folder.name]


def test_where_locks_bind_one_machine_only():
    mounts = (
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "40 22 0:50 / /shared rw,relatime shared:1 - nfs4 server:/x rw,vers=4.2,local_lock=none\n"
        "41 22 0:51 / /old rw - nfs server:/y rw,vers=3,local_lock=all\n42 22 0:52 / /lus rw - lustre "
        "m@tcp:/l rw,flock\n43 22 0:53 / /lus/own rw - lustre m@tcp:/l rw,localflock\n44 22 0:54 / /host rw "
        "- virtiofs tag rw\n"
    )
    found = {
        path: locks.local(path, mounts)
        for path in ("/home/x", "/shared/runs", "/old", "/oldest", "/lus/runs", "/lus/own/runs", "/host/runs")
    }
    assert found == {
        "/home/x": "",
        "/shared/runs": "",
        "/old": "nfs",
        "/oldest": "",
        "/lus/runs": "",
        "/lus/own/runs": "lustre",
        "/host/runs": "virtiofs",
    }


def test_a_disk_without_locks_says_so(runs_folder, monkeypatch, capsys):
    monkeypatch.setattr(
        locks.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(38, "Function not implemented"))
    )
    made().finish()
    assert (
        "cannot hold locks (Function not implemented): start no stage there from two machines"
        in capsys.readouterr().err
    )


def test_a_resumed_stage_counts_what_killed_attempts_took(runs_folder):
    first = made()
    begun = json.loads(first.path("work/attempt.json").read_text())["begun"]
    first.path("work/checkpoint").write_text("42")
    for path in (
        first.folder,
        *first.folder.rglob("*"),
    ):  # as if the last write had been 100 s after the start
        os.utime(path, (begun, begun + 100))
    assert 100 <= made().finish()["seconds"] < 110
    del first
    assert made().finish()["seconds"] < 10


def test_missing_inputs_name_the_notebook(runs_folder):
    with pytest.raises(files.ArtifactError, match="01_prompts first"):
        runs.Run("generate", config.settings("generate"), needs=["prompts"])
    made().finish()
    runs.result("smoke", "prompts", "prompts.csv").unlink()
    with pytest.raises(files.ArtifactError, match="run notebook 01_prompts again"):
        runs.result("smoke", "prompts", "prompts.csv")
    (runs_folder / "smoke/prompts/manifest.json").write_text("{")
    with pytest.raises(files.ArtifactError, match="damaged"):
        runs.manifest("smoke", "prompts")


@pytest.mark.parametrize(
    "damage",
    [
        {"digest": None},
        {"inputs": ["prompts"]},
        {"inputs": {"align": "x"}},
        {"inputs": {"prompts": "x"}},
        {"settings": None},
        {"files": []},
        {"seconds": "long"},
        {"finished": None},
    ],
)
def test_a_manifest_that_is_none_is_named(runs_folder, damage):
    made().finish()
    path = runs_folder / "smoke/prompts/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(files.ArtifactError, match="run notebook 01_prompts again .-p scale smoke"):
        runs.manifest("smoke", "prompts")


def test_settings_that_are_no_more_are_named(runs_folder):
    made().finish()
    path = runs_folder / "smoke/prompts/manifest.json"
    path.write_text(path.read_text().replace('"to_test"', '"to_taste"'))
    with pytest.raises(files.ArtifactError, match="'prompts' had other settings .*'to_taste'.* again"):
        runs.settings_of("smoke", "prompts")


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: "", lambda text: text.replace("T", "F")]
)
def test_a_table_that_is_not_what_was_made_is_named(runs_folder, damage):
    made().finish()
    path = runs_folder / "smoke/prompts/prompts.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(
        files.ArtifactError, match="prompts.csv is damaged or was changed by hand: restore it"
    ):
        runs.result("smoke", "prompts", "prompts.csv")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"begun": "x", "spent": NaN}', "[" * 100_000])
def test_a_damaged_attempt_begins_its_count_anew(runs_folder, content):
    run = made()
    for name in ("work/attempt.json", "started.json"):
        run.path(name).write_text(content)
    again = made()
    assert again.folder == run.folder and again.finish()["seconds"] < 60


def test_two_starts_in_one_process_publish_the_whole_stage(runs_folder):
    one, other = made(), made()
    one.csv("more.csv", [{"x": 1}])
    one.finish()
    other.finish()
    there = sorted(p.name for p in (runs_folder / "smoke/prompts").iterdir())
    assert there == ["manifest.json", "more.csv", "prompts.csv"]


@pytest.mark.parametrize(
    "given, folder",
    [
        ("", ROOT / "runs"),
        ("elsewhere/a b", ROOT / "elsewhere/a b"),
        ("~/x", Path.home() / "x"),
        ("/x", Path("/x")),
    ],
)
def test_where_runs_are(monkeypatch, given, folder):
    monkeypatch.setenv("RLHF_NB_RUNS", given)
    for here in (ROOT, ROOT / "notebooks"):
        monkeypatch.chdir(here)
        assert runs.root() == folder


def test_wrong_columns_are_named(tmp_path):
    (tmp_path / "p.csv").write_text("promt,use\nTwo cats.,label\n")
    with pytest.raises(files.ArtifactError, match="no column 'prompt'"):
        files.read_table(tmp_path / "p.csv", ("prompt",))
    with pytest.raises(files.ArtifactError, match="cannot be read"):
        files.read_table(tmp_path / "none.csv", ("prompt",))


def test_images_round_trip_and_a_corrupt_one_is_named(tmp_path):
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    save_images(tmp_path, images, {"prompt": ["a", "b", "c"]})
    folder = pictures.ImageFolder(tmp_path)
    assert np.array_equal(folder[:], images) and np.array_equal(folder[np.array([2, 0])], images[[2, 0]])
    (tmp_path / "000001.png").write_bytes((tmp_path / "000001.png").read_bytes()[:60])
    with pytest.raises(files.ArtifactError, match="000001.png"):
        folder[:]


def test_an_unwritable_folder_is_one_sentence(runs_folder):
    runs_folder.parent.mkdir(exist_ok=True)
    runs_folder.write_text("a file where a folder should be")
    with pytest.raises(
        files.ArtifactError, match="prompts cannot be written .Not a directory.: make room or"
    ):
        made()


def test_a_kill_while_finishing_loses_nothing(runs_folder, monkeypatch):
    run = filled(runs.Run("align", config.settings("align", accumulate=2)))
    run.path("work/checkpoint").write_text("hours")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "digest", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        run.finish()
    again = runs.Run(
        "align", config.settings("align", accumulate=4, extras=("checkpointing",))
    )  # how it runs may change
    assert again.path("work/checkpoint").read_text() == "hours"
    again.finish()
    assert sorted(p.name for p in (runs_folder / "smoke/align").iterdir()) == sorted(
        ["manifest.json", *stages.MAKES["align"]]
    )
    assert not runs.Run("align", config.settings("align", knobs={"beta": 9.0})).path("numbers.json").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def rename_column(path):
    path.write_text(path.read_text().replace("category", "kind", 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, damage, words",
    [
        (
            "runs/smoke/reward/model/model.safetensors",
            cut,
            "reward in .* cannot be loaded .*: run notebook 04_reward again",
        ),
        (
            "runs/smoke/generate/images/000000.png",
            lambda path: path.write_bytes(b"no picture"),
            "000000.png cannot be read .it is in no known format.: restore it or leave it out",
        ),
        (
            "runs/smoke/prompts/prompts.csv",
            rename_column,
            "prompts.csv is damaged or was changed by hand: restore it, or run notebook 01_prompts again",
        ),
        ("pipeline/unet", shutil.rmtree, "has no unet: not a whole folder of a Stable Diffusion"),
        (
            "runs/smoke/align.partial",
            lambda path: path.write_text(""),
            "align.partial/.* cannot be written .*: make room or unlock it",
        ),
    ],
)
def test_bad_input_ends_the_command_with_one_sentence_and_harms_nothing(
    smoke, tmp_path, monkeypatch, file, damage, words
):
    shutil.copytree(smoke / "runs" / "smoke", tmp_path / "runs" / "smoke")
    shutil.copytree(hub.ASSETS / "pipeline", tmp_path / "pipeline")
    damage(tmp_path / file)
    (tmp_path / "settings.yaml").write_text(f"scale: smoke\nseed: 1\npipeline: {tmp_path}/pipeline\n")
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("sys.argv", ["rlhf_nb.align", str(tmp_path / "settings.yaml")])
    before = files.digest(tmp_path / "runs" / "smoke" / "align")
    with pytest.raises(
        SystemExit, match=f"^error: .*{words}"
    ) as stopped:  # a text as its status prints that text and exits with 1
        config.command("align", align.main)
    assert "\n" not in str(stopped.value) and files.digest(tmp_path / "runs" / "smoke" / "align") == before
