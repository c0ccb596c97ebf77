"""Rewards: one signature, `reward(images, prompts) -> scores (B,)`. Ours is a head on frozen CLIP features; CLIP similarity is another."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import diffusion, losses, train


class Clip:
    """A frozen CLIP of any size, from a shipped name, a folder or a hub name: projected image and text features."""

    def __init__(self, name):
        diffusion.quiet()
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        self.model = diffusion.loading(CLIPModel, name).float().eval().requires_grad_(False)
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
    """CLIP similarity as a reward: cosine of image and prompt, mapped from [-1, 1] to [0, 1]."""

    def reward(images, prompts):
        cosine = torch.cosine_similarity(clip.images(images), clip.prompts(prompts))
        return (0.5 + 0.5 * cosine).numpy()

    return reward


def head(width, hidden=1024):
    """r_phi on concatenated features: (B, 2 D) -> (B, 1) in [0, 1]; two layers, ReLU, sigmoid (section 4.2)."""
    return nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())


def pair_scores(model, image, text):
    """Scores (B, N) of image features (B, D) against N texts each, (B, N, D)."""
    both = torch.cat((image[:, None].expand(-1, text.shape[1], -1), text), -1)  # (B, N, 2 D)
    return model(both).squeeze(-1)


def reward_loss(image, texts, candidates, labels, *, lam, temperature, batch, seed):
    """L_MSE + lambda L_pc as a `loss_at(head, step)` for train.loop.

    image (M, D); texts (U, D) of unique prompts; candidates (M, N) rows into texts, the true prompt first; labels (M,). Only
    good images (label above 1/2) enter L_pc.
    """

    def loss_at(model, step):
        rows, device = train.rows_at(seed, step, batch, len(image)), next(model.parameters()).device
        scores = pair_scores(model, image[rows].to(device), texts[candidates[rows]].to(device))  # (B, N)
        y = labels[rows].to(device)
        mse, good = losses.reward_mse(scores[:, 0], y).mean(), (y > 0.5).float()
        pc = (losses.prompt_classification(scores, temperature) * good).sum() / good.sum().clamp(min=1)
        return mse + lam * pc, {"mse": mse, "pc": pc}

    return loss_at


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
        return pair_scores(self.model, image.to(device), text[:, None].to(device)).squeeze(1).cpu().numpy()

    def save(self, folder, about):
        """safetensors + a JSON card."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.model.state_dict(), folder / "model.safetensors")
        (folder / "card.json").write_text(json.dumps(about | {"width": self.clip.width}, indent=1) + "\n")


def load(folder, clip):
    """A saved reward on `clip`. Raises ModelError if the file is damaged or was trained on features of another width."""
    from safetensors.torch import load_file

    model = head(clip.width)
    try:
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except Exception as error:
        raise diffusion.ModelError(f"reward in {folder} cannot be loaded ({type(error).__name__}: {str(error)[:120]}): "
                                   "run notebook 04_reward again with this CLIP") from error
    return Reward(clip, model.eval())
