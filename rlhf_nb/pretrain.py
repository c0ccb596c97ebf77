"""The toy bundle: a small Stable Diffusion (autoencoder, CLIP, U-Net) trained from scratch on the world's noisy pairs."""

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from . import align, diffusion, judge, train, world
from .prompts import BACKGROUNDS, COLOURS, COUNTS, TOY, plural

TOKENS = 20          # longest toy prompt, padded
WIDTH = 96           # of the text tower


def autoencoder():
    from diffusers import AutoencoderKL

    return AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 32, 64, 64),
                         down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                         norm_num_groups=8, layers_per_block=1, sample_size=world.SIZE)


def autoencoder_loss(images, batch, seed):
    """L1 + L2 + edges + KL / 2,000 on reconstructions of `images` uint8 (N, 64, 64, 3), as a `loss_at` for train.loop."""

    def edges(x):
        return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]

    def loss_at(model, step):
        x = diffusion.pixels(images[train.rows_at(seed, step, batch, len(images)).numpy()]).to(model.device)
        with torch.autocast(x.device.type, torch.bfloat16):
            posterior = model.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=train.generator(seed, step)).to(x.device)
            y = model.decode(posterior.mean + posterior.std * noise).sample.float()
        l1, l2 = (y - x).abs().mean(), (y - x).square().mean()
        sharp = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True))
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return l1 + l2 + sharp + 5e-4 * kl, {"l1": l1, "l2": l2, "kl": kl}

    return loss_at


def tokenizer():
    """A `CLIPTokenizer` whose byte-pair merges make every word of the world one token; other words are spelled out."""
    from transformers import CLIPTokenizer

    words = sorted({*COUNTS, *COLOURS, *" ".join(BACKGROUNDS).lower().split(), *TOY.objects, *map(plural, TOY.objects),
                    *"a an picture of that is are some many colored . ,".split()})
    spelled, merges = [[*w[:-1], w[-1] + "</w>"] for w in words], []
    while any(len(s) > 1 for s in spelled):
        pairs = Counter(p for s in spelled for p in zip(s, s[1:], strict=False))
        best = min(pairs, key=lambda p: (-pairs[p], p))  # ties by the alphabet, so that every run learns the same merges
        merges.append(best)
        spelled = [merged(s, best) for s in spelled]
    letters = [chr(c) for c in range(33, 127)]
    entries = dict.fromkeys([*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(entries)}, merges=merges, model_max_length=TOKENS)


def merged(symbols, pair):
    """`symbols` with every occurrence of `pair` joined, left to right."""
    out = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def clip(tokens):
    """A small `CLIPModel`: 64-pixel images in 8-pixel patches, text of at most TOKENS tokens, 96-wide embeddings."""
    from transformers import CLIPConfig, CLIPModel

    ids = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    text = {"vocab_size": len(tokens), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 3,
            "num_attention_heads": 4, "max_position_embeddings": TOKENS, **ids}
    vision = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
              "image_size": world.SIZE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def clip_loss(images, input_ids, batch, seed):
    """The symmetric contrastive loss on noisy pairs; images uint8 (N, 64, 64, 3), input_ids (N, TOKENS)."""

    def loss_at(model, step):
        rows = train.rows_at(seed, step, batch, len(images))
        ids, x = input_ids[rows].to(model.device), diffusion.pixels(images[rows.numpy()]).to(model.device)
        with torch.autocast(x.device.type, torch.bfloat16):
            out = model(input_ids=ids, pixel_values=x)
        logits = out.logits_per_image.float()                       # (B, B)
        same = (ids[:, None] == ids[None]).all(-1).float()  # equal captions are no negatives
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"top1": (logits.argmax(1) == torch.arange(batch, device=logits.device)).float().mean()}

    return loss_at


