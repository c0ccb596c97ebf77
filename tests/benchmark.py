"""`python tests/benchmark.py`: ours against the stock way in the same run, alternating, as ratios.

Training: the loop of diffusers' own text-to-image example, which encodes pictures and prompts in every step,
on the same U-Net, batch, precision and optimiser. Sampling: the stock pipeline called prompt by prompt with
the same solver and steps. `--sd15` takes the true architecture of Stable Diffusion v1.5 with random weights
(a GPU's work), `--pipeline` any folder.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import torch
from equation import eq2

from rlhf_nb import batches, config, diffusion, losses, nets, pictures, seeds

LINE = "{:44} {:>8} {:>12} {:>12}"


def random_sd15(device):
    """A pipeline of Stable Diffusion v1.5's architecture with random weights; its tokenizer is the toy's,
    whose length is set to 77.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    toy = diffusion.load("toy/pipeline")
    toy.tokenizer.model_max_length = 77
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                eos_token_id=toy.tokenizer.eos_token_id,
            )
        )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=toy.tokenizer,
        unet=unet,
        scheduler=toy.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for part in (vae, text, unet):
        part.requires_grad_(False).eval()
    unet.to(memory_format=torch.channels_last)
    return pipe


def clock(device, work):
    """Seconds of work()."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def alternating(device, ways, rounds):
    """Median seconds of each way, {name: seconds}: one round to warm up, then turn about, so that a busy
    spell hits both.
    """
    times = [{name: clock(device, work) for name, work in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(t[name] for t in times) for name in ways}


def matmul(device, dtype, times=10):
    """A large square matrix product, `times` over, as work to be timed beside other work; and its FLOP."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: [a @ b for _ in range(times)], 2 * size**3 * times


