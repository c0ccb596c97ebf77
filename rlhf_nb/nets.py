"""The networks that a method sees: the policy in training and what stands still beside it.

Trained in full the reference is the base model and the old policy a copy. With adapters both are the same
U-Net: the reference without adapters, the old policy with a second set of them.
"""

import contextlib
import copy
import re
from functools import partial

import torch
from peft import LoraConfig

from . import config, diffusion, files


def check_targets(unet, settings):
    """Raise ConfigError where `settings.lora_targets` name no layer of a U-Net that takes adapters."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    takes = {f".{name}": isinstance(layer, kinds) for name, layer in unet.named_modules()}
    for target in settings.lora_targets:
        if {takes[name] for name in takes if name.endswith(f".{target}")} != {True}:
            there = sorted({re.search(r"\w+(\.\d+)?$", name)[0] for name in takes if takes[name]})
            raise config.ConfigError(
                f"lora_targets names {target!r}, and the U-Net has no such layer: it has {', '.join(there)}"
            )


def trainable(pipe, settings):
    """A copy of the U-Net to train: all of it, or adapters of rank `settings.lora` (LoRA, by peft).

    Raises ConfigError for targets that it lacks.
    """
    unet = copy.deepcopy(pipe.unet).requires_grad_(not settings.lora)
    if settings.lora:
        check_targets(unet, settings)
        torch.manual_seed(settings.seed)  # the adapters' first weights
        adapters = LoraConfig(
            r=settings.lora,
            lora_alpha=settings.lora,
            init_lora_weights="gaussian",
            target_modules=list(settings.lora_targets),
        )
        with files.reading("peft"):  # which looks up its own version
            unet.add_adapter(adapters)
    if "checkpointing" in settings.extras:
        unet.enable_gradient_checkpointing()
    if "compile" in settings.extras:
        unet.compile()
    return unet


class Nets:
    """`policy`, `reference`, `old`: (x_t, t, text) -> noise_pred; `decoder`, `reward`, `scheduler`.

    frozen: names of what the method keeps, see methods. score: the learnt reward, and texts (U, D) its
    features of the prompts, for methods that follow its gradient. autocast: the engine's, in which the others
    predict as the policy does.
    """

    def __init__(self, pipe, unet, frozen=(), score=None, texts=None, autocast=contextlib.nullcontext):
        self.scheduler = diffusion.forward_process(pipe.scheduler)
        self.unet, self.base, self.vae = unet, pipe.unet, pipe.vae
        self.score, self.texts, self.autocast = score, texts, autocast
        self.policy = diffusion.predictor(unet)
        self.reference, self.old = (partial(self.predicted, who) for who in ("reference", "old"))
        self.adapters = bool(getattr(unet, "peft_config", None))
        self.kept = []  # tensors of the old policy, which a checkpoint holds
        if "old" not in frozen:
            return
        if self.adapters:  # the old policy begins as the policy
            self.unet.add_adapter(copy.copy(self.unet.peft_config["default"]), adapter_name="old")
            self.unet.set_adapter("default")
            own, old = (
                [p for name, p in self.unet.named_parameters() if f".{adapter}." in name]
                for adapter in ("default", "old")
            )
        else:
            self.former = copy.deepcopy(self.unet).requires_grad_(False).eval()
            own, old = list(self.unet.parameters()), list(self.former.parameters())
        self.pairs = list(zip(own, old, strict=True))
        self.kept = old
        self.follow(0.0)

    @torch.no_grad()
    def follow(self, decay):
        """old <- decay old + (1 - decay) policy."""
        for own, old in self.pairs:
            old.lerp_(own.detach(), 1 - decay)

    @contextlib.contextmanager
    def acting(self, who):
        """The U-Net that is "policy", "old" or "reference", to sample with."""
        if not self.adapters:
            yield {"policy": self.unet, "reference": self.base, "old": getattr(self, "former", None)}[who]
            return
        if who == "reference":
            self.unet.disable_adapters()
        if who == "old":
            self.unet.set_adapter("old")
        try:
            yield self.unet
        finally:
            if who == "reference":
                self.unet.enable_adapters()
            self.unet.set_adapter("default")

    @torch.no_grad()
    def predicted(self, who, x_t, t, text):
        """What the base model ("reference") or the "old" policy predicts."""
        with self.acting(who) as unet, self.autocast():
            return diffusion.predictor(unet)(x_t, t, text).detach()

    def decoder(self, latents):
        """Pictures (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w), with gradient."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.clamp(-1, 1)

    def reward(self, images, prompt):
        """Scores (B,) of pictures (B, 3, H, W) in [-1, 1] under prompts of numbers (B,), with gradient."""
        return self.score.of_pixels(images, self.texts.to(images.device)[prompt])