def altered(caption, rng, n=4):
    """`n` captions that differ from `caption` in one thing it names, every other time its count if it names one."""
    words = " " + caption.lower().rstrip(".") + " "
    objects = [*TOY.objects, *map(plural, TOY.objects)]
    named = [(kind, value) for kind in (COUNTS, COLOURS, BACKGROUNDS, objects) for value in kind if f" {value.lower()} " in words]
    counts = [k for k in named if k[0] is COUNTS]
    out = []
    for i in range(n):
        kind, value = counts[0] if counts and i % 2 == 0 else named[rng.integers(len(named))]
        same = [v for v in kind if v != value and (kind is not objects or (v in TOY.objects) == (value in TOY.objects))]
        new = same[rng.integers(len(same))]
        text = words.replace(f" {value.lower()} ", f" {new} ")
        if kind is COUNTS and "one" in (value, new):  # a noun follows its number
            one, many = next((o, plural(o)) for o in TOY.objects if f" {o} " in words or f" {plural(o)} " in words)
            text = text.replace(f" {many} ", f" {one} ") if new == "one" else text.replace(f" {one} ", f" {many} ")
        out.append(text.strip().capitalize() + ".")
    return out


def hard_clip_loss(images, pooled, near, batch, seed):
    """The contrastive loss with near misses (Yuksekgonul et al., 2023): an image must tell its caption from captions altered in one thing.

    The text tower is fixed, so captions come as its outputs: pooled (N, D), near (N, K, D) of K altered captions each.
    """

    def loss_at(model, step):
        rows = train.rows_at(seed, step, batch, len(images))
        x = diffusion.pixels(images[rows.numpy()]).to(model.device)
        texts = pooled[rows].to(model.device)
        with torch.autocast(x.device.type, torch.bfloat16):
            image = model.visual_projection(model.vision_model(x).pooler_output)
            text, misses = model.text_projection(texts), model.text_projection(near[rows].to(model.device))
        image, text, misses = (F.normalize(v.float(), dim=-1) for v in (image, text, misses))
        scale = model.logit_scale.exp()
        logits, missed = scale * image @ text.T, scale * (misses @ image[:, :, None]).squeeze(-1)     # (B, B), (B, K)
        same = (texts[:, None] == texts[None]).all(-1).float()  # equal captions are no negatives
        target = same / same.sum(1, keepdim=True)
        whole = torch.cat([logits, missed], 1)
        loss = (F.cross_entropy(whole, F.pad(target, (0, missed.shape[1]))) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"near": (logits.diagonal()[:, None] > missed).all(1).float().mean()}

    return loss_at


