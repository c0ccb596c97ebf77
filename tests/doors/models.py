"""The doors of models: every file of a pipeline, a CLIP, a judge, a detector, a reward head, a tuned U-Net,
adapters, checkpoints and caches.
"""

import shutil
from types import SimpleNamespace

import numpy as np
import torch
from conftest import tiny_owl
from doors import kinds
from doors.doors import Door, objects, of_file, weights
from torch import nn

from rlhf_nb import align, batches, diffusion, hub, nets, photos, readers, reward, rollout, train
from rlhf_nb.pictures import ImageFolder
from rlhf_nb.toy import judge

BYTES = [k for k in kinds.FILES if k not in ("doubled", "a pointer of git lfs", "one byte", "a picture")]
FEW = [k for k in BYTES if k not in ("latin-1", "NUL bytes", "last byte cut", "no permission")]


def finite(*models):
    """Whether all weights are; a model that is not would draw black pictures for hours."""
    for model in models:
        for name, value in model.state_dict().items():
            assert not value.is_floating_point() or value.isfinite().all(), f"accepted with {name} not finite"


def copied(source, target):
    shutil.copytree(source, target)
    return target


def parts(family, folder, opens, named=(), weightless=()):
    """A door for every file of a model's folder."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, words = f"{family} {path.relative_to(folder)}", (folder.name, path.parent.name, *named)
        if path.suffix == ".safetensors":
            yield weights("models", name, path, opens, words)
        elif path.suffix == ".json":
            yield from objects("models", name, path, opens, words, keys=False, files=FEW)
        else:
            yield Door("models", name, (path.name, *words), of_file(path, opens, kinds.FILES))


def pipeline(box):
    folder = copied(hub.ASSETS / "pipeline", box.folder / "pipeline")

    def opens():
        pipe = diffusion.load(str(folder))
        finite(pipe.unet, pipe.vae, pipe.text_encoder)
        pipe.scheduler.set_timesteps(2)
        states, _ = diffusion.encode_prompts(pipe, ["Two cats."])
        size = pipe.unet.config.sample_size
        noise = torch.zeros(1, pipe.unet.config.in_channels, size, size)
        with torch.inference_mode():
            drawn = pipe.unet(noise, torch.tensor([1]), states).sample
        assert diffusion.decode(pipe.vae, drawn).shape[3] == 3

    return parts("pipeline", folder, opens)


def clip(box):
    folder = copied(hub.ASSETS / "clip", box.folder / "clip")

    def opens():
        model = reward.Clip(str(folder))
        finite(model.model)
        size = model.model.config.vision_config.image_size
        image = np.zeros((1, size, size, 3), np.uint8)
        assert torch.cat([model.images(image), model.prompts(["Two cats."])]).shape == (2, model.width)

    return parts("clip", folder, opens)


def judges(box):
    folder = copied(hub.ASSETS / "judge", box.folder / "judge")

    def opens():
        model = readers.load(str(folder), box.clip)
        finite(model)
        judge.read(model, np.zeros((1, 64, 64, 3), np.uint8))

    return parts("judge", folder, opens)


def detector(box):
    folder = tiny_owl("Owlv2", box.folder / "owl")

    def opens():
        model = readers.load(str(folder), box.clip)
        assert isinstance(model, photos.Detector)
        finite(model.model)

    return parts("detector", folder, opens)


def head(box):
    folder = box.result("reward", "model")

    def opens():
        model = reward.scorer("learnt", folder, box.clip)
        finite(model.model)
        text = torch.zeros(2, box.clip.width)
        assert model.of_features(text, text).shape == (2,)

    yield weights("models", "reward model.safetensors", folder / "model.safetensors", opens, ("reward",))


def tuned(box):
    folder = box.result("align", "unet")

    def opens():
        finite(diffusion.load_unet(folder, box.pipe))

    return parts("tuned", folder, opens)


def adapters(box):
    folder = box.folder / "lora"
    settings = box.defaults["align"].model_copy(update={"lora": 2})
    diffusion.save_unet(nets.trainable(box.pipe, settings), folder)

    def opens():
        finite(diffusion.load_unet(folder, box.pipe))

    return parts("adapters", folder, opens)


def checkpoint(box):
    """A training that goes on; without a whole checkpoint it begins anew."""
    folder = box.folder / "training"

    def model():
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    def loss_at(model, step):
        loss = model(torch.ones(4, 3)).square().mean()
        return loss, {"error": loss}

    plan = train.Plan(steps=4, lr=1e-2, ema=0.5, log_every=2, save_every=4)
    list(train.loop(model(), [loss_at], plan, folder=folder, engine=box.engine))
    [path] = folder.glob("*.safetensors")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata()

    def opens():
        again = model()
        rows = list(train.loop(again, [loss_at], plan, folder=folder, engine=box.engine))
        assert [row["step"] for row in rows] == [2, 4]
        finite(again)

    named = ("checkpoint", "training")
    yield weights("models", "checkpoint", path, opens, named, mends=True, about=about)
    whole = path.read_bytes()

    def told(kind):
        def damage(path):
            from safetensors.torch import load, save_file

            changed = about | dict.fromkeys(about, kinds.KEYS[kind]) if kinds.KEYS[kind] else {}
            save_file(load(whole), path, changed)

        return damage

    cells = of_file(path, opens, {kind: told(kind) for kind in kinds.KEYS}, mends=True)
    yield Door("models", "checkpoint's metadata", (path.name, *named), cells)


def features(box):
    """The cache of CLIP's features."""
    folder = box.folder / "few"
    shutil.copytree(
        hub.ASSETS.parents[2] / "tests" / "eye",
        folder,
        ignore=lambda _, names: [name for name in names if name > "000003" and name != "metadata.csv"],
    )
    lines = (folder / "metadata.csv").read_text().splitlines()[:4]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    images, cache = ImageFolder(folder), box.folder / "features"
    right = box.clip.folder(images, cache)
    [path] = cache.iterdir()

    def opens():
        found = box.clip.folder(images, cache)
        assert found.shape == right.shape and found.isfinite().all(), "other features"

    yield weights("models", "cache of features", path, opens, ("cache", "features"), mends=True)


