"""Stable Diffusion pipelines of any size: load, encode the frozen parts once, sample in batches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import config, losses, train

PARTS = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")


class ModelError(RuntimeError):
    """A model folder or hub name cannot be loaded; the message says what is wrong with it and what to do."""


def loading(cls, name, **options):
    """`cls.from_pretrained(name)`, with every failure turned into one sentence that names the folder and the remedy."""
    where = config.place(name)
    try:
        return cls.from_pretrained(where, **options)
    except Exception as error:  # each library has its own exceptions for a missing, truncated or foreign file
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(f"{cls.__name__} cannot be loaded from {name!r} ({type(error).__name__}: {cause}); restore the folder "
                         "(git checkout, or notebook A1_pretrain for the toy model) or give another folder or hub name") from error


def quiet():
    """No bars or loading reports from the two libraries: errors still show."""
    import diffusers
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def load(name):
    """A diffusers pipeline of Stable Diffusion's architecture, frozen, without the safety checker, silent, in eval mode."""
    import diffusers

    quiet()
    where = Path(config.place(name))
    missing = [p for p in PARTS if where.is_dir() and not (where / p).exists()]
    if missing:
        raise ModelError(f"{name!r} has no {', '.join(missing)}: not a whole Stable Diffusion folder; restore it or give another")
    pipe = loading(diffusers.StableDiffusionPipeline, name, safety_checker=None, requires_safety_checker=False, use_safetensors=True)
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.float().requires_grad_(False).eval()
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def pixels(images):
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def encode_prompts(pipe, prompts, batch=512):
    """Hidden states of every unique prompt: (table (U, L, D) on the CPU, rows (B,) into it)."""
    unique, rows = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
    table = []
    for i in range(0, len(unique), batch):
        ids = pipe.tokenizer(list(unique[i:i + batch]), padding="max_length", truncation=True,
                             max_length=pipe.tokenizer.model_max_length, return_tensors="pt").input_ids
        table.append(pipe.text_encoder(ids.to(pipe.text_encoder.device))[0].cpu())
    return torch.cat(table), torch.from_numpy(rows)


@torch.inference_mode()
def encode_images(vae, images, batch=32):
    """Posterior mean and deviation of uint8 images (N, H, W, 3), scaled as the U-Net expects: (N, C, h, w) each."""
    means, deviations = [], []
    for i in range(0, len(images), batch):
        posterior = vae.encode(pixels(images[i:i + batch]).to(vae.device)).latent_dist
        means.append(posterior.mean.cpu())
        deviations.append(posterior.std.cpu())
    scale = vae.config.scaling_factor
    return torch.cat(means) * scale, torch.cat(deviations) * scale


