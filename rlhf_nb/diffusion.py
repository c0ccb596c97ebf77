"""Stable Diffusion pipelines of any size: load, encode the frozen parts once, sample in batches."""

import copy
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from . import config, losses, runs, train

PATIENCE = timedelta(hours=6)  # of processes that wait for the first one to draw, hash or save
SMALL = 128  # pixels; larger pictures are encoded, drawn and decoded in smaller batches
PARTS = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae")


class ModelError(config.UserError, RuntimeError):
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


def network(cls, name, **options):
    """`loading` of a network whose weights are all there; the libraries would leave a missing one random."""
    model, report = loading(cls, name, output_loading_info=True, **options)
    if report["missing_keys"]:
        part = options.get("subfolder", "model")
        raise ModelError(f"the {part} in {name!r} lacks {len(report['missing_keys'])} weights: restore the folder or give another folder or hub name")
    return model


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
    from transformers import CLIPTextModel

    quiet()
    where = Path(config.place(name))
    missing = [p for p in PARTS if where.is_dir() and not (where / p).exists()]
    if missing:
        raise ModelError(f"{name!r} has no {', '.join(missing)}: not a whole Stable Diffusion folder; restore it or give another")
    kinds = {"vae": diffusers.AutoencoderKL, "text_encoder": CLIPTextModel, "unet": diffusers.UNet2DConditionModel}
    parts = {part: network(kind, name, subfolder=part, use_safetensors=True) for part, kind in kinds.items()}
    pipe = loading(diffusers.StableDiffusionPipeline, name, **parts, safety_checker=None, requires_safety_checker=False)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": pipe.scheduler.config.get("shift", 1.0)}
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, **(flow if "FlowMatch" in type(pipe.scheduler).__name__ else {}))
    if pipe.scheduler.config.prediction_type not in losses.PREDICTIONS:
        raise ModelError(f"{name!r} predicts {pipe.scheduler.config.prediction_type!r}: give a model that predicts one of {', '.join(losses.PREDICTIONS)}")
    if len(pipe.tokenizer) > pipe.text_encoder.config.vocab_size:
        raise ModelError(f"the tokenizer of {name!r} knows {len(pipe.tokenizer)} tokens, its text encoder {pipe.text_encoder.config.vocab_size}: "
                         "they are of different models, restore the folder")
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.float().requires_grad_(False).eval()
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
        torch.set_float32_matmul_precision("high")  # TF32
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
def encode_images(vae, images):
    """Posterior mean and deviation of uint8 images (N, H, W, 3), scaled as the U-Net expects: (N, C, h, w) each."""
    means, deviations, batch = [], [], 32 if images.shape[1] <= SMALL else 4
    for i in range(0, len(images), batch):
        posterior = vae.encode(pixels(images[i:i + batch]).to(vae.device)).latent_dist
        means.append(posterior.mean.cpu())
        deviations.append(posterior.std.cpu())
    scale = vae.config.scaling_factor
    return torch.cat(means) * scale, torch.cat(deviations) * scale


