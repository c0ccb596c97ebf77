"""The command lines: `accelerate launch` on one process and on two, and the notebook that takes over, with
one settings file.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from conftest import filled, save_images
from safetensors.torch import load_file

from rlhf_nb import align, checkpoints, config, diffusion, files, generate, nets, pictures, runs, train

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow
SETTINGS = "scale: smoke\nupdates: 4\nmodel_batch: 6\npre_batch: 3\nknobs: {power: 2.0}\n"


# accelerate offers FSDP2 on GPUs only; told that it is there, it does the same on processors
SHARDED = """
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from rlhf_nb import align, config
whole = align.accelerator
def sharding(settings):
    engine = whole(settings)
    engine.state.distributed_type = DistributedType.FSDP
    engine.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        cpu_ram_efficient_loading=False,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["BasicTransformerBlock", "ResnetBlock2D"],
    )
    return engine
align.accelerator = sharding
config.command("align", align.main)
"""


def launch(module, file, processes, folder, status=0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = ("--multi_gpu", f"--num_processes={processes}") if processes > 1 else ("--num_processes=1",)
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *several,
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        f"--main_process_port={port}",
        *(["-m"] if module.startswith("rlhf_nb") else []),
        module,
        str(file),
    ]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # alike for one process and two
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **threads, "RLHF_NB_RUNS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (status == 0), done.stdout[-2000:] + done.stderr[-3000:]
    return done


def attempt(folder, stage):
    """The folder of the only attempt at a stage of the runs in `folder`."""
    [found] = (folder / "smoke" / f"{stage}.partial").iterdir()
    return found


def state(folder, pipe):
    """Log rows and averaged weights of the last checkpoint in a run's folder."""
    unet = nets.trainable(pipe, config.settings("align"))
    training = train.Training(unet, train.Plan(steps=4, lr=1e-3, ema=0.9), Accelerator(cpu=True), ())
    checkpoints.restore(training, attempt(folder, "align") / "work")
    return training.rows, training.average


def test_two_processes_train_as_one_and_the_notebook_takes_over(smoke, tmp_path, pipe):
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "sharded.py").write_text(SHARDED)
    ended = {}
    for name, module, processes in (
        ("1", "rlhf_nb.align", 1),
        ("2", "rlhf_nb.align", 2),
        ("sharded", str(tmp_path / "sharded.py"), 2),
    ):
        for stage in ("prompts", "generate", "reward", "feedback"):
            shutil.copytree(smoke / "runs/smoke" / stage, tmp_path / name / "smoke" / stage)
        launch(module, tmp_path / "settings.yaml", processes, tmp_path / name)
        ended[name] = state(tmp_path / name, pipe)
    for one, *others in zip(*(rows for rows, _ in ended.values()), strict=True):
        assert all(
            abs(one[k] - other[k]) <= 1e-5 * abs(one[k])
            for k in ("loss", "model_error", "pre_error")
            for other in others
        ), (one, others)
    for same in zip(*(weights for _, weights in ended.values()), strict=True):
        assert max(float((same[0] - other).abs().max()) for other in same[1:]) < 2e-4
    work = {name: attempt(tmp_path / name, "align") / "work" for name in ("1", "sharded")}
    looks = [load_file(folder / "look-4.safetensors")["drawn"].int() for folder in work.values()]
    assert (looks[0] - looks[1]).abs().max() <= 4  # the whole copy that draws is the sharded model
    (work["sharded"] / "checkpoint-00000004.safetensors").unlink()
    launch(str(tmp_path / "sharded.py"), tmp_path / "settings.yaml", 2, tmp_path / "sharded")  # from step 2
    assert all(
        torch.equal(a, b)
        for a, b in zip(state(tmp_path / "sharded", pipe)[1], ended["sharded"][1], strict=True)
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            "notebooks/05_align.ipynb",
            str(tmp_path / "out.ipynb"),
            "-f",
            str(tmp_path / "settings.yaml"),
            "--cwd",
            "notebooks",
            "-k",
            "python3",
            "--no-progress-bar",
            "--start-timeout",
            "600",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "RLHF_NB_RUNS": str(tmp_path / "2")},
    )
    log = files.read_table(tmp_path / "2/smoke/align/log.csv", ("step", "loss"))
    assert log.loss.tolist() == [
        row["loss"] for row in ended["2"][0]
    ]  # it found the two processes' run and went on from its end


def test_two_processes_draw_what_one_does(smoke, tmp_path):
    (tmp_path / "settings.yaml").write_text("scale: smoke\n")
    shutil.copytree(smoke / "runs/smoke/prompts", tmp_path / "runs/smoke/prompts")
    launch("rlhf_nb.generate", tmp_path / "settings.yaml", 2, tmp_path / "runs")
    drawn, whole = (
        pictures.ImageFolder(attempt(tmp_path / "runs", "generate") / "images"),
        pictures.ImageFolder(smoke / "runs/smoke/generate/images"),
    )
    assert (
        len(drawn) == len(whole) and np.abs(drawn[:].astype(int) - whole[:]).max() <= 2
    )  # another number of threads rounds otherwise