@torch.inference_mode()
def decode(vae, latents, batch=32):
    """uint8 images (N, H, W, 3) of scaled latents (N, C, h, w)."""
    out = []
    for part in latents.split(batch):
        x = vae.decode(part.to(vae.device) / vae.config.scaling_factor).sample
        out.append(((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def noise_of(pipe, seed, index):
    """Starting noise (C, h, w) of image `index`: a pure function of (seed, index)."""
    size = (pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    return torch.randn(size, generator=train.generator(seed, int(index)))


@torch.inference_mode()
def sample_latents(pipe, prompts, *, guidance, steps, seed, indices=None, batch=128, progress=None, watch=None):
    """Scaled latents (N, C, h, w) of `prompts`, with DPM-Solver++ and classifier-free guidance in one batch.

    Latent i depends on (seed, indices[i], prompt, guidance, steps) alone, not on the batch it is drawn in. `watch(latents)` sees
    every step, `progress(n)` every batch.
    """
    indices = list(range(len(prompts)) if indices is None else indices)
    table, rows = encode_prompts(pipe, [*prompts, ""])
    device, empty = pipe.unet.device, table[rows[-1]]

    def step_end(_, step, t, values):
        if watch is not None:
            watch(values["latents"])
        return values

    latents = []
    for i in range(0, len(prompts), batch):
        noise = torch.stack([noise_of(pipe, seed, k) for k in indices[i:i + batch]])
        latents.append(pipe(prompt_embeds=table[rows[i:i + len(noise)]].to(device), guidance_scale=guidance, num_inference_steps=steps,
                            negative_prompt_embeds=empty.expand(len(noise), -1, -1).to(device), latents=noise.to(device),
                            output_type="latent", callback_on_step_end=step_end).images.cpu())
        if progress is not None:
            progress(len(noise))
    return torch.cat(latents)


def sample(pipe, prompts, **options):
    """Images of `prompts`, uint8 (N, H, W, 3); options as in `sample_latents`."""
    return decode(pipe.vae, sample_latents(pipe, prompts, **options))


def trajectory(pipe, prompts, **options):
    """What the sampler holds before and after every step, decoded: a list of uint8 (N, H, W, 3)."""
    seen = [torch.stack([noise_of(pipe, options["seed"], i) for i in range(len(prompts))])]
    sample_latents(pipe, prompts, batch=len(prompts), watch=lambda latents: seen.append(latents.clone()), **options)
    return [decode(pipe.vae, latents) for latents in seen]


def save_unet(unet, folder):
    """A U-Net in diffusers' own format, without the path it was once loaded from."""
    unet.register_to_config(_name_or_path="")
    unet.save_pretrained(folder, safe_serialization=True)


def load_unet(folder, pipe):
    """A saved U-Net, frozen. Raises ModelError where it does not fit the pipeline's latents or text."""
    from diffusers import UNet2DConditionModel

    unet = loading(UNet2DConditionModel, folder).float().eval().requires_grad_(False)
    for name in ("in_channels", "sample_size", "cross_attention_dim"):
        if unet.config[name] != pipe.unet.config[name]:
            raise ModelError(f"the U-Net in {folder} has {name} {unet.config[name]}, the pipeline {pipe.unet.config[name]}: they are of different models")
    return unet.to(pipe.unet.device, memory_format=torch.channels_last)


@dataclass
class Encoded:
    """Images and prompts after the frozen encoders. Tensors on the CPU: mean, std (N, C, h, w); table (U, L, D); prompt (N,)
    rows into the table; reward (N,)."""

    mean: torch.Tensor
    std: torch.Tensor
    table: torch.Tensor
    prompt: torch.Tensor
    reward: torch.Tensor

    def __len__(self):
        return len(self.mean)

def encode(pipe, images, prompts, reward=None):
    """Everything Eq. 2 needs of `images` and `prompts`, so that training touches the U-Net only."""
    mean, std = encode_images(pipe.vae, images)
    table, rows = encode_prompts(pipe, prompts)
    return Encoded(mean, std, table, rows, torch.ones(len(mean)) if reward is None else torch.as_tensor(reward, dtype=torch.float32))


def eq2(scheduler, empty, model_data, pre_data, *, batch, beta, drop, seed):
    """Eq. 2 as a `loss_at(unet, step)` for train.loop, with the prompt dropped for a share `drop` of the samples.

    batch = (rows of D_model, rows of D_pre) a step; empty (L, D) is the embedding of "". Everything drawn at step s depends on
    (seed, s) alone. Logged: each expectation without its weight.
    """
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(scheduler.config)  # a sampler's own add_noise knows only the few steps it samples at
    sources = [(k, d, n) for k, (d, n) in enumerate(zip((model_data, pre_data), batch, strict=True)) if n]
    is_model = torch.cat([torch.full((n,), k == 0) for k, _, n in sources])

    def loss_at(unet, step):
        g = train.generator(seed, step)
        picked = [(d, train.rows_at(seed + k, step, n, len(d))) for k, d, n in sources]
        mean, std = (torch.cat([getattr(d, f)[r] for d, r in picked]) for f in ("mean", "std"))
        text = torch.cat([d.table[d.prompt[r]] for d, r in picked]).float()
        reward = torch.cat([d.reward[r] for d, r in picked])
        latents = mean + std * torch.randn(mean.shape, generator=g)
        noise = torch.randn(mean.shape, generator=g)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(mean),), generator=g)
        text = torch.where(torch.rand(len(mean), 1, 1, generator=g) < drop, empty, text)
        device = next(unet.parameters()).device
        latents, noise, timesteps, text, reward, kind = (v.to(device) for v in (latents, noise, timesteps, text, reward, is_model))
        error = losses.denoising(unet, scheduler, latents, text, timesteps, noise)
        terms = losses.reward_weighted(error, reward, kind, beta)
        log = {name: error[kind == flag].mean() for name, flag, n in (("model", True, batch[0]), ("pre", False, batch[1])) if n}
        return terms.sum(), log

    return loss_at
