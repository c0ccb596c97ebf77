"""Shared parts: the shipped models, loaded once; runs go to a folder of the test's own."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach for the network
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # identities are checked to the bit, on the processor
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def pipe():
    from rlhf_nb import diffusion

    return diffusion.load("toy/pipeline")


@pytest.fixture(scope="session")
def reader():
    from rlhf_nb import judge

    return judge.load("toy/judge")


def save_images(folder, images, rows):
    """A Hugging Face image folder of `images`: PNG files and metadata.csv with file_name and the columns of `rows`."""
    from rlhf_nb import runs

    names = [f"{i:06d}.png" for i in range(len(images))]
    runs.save_pngs(folder, images, names)
    runs.save_rows(folder, names, rows)


def tiny_owl(kind, folder):
    """A tiny random detector, "OwlViT" or "Owlv2", as its library saves it: 16 boxes an image, anywhere."""
    import torch
    import transformers

    from rlhf_nb import config

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model, shapes, processor, pictures = (getattr(transformers, kind + n) for n in ("ForObjectDetection", "Config", "Processor", "ImageProcessorPil"))
    model(shapes(
        text_config={**shape, "vocab_size": 351, "max_position_embeddings": 20, "bos_token_id": 349, "eos_token_id": 350, "pad_token_id": 350},
        vision_config={**shape, "image_size": 32, "patch_size": 8}, projection_dim=16)).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(config.ASSETS / "toy/pipeline/tokenizer")
    processor(pictures(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail("REQUIRE_BROWSER is set and no Chromium is on the PATH")
        pytest.skip("no Chromium on the PATH: browser tests need one")
    return found


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Every notebook executed at smoke scale through the graph: the folder of executed copies, beside runs/."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("smoke")
    (folder / "book").mkdir()
    for page in (ROOT / "book").iterdir():
        if page.name not in ("notebooks",):
            (shutil.copytree if page.is_dir() else shutil.copy)(page, folder / "book" / page.name)
    environment = {**os.environ, "RLHF_NB_RUNS": str(folder / "runs"), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "-s", "notebooks/Snakefile", "--cores", "2", "--quiet", "all", "--nolock",
               "--config", "scale=smoke", f"out={folder}/book/notebooks"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder
