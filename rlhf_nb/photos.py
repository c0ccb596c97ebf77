"""The detector: reads count, object, colour and background off photographs with open models.

The judge knows only the toy world. The recipe is GenEval's (Ghosh et al. 2023, arXiv 2310.11513): a detector
finds and counts the objects, CLIP names the colour of each one. Here the detector takes any noun (OWL-ViT,
Minderer et al. 2022, arXiv 2205.06230, or OWLv2), and CLIP names the background too.

B images, K boxes kept of N, V values of an attribute, D CLIP features.
"""

import numpy as np
import torch
from PIL import Image

from . import hub
from .prompts import VALUES, Attributes, article

SURE = 0.1  # least score of a box
OVERLAP = 0.5  # most that two boxes share, as intersection over union
# Of a box's sides, added on each: boxes are tight, and CLIP knows objects in their surroundings.
MARGIN = 0.1
BATCH = 16  # images detected at a time


def sentence(want):
    """The caption both models are asked with. The number is left out: boxes count better than CLIP."""
    words = " ".join(filter(None, (want.colour, want.object, want.background)))
    return f"a photo of {article(words)} {words}"


def survivors(boxes, scores):
    """Non-maximum suppression: rows (K,) of the boxes (N, 4), surest first.

    Each shares at most OVERLAP with every surer survivor.
    """
    order = scores.argsort(descending=True, stable=True)
    low, high = boxes[order].split(2, 1)  # (N, 2) each
    sides = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
    shared = sides.clamp(min=0).prod(2)  # (N, N)
    area = (high - low).prod(1)
    crowded = shared / (area[:, None] + area - shared) > OVERLAP
    kept = []
    for i, by in enumerate(crowded):
        if not by[kept].any():
            kept.append(i)
    return order[kept]


def crops(image, boxes, size):
    """What boxes (K, 4) hold of a uint8 image (H, W, 3), with a margin: uint8 (K, size, size, 3).

    Stretched, because the centre crop of CLIP's own processor would cut the ends off a long object.
    """
    picture = Image.fromarray(image)
    low, high = boxes.split(2, 1)
    margin, bound = MARGIN * (high - low), torch.tensor(picture.size)
    # a box may reach beyond the picture or be thinner than a pixel
    low = (low - margin).clamp(min=0).minimum(bound - 1)
    high = (high + margin).minimum(bound).maximum(low + 1)
    windows = torch.cat((low, high), 1).tolist()
    return np.stack([picture.resize((size, size), Image.BICUBIC, window) for window in windows])


def choices(clip, wants, attribute):
    """{object: text features (V, D)} of sentences that differ in nothing but the value of `attribute`."""
    objects, values = sorted({w.object for w in wants}), VALUES[attribute]
    texts = clip.prompts([sentence(Attributes(o, **{attribute: v})) for o in objects for v in values])
    return dict(zip(objects, texts.split(len(values)), strict=True))


def closest(pictures, texts, attribute):
    """The values of `attribute` whose sentences (V, D) are nearest to pictures (K, D) by cosine, a list."""
    nearest = torch.cosine_similarity(pictures[:, None], texts, 2).argmax(1)
    return [VALUES[attribute][k] for k in nearest]


def shown(want, number, colours, background):
    """What a picture with `number` objects of `colours` (a list) before `background` shows of what is asked.

    Returns {attribute: bool, "all": bool, "number": int}; an attribute that is not asked for counts as shown.
    """
    found = {
        "object": number > 0,
        "count": want.count in (None, number),
        "colour": want.colour is None or 2 * colours.count(want.colour) > number,
        "background": want.background in (None, background),
    }
    return found | {"all": all(found.values()), "number": number}


class Detector:
    """A frozen OWL-ViT or OWLv2, from a folder or hub name, beside a `reward.Clip`.

    Raises ModelError where the model is another, or part of one.
    """

    def __init__(self, name, clip):
        hub.quiet()
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        model = hub.network(AutoModelForZeroShotObjectDetection, name)
        self.processor, size = hub.loading(AutoProcessor, name), model.config.vision_config.image_size
        fault = ""
        if len(self.processor.tokenizer) < model.config.text_config.vocab_size:
            fault = "lacks its vocabulary"  # all nouns would look alike
        if model.config.model_type not in ("owlvit", "owlv2"):
            fault = "is neither OWL-ViT nor OWLv2"  # others take sentences in another form
        if fault:
            raise hub.ModelError(f"{name!r} {fault}: give a whole folder of such a model or a hub name")
        hub.reads(self.processor.image_processor, (size, size), name)
        self.model = model.to(clip.model.device)
        self.clip = clip
        self.features = clip.images  # (B, D) of uint8 images (B, H, W, 3)

    @torch.inference_mode()
    def boxes(self, images, wants):
        """Where each of uint8 images (B, H, W, 3) has the object it wants, surest first.

        Returns a (K, 4) per image, in pixels (left, top, right, bottom).
        """
        inputs = self.processor(
            text=[sentence(Attributes(want.object)) for want in wants],
            images=list(images),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
        ).to(self.model.device)
        sizes = [image.shape[:2] for image in images]
        found = self.processor.post_process_grounded_object_detection(self.model(**inputs), SURE, sizes)
        return [f["boxes"][survivors(f["boxes"], f["scores"])].cpu() for f in found]

    def examine(self, images, wants):
        """Which of its prompt's attributes each uint8 image (B, H, W, 3) shows, as the toy judge says it.

        Returns {attribute: bool (B,), "all": bool (B,), "number": objects found, int (B,)}.
        """
        clip = self.clip
        colours, backgrounds = (choices(clip, wants, a) for a in ("colour", "background"))
        rows = []
        for i in range(0, len(wants), BATCH):
            part, asked = images[i : i + BATCH], wants[i : i + BATCH]
            found = self.boxes(part, asked)
            for image, want, boxes, whole in zip(part, asked, found, clip.images(part), strict=True):
                [background] = closest(whole[None], backgrounds[want.object], "background")
                named = []
                if want.colour and len(boxes):
                    named = closest(
                        clip.images(crops(image, boxes, clip.size)), colours[want.object], "colour"
                    )
                rows.append(shown(want, len(boxes), named, background))
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