def encoded(box):
    """The cache of what frozen encoders say."""
    cache = box.folder / "encoded"
    pairs = list(zip(box.images[0:2], box.images.rows.prompt[:2], strict=True))
    right = batches.encode(box.pipe, pairs, cache).take(torch.arange(2))
    [path] = cache.iterdir()

    def opens():
        found = batches.encode(box.pipe, pairs, cache).take(torch.arange(2))
        for a, b in zip(found, right, strict=True):
            assert a.shape == b.shape and a.isfinite().all(), "other latents"

    yield weights("models", "cache of latents", path, opens, ("cache", "encoded"), mends=True)


def rounds(box):
    """What a round of fresh images has drawn."""
    folder = box.folder / "rounds"
    asked = SimpleNamespace(count=1, prompts=1, images=2, guidance=1.0, steps=1)
    settings = SimpleNamespace(seed=0, rounds=asked, model_batch=2, accumulate=1)
    method = SimpleNamespace(RECORD=(), DRAWS="policy")
    unets = nets.Nets(box.pipe, box.pipe.unet)
    of = SimpleNamespace(settings=settings, engine=box.engine, method=method, knobs=None, nets=unets)
    drawing = rollout.Rounds(
        of, box.pipe, lambda images, prompts: np.full(len(images), 0.5), ["Two cats."], folder
    )
    drawing.samples(0)
    [path] = folder.rglob("*.safetensors")

    def opens():
        found = drawing.samples(0)
        assert len(found) == 2 and found.reward.isfinite().all()
        assert torch.cat(found.encoded.take(torch.arange(2))[:2]).isfinite().all(), "not finite"

    yield weights("models", "a round's images", path, opens, ("round",), mends=True)


def looks(box):
    """The pictures that 05 has drawn on the way."""
    score = reward.load(box.result("reward", "model"), box.clip)
    watch = align.Watch(box.align, box.pipe, score, box.clip)
    watch(box.pipe.unet, 0)
    path = box.align.path("work/look-0.safetensors")

    def opens():
        watch(box.pipe.unet, 0)
        assert watch.pictures[-1].dtype == np.uint8 and len(watch.pictures[-1]) == len(watch.prompts)

    yield weights("models", "looks of a training", path, opens, ("look",), mends=True)


ALL = (
    *(pipeline, clip, judges, detector, head, tuned, adapters),
    *(checkpoint, features, encoded, rounds, looks),
)
