"""Model folders as they are found: what is odd and right is read, what is wrong is one sentence."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from rlhf_nb import diffusion, hub, readers, reward
from rlhf_nb.toy import judge

PROMPTS = ["A red colored cat.", "Two green stars!"]
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
}


def edit(file, **changes):
    """Change or, by None, drop keys of a JSON file."""
    known = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def rewrite(path, change):
    """Weights in `path`.safetensors after `change`, a function of {name: tensor}."""
    file = path.with_name(f"{path.name}.safetensors")
    save_file(change(load_file(file)), file, {"format": "pt"})


def drawn(folder):
    pipe = diffusion.load(str(folder))
    return diffusion.sample(pipe, PROMPTS, guidance=2.0, steps=3, seed=3)


@pytest.fixture(scope="module")
def expected(sd15_made):
    return drawn(sd15_made / "sd")


def halves(weights):
    return {name: value.half() for name, value in weights.items()}


def fp16_only(folder):
    """Each part under the name of its variant, as many folders ship the half-precision files alone."""
    for path in WEIGHTS.values():
        rewrite(folder / path, halves)
        file = folder / f"{path}.safetensors"
        file.rename(file.with_name(file.name.replace(".", ".fp16.", 1)))


def sharded(folder, variant=None):
    import diffusers
    import transformers

    for part, kind in (
        ("unet", diffusers.UNet2DConditionModel),
        ("vae", diffusers.AutoencoderKL),
        ("text_encoder", transformers.CLIPTextModel),
    ):
        model = kind.from_pretrained(folder / part)
        shutil.rmtree(folder / part)
        model.save_pretrained(folder / part, max_shard_size="20KB", variant=variant)
        assert len(list((folder / part).glob("*.safetensors"))) > 1


def old_attention(folder):
    """The autoencoder's attention by the names it had before diffusers 0.17."""
    names = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def renamed(name):
        for new, old in names.items():
            name = name.replace(new, old) if "attentions" in name else name
        return name

    rewrite(folder / WEIGHTS["vae"], lambda weights: {renamed(n): w for n, w in weights.items()})


def position_ids(folder):
    more = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    rewrite(folder / WEIGHTS["text_encoder"], lambda weights: weights | more)


def old_preprocessor(folder):
    """As Stable Diffusion v1.4 has it: a class that is gone, sizes as plain numbers."""
    file = folder / "feature_extractor/preprocessor_config.json"
    edit(
        file, image_processor_type=None, feature_extractor_type="CLIPFeatureExtractor", size=32, crop_size=32
    )
    edit(folder / "model_index.json", feature_extractor=["transformers", "CLIPFeatureExtractor"])


