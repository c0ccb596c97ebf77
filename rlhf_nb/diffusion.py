"""Stable Diffusion pipelines of any size: load, encode, sample in batches with any U-Net, save."""

import contextlib
import copy
import math
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from transformers import CLIPTextModel

from . import files, flops, hub, pictures, seeds
from .hub import ModelError
from .schedulers import check_steps, forward_process, sampler, schedule  # noqa: F401

SMALL = 128  # pixels; larger pictures are encoded, drawn and decoded in smaller batches
PARTS = "model_index.json scheduler text_encoder tokenizer unet vae".split()
# what a U-Net is told beside latents, time and text: nothing in Stable Diffusion v1
TOLD = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type")
# what a U-Net shares with its pipeline
FITS = ("in_channels", "out_channels", "sample_size", "cross_attention_dim", *TOLD)


def load(name):
    """A diffusers pipeline of Stable Diffusion's architecture, frozen, without the safety checker, in eval
    mode.

    Raises ModelError for a folder or hub name that is not whole or not of this kind.
    """
    hub.quiet()
    where = Path(hub.place(name))
    missing = [p for p in PARTS if where.is_dir() and not (where / p).exists()]
    if missing:
        raise ModelError(
            f"{name!r} has no {', '.join(missing)}: not a whole folder of a Stable Diffusion of version 1 or "
            "2; restore it or give another"
        )
    kinds = {
        "vae": diffusers.AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "unet": diffusers.UNet2DConditionModel,
    }
    parts = {p: hub.network(kind, name, subfolder=p) for p, kind in kinds.items()}
    fit(name, *(parts[p].config for p in ("unet", "vae", "text_encoder")))
    pipe = diffusers.StableDiffusionPipeline(
        **parts,
        tokenizer=hub.tokenizer(name, parts["text_encoder"].config, subfolder="tokenizer"),
        scheduler=schedule(name),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
        torch.set_float32_matmul_precision("high")  # TF32
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def fit(name, unet, vae, text):
    """Raise ModelError where the configurations of a folder's parts do not make a text-to-image model."""
    width, numbers = unet.cross_attention_dim, (int, float)
    if width == [text.hidden_size] * len(unet.down_block_types):  # one for each level
        width = text.hidden_size
    wanted = {
        "unet: in_channels": (unet.in_channels, vae.latent_channels),
        "unet: out_channels": (unet.out_channels, vae.latent_channels),
        "unet: cross_attention_dim": (width, text.hidden_size),
        "vae: in_channels": (vae.in_channels, 3),
        "vae: out_channels": (vae.out_channels, 3),
        **{f"unet: {told}": (unet[told], None) for told in TOLD},
    }
    for what, (own, right) in wanted.items():
        if own != right:
            raise ModelError(
                f"{name!r} has {what} {own}, a Stable Diffusion with its other parts {right}: give a whole "
                "text-to-image model of version 1 or 2, none for inpainting, upscaling or SDXL"
            )
    positive = ("sample_size", unet.sample_size, int), ("scaling_factor", vae.scaling_factor, numbers)
    for what, value, kind in positive:
        if not isinstance(value, kind) or not 0 < value < math.inf:
            raise ModelError(f"{what} in {name!r} is {value!r}: restore its config.json, a positive number")


def predictor(unet):
    """A U-Net as a function `predict(x_t, t, text)` -> what it predicts, (B, C, h, w)."""
    return lambda x_t, t, text: unet(x_t, t, text).sample


@torch.inference_mode()
def encode_prompts(pipe, prompts):
    """Hidden states of every unique prompt: (table (U, L, D) on the CPU, rows (B,) into it)."""
    encoder = pipe.text_encoder

    def states(tokens):
        ids = tokens.input_ids
        return flops.spend(lambda: encoder(ids)[0], encoder, ids.shape)

    return hub.each_once(prompts, pipe.tokenizer, states, encoder.device)


@torch.inference_mode()
def encode_images(vae, images):
    """Posterior mean and deviation of uint8 images (N, H, W, 3), scaled as the U-Net expects: (N, C, h, w)
    each.
    """
    means, deviations = [], []
    batch = 32 if images.shape[1] <= SMALL else 4
    for part in hub.chunks(images, batch):
        x = pictures.pixels(part).to(vae.device)
        posterior = flops.spend(lambda x=x: vae.encode(x).latent_dist, vae, "encode", x.shape)
        means.append(posterior.mean.cpu())
        deviations.append(posterior.std.cpu())
    scale = vae.config.scaling_factor
    return torch.cat(means) * scale, torch.cat(deviations) * scale


@torch.inference_mode()
def decode(vae, latents):
    """uint8 images (N, H, W, 3) of scaled latents (N, C, h, w)."""
    out = []
    for part in latents.split(32 if latents.shape[-1] * 8 <= SMALL else 4):
        z = part.to(vae.device) / vae.config.scaling_factor
        x = flops.spend(lambda z=z: vae.decode(z).sample, vae, "decode", z.shape)
        levels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        out.append(levels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def batch_of(pipe):
    """How many images are drawn at once."""
    return 128 if pipe.unet.config.sample_size * 8 <= SMALL else 16


def latent_size(unet):
    """(C, h, w) of the latents that a U-Net takes."""
    shape = unet.config
    return shape.in_channels, shape.sample_size, shape.sample_size


def noise_of(pipe, seed, index):
    """Starting noise (C, h, w) of image `index`: a pure function of (seed, index)."""
    return torch.randn(latent_size(pipe.unet), generator=seeds.generator(seed, int(index)))


def with_unet(pipe, unet):
    """The same pipeline with another U-Net; nothing is copied."""
    other = type(pipe)(**{**pipe.components, "unet": unet}, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


@torch.inference_mode()
def sample_latents(pipe, prompts, *, guidance, steps, seed, unet=None, indices=None, batch=None, watch=None):
    """Scaled latents (N, C, h, w) of `prompts`: DPM-Solver++ and classifier-free guidance in one batch.

    `unet` draws in place of the pipeline's own. Latent i depends on (seed, indices[i], prompt, guidance,
    steps) alone, not on the batch it is drawn in. `watch` is a diffusers callback on the end of every step.
    """
    indices = range(len(prompts)) if indices is None else indices
    batch = batch or batch_of(pipe)
    drawer = with_unet(pipe, unet or pipe.unet)
    check_steps(pipe.scheduler, steps)
    table, rows = encode_prompts(pipe, [*prompts, ""])
    device, latents = drawer.unet.device, []
    for i in range(0, len(prompts), batch):
        noise = torch.stack([noise_of(pipe, seed, k) for k in indices[i : i + batch]])
        drawing = partial(
            drawer,
            prompt_embeds=table[rows[i : i + len(noise)]].to(device),
            negative_prompt_embeds=table[rows[-1]].expand(len(noise), -1, -1).to(device),
            guidance_scale=guidance,
            num_inference_steps=steps,
            latents=noise.to(device),
            output_type="latent",
            callback_on_step_end=watch,
        )
        drawn = flops.spend(drawing, drawer.unet, noise.shape, steps, guidance > 1)
        latents.append(drawn.images.cpu())
    return torch.cat(latents)


def sample(pipe, prompts, **options):
    """Images of `prompts`, uint8 (N, H, W, 3); options as in `sample_latents`."""
    return decode(pipe.vae, sample_latents(pipe, prompts, **options))


def trajectory(pipe, prompts, **options):
    """What the sampler holds before and after every step, decoded: a list of uint8 (N, H, W, 3)."""
    rows = options.get("indices") or range(len(prompts))
    seen = [torch.stack([noise_of(pipe, options["seed"], i) for i in rows])]

    def watch(_, step, timestep, held):
        seen.append(held["latents"].clone())
        return held

    sample_latents(pipe, prompts, batch=len(prompts), watch=watch, **options)
    return [decode(pipe.vae, latents) for latents in seen]


def move(pipe, device):
    """Put the frozen parts on a device."""
    for part in (pipe.vae, pipe.text_encoder):
        part.to(device)


@contextlib.contextmanager
def at_work(pipe, unet):
    """The frozen parts on the device and `unet` in eval mode for a while: in training they leave it their
    place.
    """
    training = unet.training
    unet.eval()
    move(pipe, unet.device)
    yield
    move(pipe, "cpu")
    unet.train(training)


def save_unet(unet, folder):
    """A U-Net in diffusers' own format, without the path it was once loaded from.

    One with adapters goes as LoRA weights for `load_lora_weights`. Raises ArtifactError on a full disk.
    """
    with files.writing(folder, SafetensorError):
        Path(folder).mkdir(parents=True, exist_ok=True)
        if getattr(unet, "peft_config", None):
            adapters = get_peft_model_state_dict(unet)
            diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=adapters)
            return
        unet.register_to_config(_name_or_path="")
        unet.save_pretrained(folder, safe_serialization=True)


def load_unet(folder, pipe):
    """A saved U-Net, or the pipeline's own with saved adapters, frozen.

    Raises ModelError where it does not fit the pipeline's latents or text.
    """
    if (Path(folder) / "pytorch_lora_weights.safetensors").exists():
        unet = copy.deepcopy(pipe.unet)
        try:
            unet.load_lora_adapter(str(folder), prefix="unet", use_safetensors=True)
        except Exception as error:
            cause = str(error).splitlines()[0][:150]
            raise ModelError(
                f"the adapters in {folder} do not fit the pipeline's U-Net ({cause}): they are of different "
                "models"
            ) from error
        return hub.finite(unet, f"the U-Net with adapters in {folder}").eval().requires_grad_(False)
    unet = hub.network(diffusers.UNet2DConditionModel, folder)
    for name in FITS:
        own, other = unet.config[name], pipe.unet.config[name]
        if own != other:
            raise ModelError(
                f"the U-Net in {folder} has {name} {own}, the pipeline {other}: they are of different models"
            )
    return unet.to(pipe.unet.device, memory_format=torch.channels_last)
