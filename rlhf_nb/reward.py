"""Rewards: one signature, `reward(images, prompts) -> scores (B,)`. Ours is a head on frozen CLIP features; CLIP similarity is another."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from . import diffusion, losses, prompts, runs, train


class Clip:
    """A frozen CLIP of any size, from a shipped name, a folder or a hub name: projected image and text features."""

    def __init__(self, name):
        diffusion.quiet()
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        self.model = diffusion.network(CLIPModel, name, use_safetensors=True).float().eval().requires_grad_(False)
        self.tokenizer = diffusion.loading(CLIPTokenizer, name)
        self.processor = diffusion.loading(CLIPImageProcessor, name)
        self.width = self.model.config.projection_dim
        if torch.cuda.is_available():
            self.model.cuda()

    @torch.inference_mode()
    def images(self, images, batch=256):
        """Features (B, D) of uint8 images (B, H, W, 3), not normalised."""
        out = []
        for i in range(0, len(images), batch):
            x = self.processor(list(images[i:i + batch]), return_tensors="pt").pixel_values.to(self.model.device)
            out.append(self.model.visual_projection(self.model.vision_model(x).pooler_output).float().cpu())
        return torch.cat(out)

    def folder(self, images, cache):
        """Features (N, D) of a runs.Images folder, kept in `cache` under the content of both the pictures and this model."""
        weights = runs.weights_digest(self.model.vision_model, self.model.visual_projection)
        path = Path(cache) / f"{hashlib.sha256((weights + runs.digest(images.folder)).encode()).hexdigest()[:24]}.safetensors"
        if not path.exists():
            train.write({"features": torch.cat([self.images(images[i:i + 512]) for i in range(0, len(images), 512)])}, path)
        return load_file(path)["features"]

    @torch.inference_mode()
    def prompts(self, prompts, batch=512):
        """Features (B, D) of prompts, not normalised; each unique prompt is encoded once."""
        unique, rows = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
        out = []
        for i in range(0, len(unique), batch):
            ids = self.tokenizer(list(unique[i:i + batch]), padding="max_length", truncation=True,
                                 max_length=self.model.config.text_config.max_position_embeddings, return_tensors="pt").to(self.model.device)
            out.append(self.model.text_projection(self.model.text_model(**ids).pooler_output).float().cpu())
        return torch.cat(out)[torch.from_numpy(rows)]


def similarity(clip):
    """CLIP similarity as a reward: cosine of image and prompt, mapped from [-1, 1] to [0, 1].

    With the weights of a preference scorer of CLIP's architecture (PickScore, HPS v2) this is that scorer.
    """

    def reward(images, prompts):
        cosine = torch.cosine_similarity(clip.images(images), clip.prompts(prompts))
        return (0.5 + 0.5 * cosine).numpy()

    return reward


def scorer(name, folder, clip):
    """The reward called `name`: "learnt" is the saved one in `folder`, "similarity" that of `clip` (a Clip), anything else a scorer's folder or hub name."""
    return load(folder, clip) if name == "learnt" else similarity(clip if name == "similarity" else Clip(name))


class Head(nn.Module):
    """r_phi of section 4.2 on frozen features: two layers, ReLU, sigmoid; image (B, D), text (B, N, D) -> scores (B, N) in [0, 1].

    The first layer of a concatenation is the sum of two layers, so an image's part is computed once for all its N sentences.
    """

    def __init__(self, width, hidden=1024):
        super().__init__()
        whole = nn.Linear(2 * width, hidden)  # drawn as one layer on the concatenation would be
        self.image, self.text, self.out = nn.Linear(width, hidden), nn.Linear(width, hidden, bias=False), nn.Linear(hidden, 1)
        with torch.no_grad():
            for part, weight in zip((self.image, self.text), whole.weight.split(width, 1), strict=True):
                part.weight.copy_(weight)
            self.image.bias.copy_(whole.bias)

    def forward(self, image, text):
        return self.out((self.image(image)[:, None] + self.text(text)).relu()).sigmoid().squeeze(-1)