def two_files(folder, pad="<|endoftext|>", merges=True):
    """The tokenizer as vocab.json and merges.txt, the older form, without tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    special = {"<|startoftext|>": 349, "<|endoftext|>": 350}
    (folder / "vocab.json").write_text(json.dumps(model["vocab"] | special))
    lines = [m if isinstance(m, str) else " ".join(m) for m in model["merges"] if merges]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    edit(folder / "tokenizer_config.json", pad_token=pad, do_lower_case=True, errors="replace")


ALIKE = {
    "fp16 files only": fp16_only,
    "shards": sharded,
    "old attention": old_attention,
    "position ids": position_ids,
    "eos 2": lambda f: edit(f / "text_encoder/config.json", eos_token_id=2, bos_token_id=0, pad_token_id=1),
    "CLIPFeatureExtractor": old_preprocessor,
    "tokenizer in two files": lambda f: two_files(f / "tokenizer"),
    "tokenizer of no length": lambda f: edit(f / "tokenizer/tokenizer_config.json", model_max_length=None),
    "only what is needed": lambda f: [shutil.rmtree(f / p) for p in ("safety_checker", "feature_extractor")],
    "a pipeline for another use": lambda f: edit(
        f / "model_index.json", _class_name="StableDiffusionImg2Img"
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_real_folders_draw_alike(sd15, expected, kind):
    ALIKE[kind](sd15 / "sd")
    assert np.abs(drawn(sd15 / "sd").astype(int) - expected).max() <= (2 if "fp16" in kind else 0)


def test_shards_of_a_variant_are_read(sd15, expected):
    sharded(sd15 / "sd", "fp16")
    assert np.array_equal(drawn(sd15 / "sd"), expected)


def test_stable_diffusion_2_draws_as_the_stock_pipeline(sd15, pipe):
    """Another text encoder, linear projections, v-prediction, heads by level, padding by `!`."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = sd15 / "sd"
    known = json.loads((folder / "text_encoder/config.json").read_text())
    wide = known | {"hidden_size": 24, "hidden_act": "gelu", "num_hidden_layers": 3}
    CLIPTextModel(CLIPTextConfig(**wide)).save_pretrained(folder / "text_encoder")
    shape = dict(UNet2DConditionModel.load_config(folder / "unet"))
    shape |= {"cross_attention_dim": 24, "use_linear_projection": True, "attention_head_dim": [1, 2, 4, 4]}
    UNet2DConditionModel.from_config(shape).save_pretrained(folder / "unet")
    edit(folder / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    two_files(folder / "tokenizer", pad="!")
    ours = diffusion.load(str(folder))
    stock = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    noise = torch.stack([diffusion.noise_of(ours, 3, i) for i in range(2)])
    options = {"guidance_scale": 2.0, "num_inference_steps": 3, "latents": noise, "output_type": "np"}
    theirs = stock(PROMPTS, **options).images * 255
    assert np.abs(theirs - diffusion.sample(ours, PROMPTS, guidance=2.0, steps=3, seed=3)).max() <= 2


def remade(part, **shape):
    """A function that puts a U-Net or an autoencoder of another shape into a folder."""
    import diffusers

    kind = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}[part]
    return lambda f: kind.from_config(dict(kind.load_config(f / part)) | shape).save_pretrained(f / part)


def spoilt(part, value):
    """A function that puts one number into a part's weights."""

    def change(weights):
        next(iter(weights.values())).view(-1)[0] = value
        return weights

    return lambda f: rewrite(f / WEIGHTS[part], change)


def pickled(folder):
    weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save(weights, folder / "unet/diffusion_pytorch_model.bin")


def cut(name, size=300):
    return lambda f: (f / name).write_bytes((f / name).read_bytes()[:size])


def without(name):
    return lambda f: shutil.rmtree(f / name) if (f / name).is_dir() else (f / name).unlink()


def lost_shard(folder):
    sharded(folder)
    sorted((folder / "unet").glob("*.safetensors"))[0].unlink()


def transformer(folder):
    (folder / "unet").rename(folder / "transformer")


