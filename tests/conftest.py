"""Shared parts: the shipped models, loaded once; runs go to a folder of the test's own."""

import os
import shutil
from pathlib import Path

import graph
import pytest
import served

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may reach for the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores are at work on the notebooks
ROOT = graph.ROOT


def pytest_configure(config):
    """Identities are checked to the bit, on the processor; a GPU is there for the tests that need one, when
    they are asked for alone.
    """
    config.pluginmanager.register(Doors())
    if config.option.markexpr == "gpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else sums may come in another order
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_ignore_collect(collection_path, config):
    """Where tests that need a GPU are asked for alone, modules without one are not loaded."""
    if config.option.markexpr == "gpu" and collection_path.suffix == ".py":
        return "mark.gpu" not in collection_path.read_text() or None


# Files of which one worker takes all tests, for they share what is dear to make; the first three, in this
# order, have to wait for the graph.
WAITING = ("tests/doors/", "tests/book/test_notebooks.py", "tests/book/test_book.py")
TOGETHER = (*WAITING, "tests/book/test_laboratory.py", "tests/methods/test_methods.py")


def place(nodeid, places):
    """Which of `places` a test is in, or None."""
    return next((at for at in places if nodeid.startswith(at)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker crosses the doors, one replays the notebooks, one looks at the site; all else is shared out.

    Marks of groups would say so, but pytest-xdist 3.8 looks for them where pytest 9.2 has none.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return place(nodeid, TOGETHER) or nodeid

    config.option.loadscopereorder = False  # else what waits for the graph would be handed out first
    return Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What needs the graph, which is at work in the background, comes after what does not: first the doors,
    which one worker crosses alone for longest, then the notebooks: nbval is at work in the background, too.
    """
    if config.option.markexpr != "gpu":
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(
                    pytest.mark.skip(reason="GPUs are hidden from these tests: run `pytest -m gpu`")
                )

    def turn(item):
        needs = {"box", "replays", "smoke"} & set(getattr(item, "fixturenames", ()))
        if at := place(item.nodeid, WAITING):
            begins = item.name == "test_nbval_begins"
            return 1 + WAITING.index(at), 0 if begins else 2 if "replays" in needs else 1
        return 1 + len(WAITING) if needs else 0, 0

    items.sort(key=turn)


@pytest.fixture(scope="session")
def pipe():
    from rlhf_nb import diffusion

    return diffusion.load("toy/pipeline")


@pytest.fixture(scope="session")
def reader():
    from rlhf_nb.toy import judge

    return judge.load("toy/judge")


def save_images(folder, images, rows):
    """A Hugging Face image folder of `images`: PNG files and metadata.csv with file_name and the columns of
    `rows`.
    """
    from rlhf_nb import pictures

    names = [f"{i:06d}.png" for i in range(len(images))]
    pictures.save_pngs(folder, images, names)
    pictures.save_rows(folder, names, rows)


def filled(run):
    """`run` with everything in it that its stage is not finished without."""
    from rlhf_nb import stages

    for name in stages.MAKES[run.stage]:
        if not (run.folder / name).exists():
            run.path(name).write_text("made")
    return run


def tiny_owl(kind, folder):
    """A tiny random detector, "OwlViT" or "Owlv2", as its library saves it: 16 boxes an image, anywhere."""
    import torch
    import transformers

    from rlhf_nb import hub

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model, shapes, processor, pictures = (
        getattr(transformers, kind + n)
        for n in ("ForObjectDetection", "Config", "Processor", "ImageProcessorPil")
    )
    model(
        shapes(
            text_config={
                **shape,
                "vocab_size": 351,
                "max_position_embeddings": 20,
                "bos_token_id": 349,
                "eos_token_id": 350,
                "pad_token_id": 350,
            },
            vision_config={**shape, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    ).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(hub.ASSETS / "pipeline/tokenizer")
    processor(pictures(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def sd15(sd15_made, tmp_path):
    """A tiny random model in the exact folder layout of Stable Diffusion v1.5, and a CLIP in that of
    ViT-L/14, to do with as a test likes: `sd` and `clip` in a folder.
    """
    return Path(shutil.copytree(sd15_made, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def sd15_made(pipe, tmp_path_factory):
    """What `sd15` is a copy of."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

    tmp_path = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(0)
    ids = {k: getattr(pipe.tokenizer, k) for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {
        "vocab_size": len(pipe.tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": pipe.tokenizer.model_max_length,
        **ids,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        tokenizer=pipe.tokenizer,
        scheduler=scheduler,
        safety_checker=StableDiffusionSafetyChecker(
            CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        ),
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
    ).save_pretrained(tmp_path / "sd")
    clip.save_pretrained(tmp_path / "clip")
    pipe.tokenizer.save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32}).save_pretrained(
        tmp_path / "clip"
    )
    assert {p.name for p in (tmp_path / "sd").iterdir()} == {
        "feature_extractor",
        "model_index.json",
        "safety_checker",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
    }
    return tmp_path


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def browser():
    """A Chromium from the PATH, or the one that `playwright install chromium` brings."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        if not (browser := served.launched(p)):
            if os.environ.get("REQUIRE_BROWSER"):
                pytest.fail("REQUIRE_BROWSER is set and no Chromium is on the PATH")
            pytest.skip("no Chromium on the PATH: browser tests need one")
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def graph_folder(request, tmp_path_factory):
    """Where every notebook is executed at smoke scale, from the beginning on, beside the other tests."""
    if given := os.environ.get("RLHF_NB_SMOKE"):
        return Path(given)  # `graph.run` has filled it before: tests of it alone run in seconds
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    if any("smoke" in getattr(item, "fixturenames", ()) for item in request.session.items):
        graph.shared(folder / "smoke")
    return folder / "smoke"


@pytest.fixture(scope="session")
def smoke(graph_folder):
    """The folder of the whole graph, executed."""
    return graph_folder if "RLHF_NB_SMOKE" in os.environ else graph.waited(graph_folder)


class Doors:
    """The table of doors, which one worker crosses, at the end of the tests."""

    lines = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.lines += getattr(node, "workeroutput", {}).get("doors", [])

    def pytest_sessionfinish(self, session):
        from doors.table import summary

        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["doors"] = summary()
        else:
            self.lines += summary()

    def pytest_terminal_summary(self, terminalreporter):
        if self.lines:
            terminalreporter.section("doors")
            terminalreporter.write_line("\n".join(self.lines))