def step_flops(unet, batch, text):
    """FLOP of one forward and backward pass, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    device, c = next(unet.parameters()).device, unet.config
    x, t = (
        torch.randn(1, c.in_channels, c.sample_size, c.sample_size, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
    )
    with FlopCounterMode(display=False) as counter:
        unet(x, t, text.to(device)).sample.mean().backward()
    return counter.get_total_flops() * batch


def training(pipe, images, sentences, batch, precision, rounds, lora=0, extras=()):
    """What a step of `batch` takes, ours and the stock way: {"ours", "stock"} in seconds, "of_ceiling", our
    share of the FLOP/s of a large matrix product measured turn about with the steps, "ceiling", those FLOP/s,
    and "peak", the peak GiB of ours on a GPU.
    """
    from diffusers import DDPMScheduler

    device, schedule = pipe.unet.device, DDPMScheduler.from_config(pipe.scheduler.config)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    encoded = batches.encode(pipe, zip(images, sentences, strict=True), half=half is not None)
    loss_at = eq2(pipe, encoded, batch=(batch, 0)).loss_at

    def stepper(loss_of):
        unet = nets.trainable(pipe, config.settings("align", lora=lora, extras=extras)).train()
        optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-6, fused=True)
        steps = iter(range(1_000_000))

        def step():
            with torch.autocast(device.type, half, enabled=half is not None):
                loss = loss_of(unet, next(steps))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def stock(unet, step):
        rows = seeds.rows_at(0, step, batch, len(images)).tolist()
        with torch.no_grad():
            latents = (
                pipe.vae.encode(pictures.pixels(images[rows]).to(device)).latent_dist.sample()
                * pipe.vae.config.scaling_factor
            )
            ids = pipe.tokenizer(
                [sentences[r] for r in rows],
                padding="max_length",
                truncation=True,
                max_length=pipe.tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            text = pipe.text_encoder(ids.to(device))[0]
        noise, timesteps = torch.randn_like(latents), torch.randint(1000, (batch,), device=device)
        return losses.denoising(diffusion.predictor(unet), schedule, latents, text, timesteps, noise).mean()

    flops = step_flops(
        nets.trainable(pipe, config.settings("align", lora=lora)),
        batch,
        encoded.take(torch.zeros(1, dtype=torch.long))[2],
    )
    ours = stepper(lambda unet, step: loss_at(unet, step)[0])
    ours()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    product, size = matmul(device, half or torch.float32)
    seconds = alternating(device, {"ours": ours, "stock": stepper(stock), "ceiling": product}, rounds)
    ceiling = size / seconds.pop("ceiling")
    return seconds | {"ceiling": ceiling, "of_ceiling": flops / seconds["ours"] / ceiling, "peak": peak}


def sampling(pipe, sentences, steps, batch, rounds, few=4):
    """Seconds an image, ours in batches and the stock pipeline prompt by prompt: {"ours", "stock"}."""
    many = (sentences * batch)[:batch]

    def stock():
        for i, sentence in enumerate(sentences[:few]):
            pipe(
                sentence,
                num_inference_steps=steps,
                guidance_scale=7.5,
                generator=torch.Generator().manual_seed(i),
            )

    def ours():
        diffusion.sample(pipe, many, guidance=7.5, steps=steps, seed=0, batch=batch)

    seconds = alternating(pipe.unet.device, {"ours": ours, "stock": stock}, rounds)
    return {"ours": seconds["ours"] / batch, "stock": seconds["stock"] / few}


def growth(pipe, count, few, rounds, batch=64):
    """What `count` pictures cost beside `few`, turn about: {"encoding": ms an image, "step": ms, "memory":
    peak MiB of its own}, (few, count) each.
    """
    import tempfile

    some = np.random.default_rng(0).integers(0, 255, (1024, 64, 64, 3), dtype=np.uint8)
    device, unet = pipe.unet.device, copy.deepcopy(pipe.unet).requires_grad_(True)
    shards, small, peaks = iter(range(1_000_000)), [], []

    def pairs(n):  # no two shards alike
        return ((np.roll(some[i % 1024], i // 1024, 0), f"Scene {i % 2000}.") for i in range(n))

    def own():
        if not Path("/proc/self/status").exists():
            return psutil.Process().memory_full_info().uss / 2**20
        return (
            next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
            / 1024
        )

    def look(_):
        peaks.append(own())
        if next(shards) % 16 == 0:
            with tempfile.TemporaryDirectory() as folder:
                small.append(clock(device, lambda: batches.encode(pipe, pairs(few), folder)) / few)

    def stepper(encoded):
        loss_at = eq2(pipe, encoded, unet=unet, batch=(batch, 0)).loss_at
        steps = iter(range(1_000_000))
        return lambda: (loss_at(unet, next(steps))[0].backward(), peaks.append(own()))

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as cache:
        little = stepper(batches.encode(pipe, pairs(few), first, progress=lambda _: peaks.append(own())))
        clock(device, lambda: [little() for _ in range(4)])
        before, made = max(peaks), []
        whole = clock(device, lambda: made.append(batches.encode(pipe, pairs(count), cache, progress=look)))
        seconds = alternating(device, {"few": little, "count": stepper(made[0])}, rounds)
    return {
        "encoding": (1e3 * statistics.median(small), 1e3 * (whole - sum(small) * few) / count),
        "step": (1e3 * seconds["few"], 1e3 * seconds["count"]),
        "memory": (before, max(peaks)),
    }


def grown(pipe, count, rounds):
    """Print and return what `growth` finds beside 1,000 images, or half as many if that is fewer."""
    some = min(1000, count // 2)
    print(LINE.format("as a set of images grows", "ratio", f"{count}", f"{some}"))
    units = {"encoding": "ms an image", "step": "ms", "memory": "MiB of its own"}
    rows = [
        {"what": f"{what}, {units[what]}", "images": count, "ratio": many / few, "many": many, "few": few}
        for what, (few, many) in growth(pipe, count, some, rounds).items()
    ]
    for row in rows:
        print(LINE.format(row["what"], f"{row['ratio']:.2f}", f"{row['many']:.2f}", f"{row['few']:.2f}"))
    return rows


def against_stock(pipe, options):
    """Print and return the ratios of training, for every precision and batch, and of sampling."""
    device = pipe.unet.device
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    images = np.random.default_rng(0).integers(
        0, 255, (max(options.batches) * 2, side, side, 3), dtype=np.uint8
    )
    rows, sentences = (
        [],
        [f"Two green {w} in the sea." for w in ("stars", "cats", "hearts", "flags")] * (len(images) // 4 + 1),
    )
    print(LINE.format("against the stock way", "ratio", "ours", "stock"))
    for precision in options.precisions:
        for batch in options.batches:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = training(
                pipe,
                images,
                sentences[: len(images)],
                batch,
                precision,
                options.rounds,
                options.lora,
                tuple(options.extras),
            )
            row = {
                "what": "training",
                "precision": precision,
                "batch": batch,
                "ratio": took["stock"] / took["ours"],
                "ours": batch / took["ours"],
                "stock": batch / took["stock"],
                "of_ceiling": took["of_ceiling"],
                "peak_gib": took["peak"],
            }
            rows.append(row)
            print(
                LINE.format(
                    f"training, samples/s, {precision}, batch {batch}",
                    f"{row['ratio']:.2f}",
                    f"{row['ours']:.1f}",
                    f"{row['stock']:.1f}",
                ),
                f" {row['of_ceiling']:.0%} of a matrix product's speed ({took['ceiling'] / 1e9:.0f} GFLOP/s)",
            )
    seconds = sampling(pipe, sentences, options.steps, 64, max(1, options.rounds // 2))
    row = {
        "what": "sampling",
        "batch": 64,
        "ratio": seconds["stock"] / seconds["ours"],
        "ours": 1 / seconds["ours"],
        "stock": 1 / seconds["stock"],
    }
    rows.append(row)
    print(
        LINE.format(
            f"sampling, images/s, {options.steps} steps, batch 64",
            f"{row['ratio']:.2f}",
            f"{row['ours']:.2f}",
            f"{row['stock']:.2f}",
        )
    )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", default="toy/pipeline")
    parser.add_argument(
        "--sd15", action="store_true", help="Stable Diffusion v1.5's architecture with random weights"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[64])
    parser.add_argument("--precisions", nargs="+", default=["no"], choices=["no", "bf16", "fp16"])
    parser.add_argument("--lora", type=int, default=0)
    parser.add_argument("--extras", nargs="*", default=[], choices=["checkpointing", "compile"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--growth",
        type=int,
        metavar="N",
        help="compare cost and memory of N images with those of 1000, instead of the rest",
    )
    parser.add_argument("--record", help="also write the figures to this JSON file")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.sd15 and device.type != "cuda":
        parser.exit(
            1,
            "error: Stable Diffusion v1.5's size wants a GPU and none is here: leave --sd15 out to measure "
            "the toy model\n",
        )
    pipe = random_sd15(device) if options.sd15 else diffusion.load(options.pipeline)
    if options.growth:
        rows = grown(pipe, options.growth, options.rounds)
    else:
        rows = against_stock(pipe, options)
    found = {
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads",
        "date": time.strftime("%Y-%m-%d"),
        "versions": {p: metadata.version(p) for p in ("torch", "diffusers", "accelerate")},
        "rows": rows,
        "command": " ".join(["python tests/benchmark.py", *sys.argv[1:]]),
    }
    print(f"{found['device']}, {found['date']}")
    if options.record:
        with open(options.record, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