def test_a_command_line_ends_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    file = tmp_path / "settings.yaml"
    file.write_text("scale: smoke\nupdatez: 4\n")
    command = [sys.executable, "-m", "rlhf_nb.align", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "unknown parameter 'updatez'" in done.stderr.splitlines()[-1]
    monkeypatch.setattr("sys.argv", command[2:])
    for text, words in (
        ("- 1\n", "must hold parameter names"),
        ("scale: smoke\n", "run notebook 01_prompts first"),
    ):
        file.write_text(text)
        with pytest.raises(SystemExit, match=f"^error: .*{words}"):
            config.command("align", align.main)


def test_scale_sd15_on_its_own_folder_layout(sd15, monkeypatch):
    """Stages 01, 02, 04 and 05 of scale sd15 by the very calls a GPU machine makes, hub access off:
    people's labels, a folder of captioned pictures, bf16, adapters; the result loads in the stock pipeline.
    """
    from diffusers import StableDiffusionPipeline

    from rlhf_nb import prompts, reward
    from rlhf_nb.feedback import raters, store

    monkeypatch.setenv("RLHF_NB_RUNS", str(sd15 / "runs"))
    places = {"scale": "sd15", "pipeline": str(sd15 / "sd")}
    settings = config.settings("prompts", scale="sd15", to_label=6, to_evaluate=2, to_tune=2, to_test=2)
    run = runs.Run("prompts", settings)
    run.csv(
        "prompts.csv",
        prompts.split_rows(
            prompts.PAPER, settings.to_label, settings.to_tune, settings.to_evaluate, settings.to_test
        ),
    )
    run.finish()
    table = files.read_table(runs.result("sd15", "prompts", "prompts.csv"), ("prompt",))
    settings = config.settings(
        "generate", **places, per_simple=1, per_combination=1, per_test=1, test_seen=1, steps=2
    )
    wanted = prompts.wanted(table, settings).groupby("use").head(9).reset_index(drop=True)
    run = runs.Run("generate", settings, needs=["prompts"])
    pipe = diffusion.load(settings.pipeline)
    generate.draw(
        pipe,
        wanted.prompt.tolist(),
        wanted,
        run.path("images"),
        guidance=settings.guidance,
        steps=settings.steps,
        seed=1,
        batch=8,
    )
    run.finish()
    images = pictures.ImageFolder(runs.result("sd15", "generate", "images"))
    people = store.Store(sd15 / "people.sqlite")
    people.add(
        [
            {"rater": "ann", "image": i, "prompt": p, "label": ("good", "bad")[i % 2]}
            for i, p in enumerate(wanted.prompt)
        ]
    )
    labels = raters.majority(people.table())
    clip = reward.Clip(str(sd15 / "clip"))
    run = runs.Run(
        "reward", config.settings("reward", scale="sd15", clip=str(sd15 / "clip")), needs=["generate"]
    )
    texts = clip.prompts(wanted.prompt.tolist())
    head, _ = reward.fit(
        clip,
        clip.images(images[:]),
        texts,
        torch.arange(len(texts))[:, None].repeat(1, 2),
        torch.tensor(labels.to_numpy()).float(),
        lam=0.5,
        temperature=2.0,
        batch=8,
        updates=4,
        lr=1e-4,
    )
    head.save(run.path("model"), {})
    filled(run).finish()
    save_images(
        sd15 / "laion",
        np.random.default_rng(0).integers(0, 255, (5, 80, 70, 3), dtype=np.uint8),
        pd.DataFrame({"prompt": ["a b"] * 5, "aesthetic": [4.0, 6.0, 6.0, 6.0, 6.0]}),
    )
    (sd15 / "settings.yaml").write_text(
        f"scale: sd15\npipeline: {sd15}/sd\nclip: {sd15}/clip\npretraining: {sd15}/laion\nupdates: "
        "3\nmodel_batch: 4\npre_batch: 4\naccumulate: 2\nlora: 2\nextras: [tensorboard]\n"
    )
    done = launch("rlhf_nb.align", sd15 / "settings.yaml", 1, sd15 / "runs")
    assert "1 low score" in done.stdout and list((sd15 / "runs/sd15/tensorboard").rglob("events*"))
    settings = config.settings("align", **config.read(sd15 / "settings.yaml"))
    run, unet = runs.Run("align", settings, needs=align.NEEDS), nets.trainable(pipe, settings)
    training = train.Training(unet, train.Plan(steps=3, lr=1e-5), Accelerator(cpu=True), ())
    checkpoints.restore(training, run.path("work"))
    diffusion.save_unet(unet, run.path("unet"))
    stock = StableDiffusionPipeline.from_pretrained(sd15 / "sd", safety_checker=None)
    stock.load_lora_weights(run.path("unet"))
    assert stock.get_active_adapters()