def candidates(clip, wants, n, seed, objects, allowed=None):
    """The distinct sentences' features (U, D), and for each of `wants` its own sentence and n - 1 contrastive ones as rows into them (M, n)."""
    rng = np.random.default_rng([seed, 4])
    said = [[prompts.phrase(c) for c in (w, *prompts.contrast(w, n - 1, rng, objects, allowed))] for w in wants]
    texts, where = np.unique(np.array(said), return_inverse=True)
    return clip.prompts(texts), torch.from_numpy(where.reshape(len(wants), n))


def reward_loss(image, texts, candidates, labels, *, lam, temperature, batch, seed, weights=None):
    """L_MSE + lambda L_pc as a `loss_at(head, step)` for train.loop.

    image (M, D); texts (U, D) of unique prompts; candidates (M, N) rows into texts, the true prompt first; labels (M,); weights
    (M,), if given, of the label errors. L_pc is taken over a batch of its own, half the size, of good images (label above 1/2).
    """
    good = torch.nonzero(labels > 0.5).squeeze(1)

    def loss_at(model, step):
        device = next(model.parameters()).device
        rows = train.rows_at(seed, step, batch, len(image))
        scores = model(image[rows].to(device), texts[candidates[rows, :1]].to(device))[:, 0]
        error = losses.reward_mse(scores, labels[rows].to(device))
        mse = (error if weights is None else error * weights[rows].to(device)).mean()
        if not lam or not len(good):
            return mse, {"mse": mse, "pc": mse.new_zeros(())}
        rows = good[train.rows_at(seed + 1, step, max(1, batch // 2), len(good))]
        pc = losses.prompt_classification(model(image[rows].to(device), texts[candidates[rows]].to(device)), temperature).mean()
        return mse + lam * pc, {"mse": mse, "pc": pc}

    return loss_at


def fit(clip, image, texts, candidates, labels, *, updates, lr, hidden=1024, seed=0, **objective):
    """Train a head from scratch: (Reward, log rows). Arguments as `reward_loss` takes them."""
    torch.manual_seed(seed)
    model = Head(image.shape[1], hidden)
    objective["batch"] = min(objective["batch"], len(image))
    loss_at = reward_loss(image, texts, candidates, labels, seed=seed, **objective)
    log = list(train.loop(model, loss_at, steps=updates, lr=lr, warmup=20, weight_decay=0.05))
    return Reward(clip, model), log


class Reward:
    """The learnt reward: `Reward(clip, head)(images, prompts)` -> scores (B,) in [0, 1]."""

    def __init__(self, clip, model):
        self.clip, self.model = clip, model

    def __call__(self, images, prompts):
        return self.of_features(self.clip.images(images), self.clip.prompts(prompts))

    @torch.inference_mode()
    def of_features(self, image, text):
        """Scores (B,) of features (B, D), as numpy."""
        device = next(self.model.parameters()).device
        return self.model(image.to(device), text[:, None].to(device)).squeeze(1).cpu().numpy()

    def save(self, folder, about):
        """safetensors + a JSON card."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.model.state_dict(), folder / "model.safetensors")
        (folder / "card.json").write_text(json.dumps(about | {"width": self.clip.width, "hidden": self.model.out.in_features}, indent=1, default=float) + "\n")


def load(folder, clip):
    """A saved reward on `clip`. Raises ModelError if a file is damaged or it was trained on features of another width."""
    try:
        model = Head(clip.width, json.loads((Path(folder) / "card.json").read_text())["hidden"])
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except Exception as error:
        raise diffusion.ModelError(f"reward in {folder} cannot be loaded ({type(error).__name__}: {str(error)[:120]}): "
                                   "run notebook 04_reward again with this CLIP") from error
    return Reward(clip, model.eval())