WRONG = {
    "inpainting": (remade("unet", in_channels=9), "unet: in_channels 9"),
    "learned variance": (remade("unet", out_channels=8), "unet: out_channels 8"),
    "Flux's autoencoder": (remade("vae", latent_channels=16), "in_channels 4.*16"),
    "grey pictures": (remade("vae", in_channels=1), "vae: in_channels 1"),
    "SDXL": (
        remade(
            "unet",
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
        ),
        "addition_embed_type text_time",
    ),
    "classes": (remade("unet", num_class_embeds=10), "num_class_embeds 10"),
    "class projections": (remade("unet", class_embed_type="timestep"), "class_embed_type timestep"),
    "width": (remade("unet", cross_attention_dim=12), "cross_attention_dim 12.*16"),
    "widths": (remade("unet", cross_attention_dim=(16, 12, 16, 16)), "cross_attention_dim"),
    "oblong": (remade("unet", sample_size=(8, 16)), "sample_size"),
    "no size": (remade("unet", sample_size=None), "sample_size"),
    "no scale": (lambda f: edit(f / "vae/config.json", scaling_factor=0), "scaling_factor"),
    "Stable Diffusion 3": (transformer, "no unet"),
    "NaN unet": (spoilt("unet", float("nan")), "the unet in .* not finite"),
    "inf vae": (spoilt("vae", float("inf")), "the vae in .* not finite"),
    "NaN text": (spoilt("text_encoder", float("nan")), "the text_encoder in .* not finite"),
    "a pickle": (pickled, "unet.*diffusion_pytorch_model.bin.*use_safetensors=False"),
    "no weights": (without("vae/diffusion_pytorch_model.safetensors"), "vae has no weights"),
    "a pointer of git-lfs": (
        lambda f: (f / f"{WEIGHTS['unet']}.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\n"
        ),
        "UNet2DConditionModel",
    ),
    "a lost shard": (lost_shard, "UNet2DConditionModel.*does not appear to have"),
    "no config": (without("text_encoder/config.json"), "text_encoder/config.json is missing"),
    "a config that is no JSON": (cut("unet/config.json", 30), "unet/config.json is damaged"),
    "a config that is a list": (
        lambda f: (f / "vae/config.json").write_text("[]"),
        "holds no JSON object",
    ),
    "a part that is a file": (lambda f: (without("vae")(f), (f / "vae").write_text("")), "vae/config.json"),
    "no merges": (lambda f: two_files(f / "tokenizer", merges=False), "0 merges"),
    "no words": (without("tokenizer/tokenizer.json"), "tokenizer of"),
    "a cut tokenizer": (cut("tokenizer/tokenizer.json"), "CLIPTokenizer"),
    "empty": (lambda f: [without(p.name)(f) for p in list(f.iterdir())], "no model_index.json"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_folders_are_one_sentence_that_names_the_part(sd15, kind):
    change, words = WRONG[kind]
    change(sd15 / "sd")
    with pytest.raises(hub.ModelError, match=words) as caught:
        diffusion.load(str(sd15 / "sd"))
    assert "\n" not in str(caught.value) and str(sd15) in str(caught.value)


NAMES = [
    "",
    "toy",
    "toy/none",
    "/nowhere",
    "~/none",
    "a/b/c",
    "a\0b",
    "x" * 300,
    "https://a.b/c",
    "nobody/none",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_nothing_is_one_sentence(name):
    clip = reward.Clip("toy/clip")
    for load in (diffusion.load, reward.Clip, judge.load, lambda n: readers.load(n, clip)):
        with pytest.raises(hub.ModelError):
            load(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    for load in (diffusion.load, reward.Clip, judge.load):
        with pytest.raises(hub.ModelError, match="is a file.*from_single_file"):
            load(str(tmp_path / "model.ckpt"))


def test_a_home_is_spelt_out(sd15, monkeypatch):
    monkeypatch.setenv("HOME", str(sd15))
    assert reward.Clip("~/clip").width == 16


def test_nothing_foreign_is_taken_for_another_model(sd15, pipe):
    folders = {
        "pipeline": sd15 / "sd",
        "clip": sd15 / "clip",
        "unet": sd15 / "sd/unet",
        "judge": hub.ASSETS / "judge",
    }
    clip = reward.Clip("toy/clip")
    loads = {
        "pipeline": diffusion.load,
        "clip": reward.Clip,
        "judge": judge.load,
        "reader": lambda name: readers.load(name, clip),
        "unet": lambda name: diffusion.load_unet(name, pipe),
    }
    for kind, folder in folders.items():
        for asked, load in loads.items():
            if kind != asked and (kind, asked) != ("judge", "reader"):
                with pytest.raises(hub.ModelError):
                    load(str(folder))


CLIPS = {
    "as it is": lambda f: None,
    "old preprocessor": lambda f: edit(
        f / "preprocessor_config.json",
        image_processor_type=None,
        feature_extractor_type="CLIPFeatureExtractor",
        size=32,
        crop_size=32,
    ),
    "tokenizer in two files": two_files,
    "tokenizer of no length": lambda f: edit(f / "tokenizer_config.json", model_max_length=None),
    "position ids": lambda f: rewrite(
        f / "model", lambda w: w | {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    ),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_real_clips_see_alike(sd15, sd15_made, kind):
    CLIPS[kind](sd15 / "clip")
    one, two = reward.Clip(str(sd15_made / "clip")), reward.Clip(str(sd15 / "clip"))
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), dtype=np.uint8)
    assert torch.equal(one.prompts(PROMPTS), two.prompts(PROMPTS))
    assert torch.equal(one.images(images), two.images(images))


def only_pickle(folder):
    """As HPS v2 is published: one .pt file of another library."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": weights}, folder / "HPS_v2.1_compressed.pt")


BAD_CLIPS = {
    "a pickle": (only_pickle, "HPS_v2.1_compressed.pt is a pickle.*A2_gpu"),
    "NaN": (
        lambda f: rewrite(f / "model", lambda w: w | {"logit_scale": torch.tensor(torch.nan)}),
        "logit_scale",
    ),
    "pictures of another size": (
        lambda f: edit(f / "preprocessor_config.json", crop_size=16, size=16),
        r"\(16, 16\).*\(32, 32\)",
    ),
    "no preprocessor": (without("preprocessor_config.json"), "CLIPImageProcessor"),
    "no words": (without("tokenizer.json"), "tokenizer of"),
    "no config": (without("config.json"), "config.json is missing"),
}


@pytest.mark.parametrize("kind", BAD_CLIPS)
def test_wrong_clips_are_one_sentence(sd15, kind):
    change, words = BAD_CLIPS[kind]
    change(sd15 / "clip")
    with pytest.raises(hub.ModelError, match=words) as caught:
        reward.Clip(str(sd15 / "clip"))
    assert "\n" not in str(caught.value) and str(sd15) in str(caught.value)


def test_a_judge_that_is_not_finite_is_refused(tmp_path):
    shutil.copytree(hub.ASSETS / "judge", tmp_path / "judge")
    rewrite(tmp_path / "judge/model", lambda w: {n: torch.full_like(v, torch.nan) for n, v in w.items()})
    with pytest.raises(hub.ModelError, match="not finite"):
        judge.load(str(tmp_path / "judge"))


def by_open_clip(weights):
    """Weights of a CLIP as OpenCLIP names and packs them."""
    names = {
        "vision_model.embeddings.class": "visual.class",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding": "visual.conv1",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "vision_model.encoder.layers": "visual.transformer.resblocks",
        "visual_projection.weight": "visual.proj",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_model.encoder.layers": "transformer.resblocks",
        "text_projection.weight": "text_projection",
        ".layer_norm": ".ln_",
        ".self_attn.": ".attn.",
        ".fc1": ".c_fc",
        ".fc2": ".c_proj",
    }
    found = {}
    for name, value in weights.items():
        value = value.T if "_projection." in name else value
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        packed = re.sub("[qkv]_proj[.]", "in_proj_", name)
        found.setdefault(packed, {})[name] = value
    # of each attention, by the alphabet: key, query, value
    return {
        name: torch.cat([list(parts.values())[i] for i in (1, 0, 2)]) if len(parts) == 3 else parts[name]
        for name, parts in ((name, dict(sorted(parts.items()))) for name, parts in found.items())
    }


def test_the_lines_of_a2_make_a_folder_of_what_open_clip_publishes(sd15, monkeypatch):
    notebook = json.loads((ROOT / "notebooks/A2_gpu.ipynb").read_text())
    [text] = [t for t in map("".join, (c["source"] for c in notebook["cells"])) if "HPS_v2.1" in t]
    lines = text.split("```python\n")[1].split("```")[0]
    theirs = by_open_clip(load_file(sd15 / "clip/model.safetensors"))
    torch.save({"state_dict": theirs}, sd15 / "HPS_v2.1_compressed.pt")
    monkeypatch.chdir(sd15)
    exec(re.sub('like = ".*"', 'like = "clip"', lines), {})
    one, two = (reward.Clip(str(sd15 / name)) for name in ("clip", "hps-v2.1"))
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), dtype=np.uint8)
    assert torch.equal(one.prompts(PROMPTS), two.prompts(PROMPTS))
    assert torch.equal(one.images(images), two.images(images))
