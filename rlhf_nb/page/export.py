"""What the laboratory page draws with, as scripts that a browser opens from a disk.

Models are ONNX graphs whose weights are stored in half precision, gzipped, in base 64; the rest is JSON.
"""

import base64
import gzip
import io
import json
import re
import shutil
import warnings

import numpy as np
import torch
from torch import nn

from .. import diffusion, hub, reward, schedulers, stages
from ..files import read_json
from ..pictures import ImageFolder
from ..prompts import BACKGROUNDS, COLOURS, COUNTS, TOY, contrast, grammar, phrase, plural, wants
from ..toy import judge
from .look import LOOK

STEPS = range(2, 31)  # that the page offers
POOL, GALLERY = 48, 30  # pictures to label, and to rank


class Function(nn.Module):
    """A function of tensors, with the weights of the module it calls."""

    def __init__(self, call, part):
        super().__init__()
        self.call, self.part = call, part

    def forward(self, *inputs):
        return self.call(*inputs)


def functions(pipe, eye, clip, score):
    """What the page computes with but the U-Nets: {name: (function, the module it calls, example inputs)}.

    Token ids (B, L) are int32, images uint8 (B, H, W, 3); the rest is float.
    """
    vae, towers, length = pipe.vae, clip.model, pipe.tokenizer.model_max_length
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.processor.image_mean, clip.processor.image_std))

    def decode(latents):
        x = vae.decode(latents / vae.config.scaling_factor).sample
        return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)

    def read(images):
        return list(eye(images.permute(0, 3, 1, 2).float() / 127.5 - 1).values())

    def see(images):
        x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
        return clip.projected(x)

    def words(ids):
        return towers.text_projection(towers.text_model(ids.long()).pooler_output)

    ids, images = torch.zeros(2, length, dtype=torch.int32), torch.zeros(2, side, side, 3, dtype=torch.uint8)
    ids[:, -1] = pipe.tokenizer.eos_token_id
    feature = torch.randn(2, clip.width)
    return {
        "text": (lambda ids: pipe.text_encoder(ids.long())[0], pipe.text_encoder, [ids]),
        "decoder": (decode, vae, [_latents(pipe.unet)]),
        "judge": (read, eye, [images]),
        "vision": (see, towers, [images]),
        "words": (words, towers, [ids]),
        "reward": (lambda a, b: score.model(a, b[:, None]).squeeze(1), score.model, [feature, feature]),
    }


def _latents(unet):
    return torch.randn(2, *diffusion.latent_size(unet))


def predictor(unet, length):
    """A U-Net as `functions` has the rest: latents, times (B,) and text (B, L, D) -> what it predicts."""
    text = torch.randn(2, length, unet.config.cross_attention_dim)
    return diffusion.predictor(unet), unet, [_latents(unet), torch.full((2,), 500.0), text]


def graph(call, part, inputs):
    """The bytes of a function's ONNX graph for any batch; the weights of its `part` are in half precision."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names, stream = [f"in{i}" for i in range(len(inputs))], io.BytesIO()
    module = Function(call, part).cpu().eval()
    # the tracer is the old one, which takes a second in place of a minute, and warns
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        out = module(*inputs)
        outs = [f"out{i}" for i in range(len(out) if isinstance(out, list) else 1)]
        torch.onnx.export(
            module,
            tuple(inputs),
            stream,
            dynamo=False,
            do_constant_folding=False,
            input_names=names,
            output_names=outs,
            dynamic_axes={name: {0: "batch"} for name in names + outs},
        )
    model, casts = onnx.load_from_string(stream.getvalue()), []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            name, half = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def script(folder, name, content):
    """Write bytes as the script `name`.js that hands them to the page's `bring`; returns its size."""
    packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'bring("{name}", "{packed}");\n')
    return path.stat().st_size


def tokens(tokenizer):
    """CLIP's tokenizer as JSON has it."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    return {"vocab": model["vocab"], "merges": model["merges"], "length": tokenizer.model_max_length, **ids}


def schedule(scheduler):
    """The sampler's numbers for each number of steps that the noise schedule has different times for."""
    found, table = schedulers.sampler(scheduler), {}
    for steps in STEPS:
        found.set_timesteps(steps)
        if (found.timesteps.diff() < 0).all():
            table[steps] = {"times": found.timesteps.tolist(), "sigmas": found.sigmas.tolist()}
    flow = bool(found.config.get("use_flow_sigmas"))
    return {"predicts": found.config.prediction_type, "flow": flow, "steps": table}


def vocabulary():
    """What the menus offer and every word that a caption has."""
    said = [phrase(w, r) for ws in grammar(TOY.objects).values() for w in ws for r in (False, True)]
    return {
        "count": COUNTS,
        "colour": COLOURS,
        "object": TOY.objects,
        "background": BACKGROUNDS,
        "plural": {noun: plural(noun) for noun in TOY.objects},
        "unseen": TOY.unseen,
        "words": sorted({*re.findall(r"\w+", " ".join(said).lower()), "some", "many"}),
    }


