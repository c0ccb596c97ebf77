"""The detector: reads count, object, colour and background off photographs with open models, where the judge knows only the toy world.

The recipe is GenEval's (Ghosh et al. 2023, arXiv 2310.11513): a detector finds and counts the objects, CLIP names the colour of each one.
Here the detector takes any noun (OWL-ViT, Minderer et al. 2022, arXiv 2205.06230, or OWLv2), and CLIP names the background too.
B images, K boxes kept of N, V values of an attribute, D CLIP features.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from . import diffusion
from .prompts import ATTRIBUTES, BACKGROUNDS, COLOURS, Attributes, article

VALUES = {"colour": COLOURS, "background": BACKGROUNDS}
MARGIN = 0.1  # of a box's width and height, added on each side: boxes are tight, and CLIP knows objects in their surroundings


def sentence(want):
    """The caption both models are asked with. The number is left out: boxes count better than CLIP."""
    words = " ".join(w for w in (want.colour, want.object, want.background) if w)
    return f"a photo of {article(words)} {words}"


def survivors(boxes, scores, overlap):
    """Non-maximum suppression: rows (K,) of the boxes (N, 4) that share at most `overlap` (IoU) with every surer survivor, surest first."""
    order, kept = scores.argsort(descending=True, stable=True), []
    low, high = boxes[order].split(2, 1)                                                                   # (N, 2) each
    shared = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(2)  # (N, N)
    area = (high - low).prod(1)
    crowded = shared / (area[:, None] + area - shared) > overlap
    for i in range(len(order)):
        kept += [] if crowded[i, kept].any() else [i]
    return order[kept]


def crops(image, boxes, size):
    """What boxes (K, 4) hold of a uint8 image (H, W, 3), with a margin, stretched: uint8 (K, size, size, 3)."""
    (low, high), bound = boxes.split(2, 1), torch.tensor((image.shape[1], image.shape[0]))
    margin, picture = MARGIN * (high - low), Image.fromarray(image)
    low = (low - margin).clamp(min=0).minimum(bound - 1)
    high = (high + margin).minimum(bound).maximum(low + 1)  # a box may reach beyond the picture or be thinner than a pixel
    # stretched, because the centre crop of CLIP's own processor would cut the ends off a long object
    return np.stack([picture.resize((size, size), Image.Resampling.BICUBIC, box=window) for window in torch.cat((low, high), 1).tolist()])


def choices(clip, objects, attribute):
    """{object: text features (V, D)} of sentences that differ in nothing but the value of `attribute`."""
    objects, values = sorted(set(objects)), VALUES[attribute]
    texts = clip.prompts([sentence(Attributes(o, **{attribute: v})) for o in objects for v in values])
    return dict(zip(objects, texts.split(len(values)), strict=True))


def closest(pictures, texts, attribute):
    """The values of `attribute` whose sentences (V, D) are nearest to pictures (K, D) by cosine: a list of K."""
    return [VALUES[attribute][k] for k in (F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).T).argmax(1)]


def shown(want, number, colours, background):
    """{attribute: bool} of a picture with `number` objects of `colours` (a list of them) before `background`; unasked ones count as shown."""
    return {"object": number > 0, "count": want.count in (None, number), "background": want.background in (None, background),
            "colour": want.colour is None or 2 * colours.count(want.colour) > number}


class Detector:
    """A frozen OWL-ViT or OWLv2, from a folder or hub name, beside a `reward.Clip`; `threshold` (score) and `overlap` (IoU) are in [0, 1]."""

    def __init__(self, detector, clip, threshold=0.1, overlap=0.5):
        diffusion.quiet()
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        model = diffusion.network(AutoModelForZeroShotObjectDetection, detector, use_safetensors=True)
        self.processor = diffusion.loading(AutoProcessor, detector)
        faults = {"is neither OWL-ViT nor OWLv2": model.config.model_type not in ("owlvit", "owlv2"),  # the others take sentences in another form
                  "lacks its vocabulary": len(self.processor.tokenizer) < model.config.text_config.vocab_size}  # all nouns would look alike
        if any(faults.values()):
            raise diffusion.ModelError(f"{detector!r} {' and '.join(k for k, v in faults.items() if v)}: give a whole folder of such a model or a hub name")
        self.model = model.float().eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        self.clip, self.threshold, self.overlap = clip, threshold, overlap

    @torch.inference_mode()
    def boxes(self, images, objects):
        """Where each of uint8 images (B, H, W, 3) has its object: a (K, 4) per image in pixels (left, top, right, bottom), surest first."""
        inputs = self.processor(text=[sentence(Attributes(o)) for o in objects], images=list(images), return_tensors="pt", padding="max_length",
                                truncation=True, max_length=self.model.config.text_config.max_position_embeddings).to(self.model.device)
        found = self.processor.post_process_grounded_object_detection(self.model(**inputs), self.threshold, [image.shape[:2] for image in images])
        return [f["boxes"][survivors(f["boxes"], f["scores"], self.overlap)].cpu() for f in found]

    def examine(self, images, wants, batch=16):
        """Which of its prompt's attributes each image shows, as `judge.right` does, and the "number" of objects found: {name: (B,)}."""
        texts = {a: choices(self.clip, [w.object for w in wants], a) for a in VALUES}
        size, rows = self.clip.model.config.vision_config.image_size, []  # a row per image
        for i in range(0, len(wants), batch):
            part, asked = images[i:i + batch], wants[i:i + batch]
            for image, want, boxes, whole in zip(part, asked, self.boxes(part, [w.object for w in asked]), self.clip.images(part), strict=True):
                background, colours = closest(whole[None], texts["background"][want.object], "background")[0], []
                if want.colour and len(boxes):
                    colours = closest(self.clip.images(crops(image, boxes, size)), texts["colour"][want.object], "colour")
                rows.append(shown(want, len(boxes), colours, background) | {"number": len(boxes)})
        answers = {a: np.array([row[a] for row in rows]) for a in (*ATTRIBUTES, "number")}
        return answers | {"all": np.logical_and.reduce([answers[a] for a in ATTRIBUTES])}
