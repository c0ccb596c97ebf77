"""Models by name: a shipped one, a local folder or a hub name is loaded, or one sentence says why not."""

import contextlib
import json
import os
import re
from pathlib import Path

import numpy as np
import torch

from . import config, files

ASSETS = Path(__file__).parent / "toy" / "assets"
# weights of a model, whole or one of several parts, and what of them the file holds: nothing, or "fp16"
WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(?:\.([\w-]+?))?(?:-\d+-of-\d+)?\.safetensors")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class ModelError(config.UserError, RuntimeError):
    """A model folder or hub name cannot be loaded; the message says what is wrong with it and what to do."""


def place(name):
    """Folder of a shipped model ("toy/pipeline"), or `name` itself: any local folder or hub name.

    Raises ModelError for what can be neither.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name = str(name)
    shipped = ASSETS / name.removeprefix("toy/")
    found = str(shipped) if name.startswith("toy/") and os.path.isdir(shipped) else os.path.expanduser(name)
    if os.path.isfile(found):
        raise ModelError(
            f"{name!r} is a file: give a model's folder (StableDiffusionPipeline.from_single_file and "
            "save_pretrained make one of a checkpoint, A2_gpu says what makes one of HPS v2's .pt)"
        )
    if not os.path.isdir(found):
        try:
            validate_repo_id(name)
        except HFValidationError:
            raise ModelError(
                f"there is no folder {name!r}, and a hub name reads owner/model: correct it"
            ) from None
    return found


@contextlib.contextmanager
def named(what, name):
    """Whatever goes wrong in loading `what` of model `name` is a ModelError with the cause and the remedy."""
    try:
        yield
    except config.UserError:
        raise
    except Exception as error:  # each library has its own exceptions for a missing, truncated or foreign file
        raise ModelError(
            f"{what} cannot be loaded from {name!r} ({type(error).__name__}: {config.cause(error)}); restore "
            "the folder (git checkout, or notebook A1_pretrain for the toy model) or give another folder or "
            "hub name"
        ) from error


def loading(cls, name, **options):
    """`cls.from_pretrained(name)`.

    Raises ModelError, which names the folder and the remedy, whatever went wrong.
    """
    with named(cls.__name__, name):
        return cls.from_pretrained(place(name), **options)


def variant(folder):
    """Which weights there are in a local folder: None for the plain ones, else what they have, as "fp16".

    Raises ModelError where its configuration is no JSON object or there are no safetensors.
    """
    try:
        files.read_json(folder / "config.json", remedy="restore it or give another folder or hub name")
    except files.ArtifactError as error:
        raise ModelError(str(error)) from None
    there = [path.name for path in folder.iterdir() if path.is_file()]
    kinds = {found[1] for found in map(WEIGHTS.fullmatch, there) if found}
    if not kinds:
        pickled = [name for name in there if name.endswith(PICKLES)]
        remedy = (
            f"{pickled[0]} is a pickle, which may run code: if you trust it, load it by its library's "
            "from_pretrained(..., use_safetensors=False) and save_pretrained a folder of safetensors (HPS "
            "v2's as A2_gpu says)"
            if pickled
            else "restore it or give another folder or hub name"
        )
        raise ModelError(f"{folder} has no weights as safetensors: {remedy}")
    return None if None in kinds else min(kinds)


def network(cls, name, subfolder="", **options):
    """`loading` of a network whose weights are all there and finite: frozen, single precision, eval mode.

    The libraries would leave a missing weight random. Of a local folder that has variants only, such as fp16,
    one is taken.
    """
    folder, part = Path(place(name)), subfolder or "model"
    if folder.is_dir():
        options["variant"] = variant(folder / subfolder)
    options |= {"subfolder": subfolder, "use_safetensors": True, "output_loading_info": True}
    model, report = loading(cls, name, **options)
    if lacking := len(report["missing_keys"]):
        raise ModelError(
            f"the {part} in {name!r} lacks {lacking} weights: restore the folder or give another folder or "
            "hub name"
        )
    return finite(model.float().eval().requires_grad_(False), f"the {part} in {name!r}")


def finite(model, what):
    """`model`, unless it has weights that are not finite: a ModelError that calls it `what`."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ModelError(
                f"{what} has weights that are not finite ({name}): restore it or give another folder or hub "
                "name"
            )
    return model


def tokenizer(name, text, subfolder=""):
    """CLIP's tokenizer for a text tower of configuration `text`, padding and truncating to its length.

    Raises ModelError where it lacks its words, or those of the tower.
    """
    from transformers import CLIPTokenizer

    found = loading(CLIPTokenizer, name, subfolder=subfolder)
    merges = json.loads(found.backend_tokenizer.to_str())["model"].get("merges")
    if len(found) != text.vocab_size or not merges:
        raise ModelError(
            f"the tokenizer of {name!r} knows {len(found)} tokens by {len(merges or ())} merges, its text "
            f"encoder {text.vocab_size}: a file of it is missing or they are of different models, restore "
            "the folder"
        )
    found.pad_token = found.pad_token or found.eos_token
    longest, most = found.model_max_length, text.max_position_embeddings
    found.model_max_length = min(longest, most) if isinstance(longest, int) else most
    return found


def chunks(things, size):
    """Consecutive parts of `things`, anything that takes slices, of `size` each and a last one of fewer."""
    return (things[i : i + size] for i in range(0, len(things), size))


def each_once(texts, tokenizer, encode, device, batch=512):
    """What `encode` makes of each unique text's tokens: (table (U, ...) on the CPU, rows (B,) into it)."""
    unique, rows = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    options, table = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}, []
    for part in chunks(unique, batch):
        tokens = tokenizer(part.tolist(), **options).to(device)
        table.append(encode(tokens).cpu())
    return torch.cat(table), torch.from_numpy(rows)


def reads(processor, size, name):
    """`processor`, if it makes pictures of size (H, W) for the model `name`, whatever it is given."""
    with named("preprocessor_config.json", name):
        made = processor([np.zeros((8, 9, 3), np.uint8)], return_tensors="pt").pixel_values.shape[2:]
    if tuple(made) != size:
        raise ModelError(
            f"preprocessor_config.json of {name!r} makes pictures of {tuple(made)}, its model reads {size}: "
            "they are of different models, restore the folder"
        )
    return processor


def quiet():
    """No bars or loading reports from the two libraries: errors still show."""
    import diffusers
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