@torch.inference_mode()
def decode(vae, latents):
    """uint8 images (N, H, W, 3) of scaled latents (N, C, h, w)."""
    out = []
    for part in latents.split(32 if latents.shape[-1] * 8 <= SMALL else 4):
        x = vae.decode(part.to(vae.device) / vae.config.scaling_factor).sample
        out.append(((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def batch_of(pipe):
    """How many images are drawn at once."""
    return 128 if pipe.unet.config.sample_size * 8 <= SMALL else 16


def noise_of(pipe, seed, index):
    """Starting noise (C, h, w) of image `index`: a pure function of (seed, index)."""
    size = (pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    return torch.randn(size, generator=train.generator(seed, int(index)))


@torch.inference_mode()
def sample_latents(pipe, prompts, *, guidance, steps, seed, indices=None, batch=None, watch=None):
    """Scaled latents (N, C, h, w) of `prompts`, with DPM-Solver++ and classifier-free guidance in one batch.

    Latent i depends on (seed, indices[i], prompt, guidance, steps) alone, not on the batch it is drawn in. `watch` is a diffusers callback
    on the end of every step.
    """
    indices, batch = list(range(len(prompts)) if indices is None else indices), batch or batch_of(pipe)
    table, rows = encode_prompts(pipe, [*prompts, ""])
    device, empty = pipe.unet.device, table[rows[-1]]

    latents = []
    for i in range(0, len(prompts), batch):
        noise = torch.stack([noise_of(pipe, seed, k) for k in indices[i:i + batch]])
        latents.append(pipe(prompt_embeds=table[rows[i:i + len(noise)]].to(device), guidance_scale=guidance, num_inference_steps=steps,
                            negative_prompt_embeds=empty.expand(len(noise), -1, -1).to(device), latents=noise.to(device),
                            output_type="latent", callback_on_step_end=watch).images.cpu())
    return torch.cat(latents)


def sample(pipe, prompts, **options):
    """Images of `prompts`, uint8 (N, H, W, 3); options as in `sample_latents`."""
    return decode(pipe.vae, sample_latents(pipe, prompts, **options))


def trajectory(pipe, prompts, **options):
    """What the sampler holds before and after every step, decoded: a list of uint8 (N, H, W, 3)."""
    seen = [torch.stack([noise_of(pipe, options["seed"], i) for i in range(len(prompts))])]

    def watch(_, step, timestep, held):
        seen.append(held["latents"].clone())
        return held

    sample_latents(pipe, prompts, batch=len(prompts), watch=watch, **options)
    return [decode(pipe.vae, latents) for latents in seen]


def draw(pipe, prompts, rows, folder, *, seed, batch=None, progress=None, rank=0, world=1, **options):
    """A runs.Images folder of `prompts` with metadata `rows`, written by a thread beside the drawing; options as in `sample_latents`.

    What is there already is not drawn again: a killed call goes on where it stopped and ends with the same bits. Of `world` processes
    each draws its own batches; the first writes the metadata.
    """
    from concurrent.futures import ThreadPoolExecutor

    names = [f"{i:06d}.png" for i in range(len(prompts))]
    batch = batch or batch_of(pipe)
    starts = range(0, len(prompts), batch)
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for start in starts[rank::world]:
            part = range(start, min(start + batch, len(prompts)))
            if not all((Path(folder) / names[i]).exists() for i in part):
                images = sample(pipe, [prompts[i] for i in part], seed=seed, indices=part, batch=batch, **options)
                if pending:
                    pending.result()  # one batch waits at most, and an error of the writer stops the drawing
                pending = pool.submit(runs.save_pngs, folder, images, [names[i] for i in part])
            if progress is not None:
                progress(len(part))
        if pending:
            pending.result()
    if rank == 0:
        runs.save_rows(folder, names, rows)


def sample_kept(pipe, prompts, folder, **options):
    """`sample` with the pictures kept in `folder`, so that a killed call goes on where it stopped; options as in `draw`."""
    draw(pipe, prompts, {"prompt": prompts}, folder, **options)
    return runs.Images(folder)[:]


def save_unet(unet, folder):
    """A U-Net in diffusers' own format, without the path it was once loaded from; one with adapters as LoRA weights for `load_lora_weights`."""
    if getattr(unet, "peft_config", None):
        from diffusers import StableDiffusionPipeline
        from peft.utils import get_peft_model_state_dict

        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
        return
    unet.register_to_config(_name_or_path="")
    unet.save_pretrained(folder, safe_serialization=True)


def load_unet(folder, pipe):
    """A saved U-Net, or the pipeline's own with saved adapters, frozen. Raises ModelError where it does not fit the pipeline's latents or text."""
    from diffusers import UNet2DConditionModel

    if (Path(folder) / "pytorch_lora_weights.safetensors").exists():
        unet = copy.deepcopy(pipe.unet)
        try:
            unet.load_lora_adapter(str(folder), prefix="unet", use_safetensors=True)
        except Exception as error:
            cause = str(error).splitlines()[0][:150]
            raise ModelError(f"the adapters in {folder} do not fit the pipeline's U-Net ({cause}): they are of different models") from error
        return unet.eval().requires_grad_(False)
    unet = network(UNet2DConditionModel, folder).float().eval().requires_grad_(False)
    for name in ("in_channels", "sample_size", "cross_attention_dim"):
        if unet.config[name] != pipe.unet.config[name]:
            raise ModelError(f"the U-Net in {folder} has {name} {unet.config[name]}, the pipeline {pipe.unet.config[name]}: they are of different models")
    return unet.to(pipe.unet.device, memory_format=torch.channels_last)


def main(settings):
    """`accelerate launch -m rlhf_nb.diffusion settings.yaml`: draw the images of stage `generate` on all processes, resumably.

    The file holds parameters of notebook 02 by name. That notebook, run with the same settings afterwards, finds all drawn and finishes the stage.
    """
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from . import prompts

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    with state.main_process_first():
        run = runs.Run("generate", settings, needs=["prompts"])
    wanted = prompts.wanted(runs.table(run.read("prompts", "prompts.csv"), ("prompt", "category", "split", "use")), settings)
    with tqdm(total=-(-len(wanted) // state.num_processes), desc="images", disable=not state.is_main_process) as bar:
        draw(load(settings.pipeline), wanted.prompt.tolist(), wanted.assign(guidance=settings.guidance), run.path("images"), guidance=settings.guidance,
             steps=settings.steps, seed=settings.seed + 1, progress=bar.update, rank=state.process_index, world=state.num_processes)
    state.wait_for_everyone()


if __name__ == "__main__":
    config.command("generate", main)