def pictures(images, labels):
    """Pictures to label and to rank, each of a prompt of its own, one half good as the panel says.

    images: an ImageFolder; labels: rows as reward.labelled gives them. {"pool", "gallery"}: lists with "png"
    (base 64), "prompt", what "panel" and "judge" say, and eight sentences, its own first.
    """
    rng = np.random.default_rng([0, 6])
    rows = labels.dropna(subset="truth").query("category == 'combination' and label != 0.5")
    found = {}
    for name, use, size in (("pool", "label", POOL), ("gallery", "test", GALLERY)):
        of = rows[rows.use == use].sample(frac=1, random_state=rng).drop_duplicates("prompt")
        halves = [of.query(f"label {side} 0.5").index[: size // 2] for side in (">", "<")]
        found[name] = [_shown(images, labels, row, rng) for row in rng.permutation(np.concatenate(halves))]
    return found


def _shown(images, labels, row, rng):
    [want] = wants(images.rows.iloc[[row]])
    png = (images.folder / images.rows.file_name.iloc[row]).read_bytes()
    return {
        "png": base64.b64encode(png).decode(),
        "panel": bool(labels.label[row] > 0.5),
        "judge": bool(labels.truth[row] > 0.5),
        "sentences": [phrase(w) for w in (want, *contrast(want, 7, rng, TOY.objects))],
    }


def write(folder, runtime, *, pipe, eye, clip, score, tuned=None, shown=None, **about):
    """The page's scripts in `folder` (a Path): about.js, and in models/ what is loaded when it is asked for.
    Its look, look.css, goes there too.

    runtime: a folder with onnxruntime-web's; tuned: a U-Net or None; shown: as `pictures` gives them, or
    None. `about` joins what the page is told.
    """
    made, length = functions(pipe, eye, clip, score), pipe.tokenizer.model_max_length
    made["base"] = predictor(pipe.unet, length)
    if tuned:
        made["tuned"] = predictor(tuned, length)
    contents = {path.name: path.read_bytes() for path in runtime.iterdir()}
    contents |= {name: graph(*of) for name, of in made.items()}
    if shown:
        contents["pictures"] = json.dumps(shown).encode()
    sizes = {name: script(folder / "models", name, content) for name, content in contents.items()}
    learning = stages.Reward().model_dump(include={"lam", "temperature", "lr"})
    told = {
        "sizes": sizes,
        "latents": diffusion.latent_size(pipe.unet),
        "tokenizer": tokens(pipe.tokenizer),
        "schedule": schedule(pipe.scheduler),
        "vocabulary": vocabulary(),
        "classes": judge.CLASSES,
        "learning": {**learning, "hidden": 128, "updates": 200, "warmup": 20, "decay": 0.05, "clip": 1.0},
        **stages.Generate().model_dump(include={"guidance", "steps"}),
        **about,
    }
    (folder / "about.js").write_text(f"const about = {json.dumps(told)};\n")
    shutil.copy(LOOK, folder)


def parts(runs):
    """What `write` takes, of what the run in folder `runs` (a Path) has finished, else of what is shipped."""

    def finished(stage, part, shipped=""):
        """(the part of a stage, or a shipped folder, or None, and the settings it was made with)."""
        made, known = runs / stage / "manifest.json", hub.ASSETS / shipped
        if made.exists():
            return runs / stage / part, read_json(made, "settings")["settings"]
        return (known if shipped and known.exists() else None), {}

    aligned, training = finished("align", "unet", "tuned")
    learnt, learning = finished("reward", "model", "reward")
    labelled, _ = finished("feedback", "labels.csv")
    drawn, drawing = finished("generate", "images")
    measured, _ = finished("evaluate", "numbers.json")
    found = {name: drawing[name] for name in ("guidance", "steps") if name in drawing}
    if measured:
        found["guidance"] = read_json(measured, "guidance_base")["guidance_base"]
    pipe = diffusion.load(training.get("pipeline", stages.Align().pipeline))
    clip = reward.Clip(learning.get("clip", stages.Reward().clip))
    images = ImageFolder(drawn) if labelled else None
    return found | {
        "pipe": pipe,
        "eye": judge.load(training.get("judge", stages.Align().judge)),
        "clip": clip,
        "score": reward.load(learnt, clip) if learnt else reward.Reward(clip, reward.Similarity()),
        "tuned": diffusion.load_unet(aligned, pipe) if aligned else None,
        "shown": pictures(images, reward.labelled(labelled, images)) if labelled else None,
        "learnt": bool(learnt),
        "labels": read_json(learnt / "card.json").get("labels") if learnt else None,
        "updates": training.get("updates"),
    }
