"""Rewards: one signature, `reward(images, prompts) -> scores (B,)`. Ours is a head on frozen CLIP features.

CLIP similarity is another, and so is a preference scorer of CLIP's architecture.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import config, files, flops, hub, losses, prompts, scorers, seeds, train
from .bounds import Share
from .feedback.store import TooFewLabels


class Clip:
    """A frozen CLIP of any size, from a shipped name, a folder or a hub name: projected features."""

    def __init__(self, name):
        hub.quiet()
        from transformers import CLIPImageProcessor, CLIPModel

        self.model = hub.network(CLIPModel, name)
        shape = self.model.config
        self.width, self.size = shape.projection_dim, shape.vision_config.image_size
        self.tokenizer = hub.tokenizer(name, shape.text_config)
        self.processor = hub.reads(hub.loading(CLIPImageProcessor, name), (self.size, self.size), name)
        if torch.cuda.is_available():
            self.model.cuda()

    def projected(self, pixel_values):
        """Features (B, D) of what the processor makes of images, (B, 3, H, W), not normalised."""
        return self.model.visual_projection(self.model.vision_model(pixel_values).pooler_output)

    @torch.no_grad()
    def images(self, images):
        """Features (B, D) of uint8 images (B, H, W, 3) or of an image folder, not normalised."""
        out = [torch.empty(0, self.width)]
        for part in hub.chunks(images, 256):
            x = self.processor(list(part), return_tensors="pt").pixel_values.to(self.model.device)
            out.append(flops.spend(lambda x=x: self.projected(x), self.model, x.shape).cpu())
        return torch.cat(out)

    def pixels(self, x):
        """Features (B, D), with their gradient, of float images x (B, 3, H, W) in [-1, 1], not normalised.

        They are resized to the square that this CLIP reads, so they had better be square themselves.
        """
        x = x.to(self.model.device, torch.float32)
        x = nn.functional.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        mean = x.new_tensor(self.processor.image_mean).view(3, 1, 1)
        std = x.new_tensor(self.processor.image_std).view(3, 1, 1)
        return self.projected(((x + 1) / 2 - mean) / std)

    def folder(self, images, cache):
        """Features (N, D) of a pictures.ImageFolder, kept in the folder `cache` (a Path) by their content.

        That is the content of the pictures and of this model.
        """
        weights = files.weights_digest(self.model.vision_model, self.model.visual_projection)
        path = cache / f"{weights[:24]}-{files.digest(images.folder)[:24]}.safetensors"
        if not files.cached_tensors(path):
            files.write_tensors({"features": self.images(images)}, path)
        return files.read_tensors(path)["features"]

    @torch.no_grad()
    def prompts(self, prompts):
        """Features (B, D) of prompts, not normalised; each unique prompt is encoded once."""
        if not len(prompts):
            return torch.empty(0, self.width)

        def features(tokens):
            return self.model.text_projection(self.model.text_model(**tokens).pooler_output)

        table, rows = hub.each_once(prompts, self.tokenizer, features, self.model.device)
        return table[rows]


class Similarity(nn.Module):
    """Cosine of features, mapped from [-1, 1] to [0, 1]; image (B, D), text (B, N, D) -> scores (B, N).

    On the weights of a preference scorer of CLIP's architecture (PickScore, HPS v2) this is that scorer.
    """

    def forward(self, image, text):
        return 0.5 + 0.5 * torch.cosine_similarity(image[:, None], text, dim=-1)


class Head(nn.Module):
    """r_phi of section 4.2 on frozen features: two layers, ReLU, sigmoid.

    image (B, D), text (B, N, D) -> scores (B, N) in [0, 1]. The first layer of a concatenation is the sum of
    two layers, so an image's part is computed once for all its N sentences.
    """

    def __init__(self, width, hidden):
        super().__init__()
        whole = nn.Linear(2 * width, hidden)  # drawn as one layer on the concatenation would be
        self.image = nn.Linear(width, hidden)
        self.text = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.image.weight.copy_(whole.weight[:, :width])
            self.text.weight.copy_(whole.weight[:, width:])
            self.image.bias.copy_(whole.bias)

    def forward(self, image, text):
        return self.out((self.image(image)[:, None] + self.text(text)).relu()).sigmoid().squeeze(-1)


class Reward:
    """A frozen Head or Similarity on `clip`: `Reward(clip, model)(images, prompts)` -> scores (B,)."""

    def __init__(self, clip, model):
        self.clip = clip
        self.model = model.to(clip.model.device).eval().requires_grad_(False)

    def __call__(self, images, prompts):
        return self.of_features(self.clip.images(images), self.clip.prompts(prompts))

    def _scores(self, image, text):
        device = self.clip.model.device
        return self.model(image.to(device), text[:, None].to(device)).squeeze(1)

    @torch.no_grad()
    def of_features(self, image, text):
        """Scores (B,) of features (B, D), as numpy."""
        return self._scores(image, text).cpu().numpy()

    def of_pixels(self, x, text):
        """Scores (B,), with their gradient, of images x as for `Clip.pixels` and text features (B, D)."""
        return self._scores(self.clip.pixels(x), text)

    def save(self, folder, about):
        """A head as safetensors with a JSON card, in `folder` (a Path)."""
        files.write_tensors(self.model.state_dict(), folder / "model.safetensors")
        card = about | {"width": self.clip.width, "hidden": self.model.out.in_features}
        files.write_json(folder / "card.json", card)


def load(folder, clip):
    """The head saved in `folder` (a Path), on `clip`.

    Raises ModelError if a file is damaged or it was trained on features of another width.
    """
    try:
        model = Head(clip.width, files.read_json(folder / "card.json", "hidden")["hidden"])
        model.load_state_dict(files.read_tensors(folder / "model.safetensors"))
    except Exception as error:
        raise hub.ModelError(
            f"reward in {folder} cannot be loaded ({type(error).__name__}: {config.cause(error)}): run "
            "notebook 04_reward again with this CLIP"
        ) from error
    return Reward(clip, hub.finite(model, f"reward in {folder}"))


def scorer(name, folder, clip):
    """The reward called `name`: "learnt" is the saved one in `folder`, "similarity" that of `clip` (a Clip).

    "module:function" makes one, see scorers; anything else is a scorer's folder or hub name.
    """
    if name == "learnt":
        return load(folder, clip)
    if ":" in name and not Path(name).is_dir():
        return scorers.named(name, clip)
    return Reward(clip if name == "similarity" else Clip(name), Similarity())


def chosen(run):
    """What a runs.Run scores pictures with: its Clip, and the reward that its settings call `scorer`."""
    clip = Clip(run.settings.clip)
    return clip, scorer(run.settings.scorer, run.read("reward", "model"), clip)


def labelled(path, images):
    """The rows of stage feedback's labels.csv (a path) that have a label, by their place in `images`.

    Raises ArtifactError where it is damaged, or of other images (an ImageFolder).
    """
    again = "run notebook 03_feedback again"
    words = dict.fromkeys(("prompt", "category", "split", "use"), str)
    rows = files.read_table(path, words | dict.fromkeys(("label", "truth"), Share | None), again)
    if rows.prompt.tolist() != images.rows.prompt.tolist():
        raise files.ArtifactError(f"{path} is not of the images in {images.folder}: {again}")
    return rows.dropna(subset="label")


def parted(labels, seed):
    """The labelled rows to learn from, to calibrate with (one prompt in ten of those), and to test on.

    Raises TooFewLabels where a reward of them would mean nothing.
    """
    known, test = labels[labels.use == "label"], labels[labels.use == "test"]
    names = known.prompt[~known.prompt.isin(test.prompt)].unique()
    names = np.random.default_rng([seed, 5]).permutation(names)
    aside = known.prompt.isin(names[: max(1, len(names) // 10)])
    needs = {  # what for: rows, how many at least, whose use
        "to learn from": (known[~aside], 8, "label"),
        "to calibrate with": (known[aside], 1, "label"),
        "of new prompts to test on": (test[test.split != "seen"], 2, "test"),
    }
    for what, (rows, least, use) in needs.items():
        if len(rows) < least or rows.label.nunique() < min(least, 2):
            raise TooFewLabels(
                f"{len(rows)} labelled images {what} ({rows.label.sum():.0f} good) are too few: judge more "
                f"pictures whose use is {use!r} in notebook 03_feedback, {least} or more, good and bad"
            )
    return known[~aside], known[aside], test


def candidates(clip, wants, n, seed, objects, allowed):
    """Sentences among which L_pc finds an image's own: the distinct ones' features (U, D), and rows (M, n).

    A row holds for one of `wants` its own sentence and n - 1 contrastive ones as indices into the features.
    """
    rng, said = np.random.default_rng([seed, 4]), []
    for want in wants:
        among = (want, *prompts.contrast(want, n - 1, rng, objects, allowed))
        said.append([prompts.phrase(w) for w in among])
    texts, where = np.unique(said, return_inverse=True)
    return clip.prompts(texts), torch.from_numpy(where.reshape(len(wants), n))


def reward_loss(image, texts, candidates, labels, *, lam, temperature, batch, seed):
    """L_MSE + lambda L_pc (section 4.2) as a `loss_at(head, step)` for train.loop.

    image (M, D); texts (U, D) of unique prompts; candidates (M, N) rows into texts, the true prompt first;
    labels (M,). L_pc is taken over a batch of its own, half the size, of good images (label above 1/2).
    """
    good = torch.nonzero(labels > 0.5).squeeze(1)

    def loss_at(model, step):
        rows = seeds.rows_at(seed, step, batch, len(image))
        scores = model(image[rows], texts[candidates[rows, :1]])[:, 0]
        mse = losses.reward_mse(scores, labels[rows]).mean()
        if not lam or not len(good):
            return mse, {"mse": mse, "pc": mse.new_zeros(())}
        rows = good[seeds.rows_at(seed + 1, step, max(1, batch // 2), len(good))]
        scores = model(image[rows], texts[candidates[rows]])
        pc = losses.prompt_classification(scores, temperature).mean()
        return mse + lam * pc, {"mse": mse, "pc": pc}

    return loss_at


def fit(clip, image, texts, candidates, labels, *, updates, lr, batch, hidden=1024, seed=0, **objective):
    """Train a head from scratch: (Reward, log rows). Arguments as `reward_loss` takes them."""
    torch.manual_seed(seed)
    model = Head(clip.width, hidden)
    data = [t.to(clip.model.device) for t in (image, texts, candidates, labels)]
    loss_at = reward_loss(*data, batch=min(batch, len(image)), seed=seed, **objective)
    plan = train.Plan(steps=updates, lr=lr, warmup=20, weight_decay=0.05)
    log = list(train.loop(model, [loss_at], plan))
    return Reward(clip, model), log