@torch.inference_mode()
def text_states(clip_model, tokens, captions):
    """Outputs (N, D) of the text tower before its projection; each unique caption is encoded once."""
    unique, rows = np.unique(np.asarray(captions, dtype=str), return_inverse=True)
    ids = tokens(list(unique), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return torch.cat([clip_model.text_model(part.to(clip_model.device)).pooler_output.cpu() for part in ids.split(1024)])[torch.from_numpy(rows)]


def unet():
    """The toy U-Net: 0.2 GFLOP a sample, on 8 x 8 x 4 latents and the CLIP text tower's hidden states."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(64, 128),
                                down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
                                cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=8)


def pipeline(vae, text_encoder, tokens, unet_model):
    """The parts as a stock `StableDiffusionPipeline` with Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionPipeline(vae=vae, text_encoder=text_encoder, tokenizer=tokens, unet=unet_model, scheduler=scheduler,
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def build(settings, folder, work, log):
    """Train the whole bundle into `folder`: pipeline/, clip/, judge/. Resumable: checkpoints lie in `work`.

    `log(part, rows)` is called with each part's name and an iterator of log rows, and must exhaust it.
    """
    diffusion.quiet()
    from transformers import CLIPImageProcessor, CLIPTextModel

    n, seed = settings.pairs, settings.seed

    def fit(part, model, loss_at, **options):
        log(part, train.loop(model, loss_at, folder=work / part, **options))
        return model.eval().requires_grad_(False)

    torch.manual_seed(seed)
    vae, tokens, unet_model, reader = autoencoder(), tokenizer(), unet(), judge.Judge()
    clip_model = clip(tokens)
    scenes = [world.scene(seed, i, uniform=i % 2 == 0) for i in range(n // 3)]
    renders = world.render(scenes, seed, range(len(scenes)))
    fit("vae", vae, autoencoder_loss(renders, 32, seed), steps=settings.autoencoder_steps, lr=2e-3, warmup=150, ema=0.995)
    # Latents are now fixed; the decoder alone goes on, as Stable Diffusion's own later decoders did.
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True)
    fit("decoder", vae, autoencoder_loss(renders, 32, seed + 5), steps=settings.decoder_steps, lr=1.5e-3, warmup=50, ema=0.99)
    images, captions, _ = world.pairs(n, seed + 1)
    ids = tokens(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    fit("clip", clip_model, clip_loss(images, ids, min(256, n), seed + 1), steps=settings.clip_steps, lr=1e-3, warmup=150, weight_decay=0.05)

    # The text tower is now fixed, for the U-Net will be built on it; the vision tower goes on, on pictures as a sampler leaves them too.
    for part in (clip_model.vision_model, clip_model.visual_projection, clip_model.text_projection):
        part.requires_grad_(True)
    clip_model.logit_scale.requires_grad_(True)
    rng = np.random.default_rng(seed + 6)
    states, near = (text_states(clip_model, tokens, c) for c in (captions, [a for c in captions for a in altered(c, rng)]))
    loss_at = hard_clip_loss(broken(vae, images, seed + 6), states, near.view(n, -1, WIDTH), min(128, n), seed + 6)
    fit("vision", clip_model, loss_at, steps=settings.vision_steps, lr=1e-3, warmup=150, weight_decay=0.05)

    mean, _ = diffusion.encode_images(vae, images[:4000])
    vae.register_to_config(scaling_factor=float(vae.config.scaling_factor / mean.std()), shift_factor=None)
    clip_model.save_pretrained(work / "clip")
    text = CLIPTextModel.from_pretrained(work / "clip").eval().requires_grad_(False)
    pipe = pipeline(vae, text, tokens, unet_model)
    data = align.encode(pipe, zip(images, captions, strict=True))
    empty = diffusion.encode_prompts(pipe, [""])[0][0]
    loss_at = align.Eq2(pipe.scheduler, empty, None, data, batch=(0, 64), beta=1.0, drop=0.1, seed=seed + 2)
    fit("unet", unet_model.to(memory_format=torch.channels_last), loss_at, steps=settings.unet_steps, lr=1e-3, warmup=300, ema=0.999)

    lessons, labels = judge.lessons(n // 2, seed + 3)
    fit("judge", reader, judge.loss(broken(vae, lessons, seed + 4), labels, 128, seed + 3), steps=settings.judge_steps, lr=1.5e-3, warmup=100, ema=0.995)

    for model in (vae, unet_model):  # half precision; CLIP's towers are small, and stock loaders keep a half-precision text tower half
        model.half().register_to_config(_name_or_path="")
    pipe.save_pretrained(folder / "pipeline")
    clip_model.save_pretrained(folder / "clip")
    tokens.save_pretrained(folder / "clip")
    CLIPImageProcessor(size={"shortest_edge": world.SIZE}, crop_size={"height": world.SIZE, "width": world.SIZE}, image_mean=[0.5] * 3,
                       image_std=[0.5] * 3).save_pretrained(folder / "clip")
    reader.save(folder / "judge")


@torch.inference_mode()
def broken(vae, images, seed):
    """Two thirds of `images` replaced by reconstructions, half of those from disturbed latents: what a sampler's flaws look like."""
    images, rows = images.copy(), np.arange(len(images))
    for part in np.array_split(rows[rows % 3 > 0], max(1, len(rows) // 64)):
        mean, std = diffusion.encode_images(vae, images[part])
        g = train.generator(seed, int(part[0]))
        strength = 0.5 * torch.rand(len(part), 1, 1, 1, generator=g) * torch.from_numpy(part % 3 == 2)[:, None, None, None]
        images[part] = diffusion.decode(vae, mean + (std + strength * mean.std()) * torch.randn(mean.shape, generator=g))
    return images
