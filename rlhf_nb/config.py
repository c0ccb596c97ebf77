"""The one dial, `scale`, and the settings of every stage; strict about names and types."""

import ast
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CLIP_L = "openai/clip-vit-large-patch14"
OWL = "google/owlv2-base-patch16-ensemble"


class UserError(Exception):
    """What one sentence can explain and its reader mend."""

    def _render_traceback_(self):
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError, ValueError):
    """A parameter is unknown or has the wrong type; nothing has been run."""


@dataclass(frozen=True)
class Stage:
    """What every stage takes."""

    scale: str = "smoke"
    seed: int = 0


@dataclass(frozen=True)
class Models(Stage):
    """Where the models are: a shipped one, any local folder or any hub name of the same architecture."""

    pipeline: str = "toy/pipeline"
    clip: str = "toy/clip"


@dataclass(frozen=True)
class Prompts(Stage):
    vocabulary: str = "toy"
    labelled: int = 1800           # seen combination prompts; every seen simple prompt is labelled too
    evaluated: int = 500           # combination prompts of each evaluation split
    tuned: int = 200               # validation combination prompts, for choosing guidance
    tested: int = 100              # combination prompts of each split that measure the reward


@dataclass(frozen=True)
class Generate(Stage):
    pipeline: str = "toy/pipeline"
    per_simple: int = 10           # images of a count, colour or background prompt (the paper: 60)
    per_combination: int = 5       # images of a combination prompt (the paper: 6)
    per_test: int = 6              # images of a prompt that measures the reward
    test_seen: int = 40            # seen combination prompts that also get such images
    guidance: float = 2.0          # classifier-free guidance the images are drawn with
    steps: int = 10                # DPM-Solver++ steps


@dataclass(frozen=True)
class Feedback(Stage):
    raters: int = 3                # simulated raters an image
    careless: float = 0.1          # share of the images that one more rater labels at random
    imported: str = ""             # a file of labels to add
    aggregation: str = "majority"  # or "dawid-skene"
    judge: str = "toy/judge"


@dataclass(frozen=True)
class Reward(Stage):
    clip: str = "toy/clip"
    lam: float = 0.5               # lambda, weight of prompt classification
    temperature: float = 2.0       # T of prompt classification
    candidates: int = 8            # N, the true prompt and N - 1 contrastive ones
    updates: int = 2000
    batch: int = 128
    lr: float = 2e-3
    hidden: int = 1024
    weighted: bool = False         # weigh each label by how sure the raters were
    seeds: int = 5                 # heads behind every figure
    study_updates: int = 400       # of the many heads of the studies, which are
    study_hidden: int = 256        # also narrower


@dataclass(frozen=True)
class Training(Models):
    """Eq. 2 on whatever weighs the images."""

    beta: float = 0.06             # weight of the pre-training term
    updates: int = 2000
    model_batch: int = 32          # rows of D_model a step
    pre_batch: int = 8             # rows of D_pre a step
    lr: float = 6e-4
    drop: float = 0.1              # share of prompts dropped, so that guidance keeps working
    ema: float = 0.995
    coefficient: float = 3.0       # k: an image weighs r^k (the paper: 1)
    baseline: float = 0.0          # share of the mean weight that is taken off every weight
    draw: str = "weight"           # images are drawn by weight, or evenly ("uniform") and weighed
    min_snr: float = 0.0           # gamma of Min-SNR weighting, 0 for none
    lora: int = 0                  # rank of the adapters, 0 to train the whole U-Net
    lora_targets: tuple = ("to_q", "to_k", "to_v", "to_out.0")
    accumulate: int = 1            # micro-batches a step
    precision: str = "no"          # or "bf16", "fp16"; the weights stay in single precision
    extras: tuple = ()             # any of "checkpointing" (less memory, more time), "compile", "tensorboard"
    pretraining: str = "world"     # or captioned images: a folder, parquet files, webdataset shards or a hub name
    pre_images: int = 6000
    min_score: float = 0.0         # lowest aesthetic score of a pre-training image
    judge: str = "toy/judge"


@dataclass(frozen=True)
class Align(Training):
    scorer: str = "learnt"         # or "similarity", or the folder or hub name of a preference scorer of CLIP's architecture


@dataclass(frozen=True)
class Study(Training):
    """One point of an experiment: notebook 05's training under another weighing, measured on some prompts."""

    arm: str = "reward"            # what an image weighs before the power k: see CHOICES; "none" is the base model
    raters: int = 0                # simulated raters in place of the recorded labels, 0 to keep those
    error: float = 0.1             # chance that such a rater errs
    labelled: float = 1.0          # share of the images that have a label
    unlabelled: bool = True        # the reward weighs the images without a label too
    drawn: float = 0.0             # guidance to draw new images with, 0 to take those of stage `generate`
    objects: int = 0               # only images of prompts with the first so many objects, 0 for all
    kept: int = 0                  # only so many of those images, 0 for all
    splits: tuple = ("validation",)
    prompts: int = 200             # combination prompts of each split
    repeats: int = 2               # pictures of each prompt
    guidances: tuple = (4.0,)
    steps: int = 10
    renders: int = 2000


@dataclass(frozen=True)
class Evaluate(Models):
    guidances: tuple = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # searched on validation prompts; 1 is none
    steps: int = 10
    voted: int = 60                # prompts of the seen and of the unseen group that raters compare, four images each
    real: str = "world"            # real pictures behind the Fréchet distance: as `pretraining` in notebook 05
    renders: int = 2000            # how many
    judge: str = "toy/judge"       # or an open detector of the OWL-ViT family, for photographs
    scorer: str = "learnt"


@dataclass(frozen=True)
class BestOfN(Models):
    prompts: int = 40
    most: int = 64                 # largest n
    steps: int = 10
    real: str = "world"            # real pictures that plausible ones are like: as `pretraining` in notebook 05
    renders: int = 2000            # how many
    judge: str = "toy/judge"       # or an open detector of the OWL-ViT family, for photographs
    scorer: str = "learnt"


@dataclass(frozen=True)
class Sweeps(Stage):
    """Notebooks 08 and 09 take nothing of their own: their experiments are written in sweeps.yaml."""


@dataclass(frozen=True)
class Tour(Models):
    guidance: float = 2.0
    steps: int = 10
    updates: int = 40
    judge: str = "toy/judge"


@dataclass(frozen=True)
class Gpu(Stage):
    lora: int = 8                  # rank of the adapters in the memory table


@dataclass(frozen=True)
class Pretrain(Stage):
    retrain: bool = False          # True: train the bundle anew (hours on two cores); False: examine the shipped one
    pairs: int = 50_000
    autoencoder_steps: int = 5300
    decoder_steps: int = 2000      # the decoder alone, on the encoder's final latents
    clip_steps: int = 1200
    vision_steps: int = 4500       # the vision tower and the projections alone, on the final text tower
    unet_steps: int = 4200
    judge_steps: int = 2800
    checked: int = 2000            # fresh renders the judge is tested on
    gate_prompts: int = 500
    guidance: float = 2.0
    steps: int = 10


STAGES = {"tour": Tour, "prompts": Prompts, "generate": Generate, "feedback": Feedback, "reward": Reward, "align": Align,
          "evaluate": Evaluate, "best_of_n": BestOfN, "data": Sweeps, "sensitivity": Sweeps, "pretrain": Pretrain,
          "gpu": Gpu, "study": Study}
_SD15 = {"pipeline": SD15, "clip": CLIP_L, "judge": ""}
EXECUTION = ("accumulate", "extras")  # how a run is done, not what comes out: it may change between a kill and a new start
CHOICES = {"arm": ("none", "reward", "labels", "oracle", "shuffled", "constant", "random", "similarity"),
           "splits": ("validation", "seen", "heldout", "unseen", "ood"),
           "vocabulary": ("toy", "paper"), "aggregation": ("majority", "dawid-skene"), "draw": ("uniform", "weight"), "precision": ("no", "bf16", "fp16"),
           "extras": ("checkpointing", "compile", "tensorboard")}
ZERO = ("seed", "raters", "lora", "pre_batch", "labelled", "test_seen", "objects", "kept")  # whole numbers that may be zero
SHARES = ("careless", "drop", "ema", "error", "labelled")  # numbers from 0 to 1
# The defaults above are the toy scale's; here is what the other two change.
SCALES = {
    "smoke": {
        "prompts": {"labelled": 12, "evaluated": 6, "tuned": 4, "tested": 2},
        "generate": {"per_simple": 1, "per_combination": 3, "per_test": 3, "test_seen": 4, "steps": 4},
        "reward": {"updates": 30, "seeds": 2, "study_updates": 10, "study_hidden": 16},
        "align": {"updates": 6, "model_batch": 12, "pre_batch": 4, "pre_images": 32},
        "evaluate": {"guidances": (1.5, 3.0), "steps": 4, "voted": 2, "renders": 64},
        "best_of_n": {"prompts": 4, "most": 4, "steps": 4, "renders": 64},
        "tour": {"steps": 3, "updates": 4},
        "pretrain": {"retrain": True, "pairs": 96, "autoencoder_steps": 2, "decoder_steps": 2, "clip_steps": 2, "vision_steps": 2,
                     "unet_steps": 2, "judge_steps": 2, "checked": 64, "gate_prompts": 16, "steps": 4},
    },
    "toy": {},
    "sd15": {
        "prompts": {"vocabulary": "paper", "labelled": 2528, "evaluated": 500, "tuned": 100},
        "generate": {"per_simple": 60, "per_combination": 6, "guidance": 7.5, "steps": 20},
        "feedback": {"raters": 0, "careless": 0.0},
        "reward": {"updates": 20_000, "batch": 512, "lr": 1e-4},
        "align": {"updates": 10_000, "model_batch": 256, "pre_batch": 256, "lr": 2e-5, "beta": 1.0, "ema": 0.0, "accumulate": 16,
                  "coefficient": 1.0, "draw": "uniform", "precision": "bf16",
                  "extras": ("tensorboard",), "pretraining": "laion", "pre_images": 625_000, "min_score": 5.0},
        "evaluate": {"guidances": (3.0, 5.0, 7.5), "steps": 20, "real": "laion", "renders": 10_000, "judge": OWL},
        "best_of_n": {"steps": 20, "real": "laion", "renders": 10_000, "judge": OWL},
        "tour": {"guidance": 7.5, "steps": 20, "judge": OWL},
    },
}


def place(name):
    """Folder of a shipped model ("toy/pipeline"), or `name` itself: any local folder or hub name."""
    return str(ASSETS / name) if name and (ASSETS / name).is_dir() else str(name)


def read(path):
    """Parameters from a YAML file, the one papermill takes with `-f`, or from YAML in braces. Raises ConfigError if it is not a table of names and values."""
    import yaml

    try:
        found = yaml.safe_load(path if str(path).startswith("{") else Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"settings file {path} cannot be read ({str(error).splitlines()[0]}): give a YAML file of parameter names and values") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"settings file {path} must hold parameter names and values, as in `scale: toy`")
    return found


def command(stage, make):
    """The command line of a stage: make(settings) with the parameters in the YAML file that is the only argument; a UserError ends it with its sentence."""
    try:
        if len(sys.argv) != 2:
            raise ConfigError(f"give one YAML file of parameters of notebook {stage!r}")
        make(settings(stage, **read(sys.argv[1])))
    except UserError as error:
        sys.exit(f"error: {error}")


def settings(stage, **given):
    """Frozen settings of `stage`; a value of None means the scale's own. Raises ConfigError on any unknown name or wrong type."""
    cls = STAGES[stage]
    known = {f.name: f for f in fields(cls)}
    for name in given.keys() - known.keys():
        raise ConfigError(f"unknown parameter {name!r} of notebook {stage!r}; it takes {', '.join(known)}")
    scale = given.get("scale") or cls.scale
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}; choose one of {', '.join(SCALES)}")
    shared = {k: v for k, v in _SD15.items() if k in known} if scale == "sd15" else {}
    values = shared | SCALES[scale].get(stage, {}) | {k: v for k, v in given.items() if v is not None}
    for name, value in values.items():
        kind = known[name].type
        of = type((known[name].default or ("",))[0]) if kind is tuple else kind  # of a list's elements
        each = [float(v) if of is float and type(v) is int else v for v in (value if kind is tuple and isinstance(value, list | tuple) else [value])]
        if kind is tuple and not isinstance(value, list | tuple) or any(type(v) is not of for v in each) or known[name].default and not each:
            raise ConfigError(f"parameter {name!r} must be {f'a list of {of.__name__}' if kind is tuple else of.__name__}, not {value!r}")
        least, most = 0 if of is float or name in ZERO else 1, 1 if name in SHARES and of is float else float("inf")
        if of in (int, float) and not all(least <= v <= most and v < float("inf") for v in each) or name in ("temperature", "lr") and value == 0:
            bound = "above zero" if name in ("temperature", "lr") else f"at least {least}" + " and at most 1" * (most == 1)
            raise ConfigError(f"parameter {name!r} must be a finite number, {bound}, not {value!r}")
        if name in CHOICES and not set(each) <= set(CHOICES[name]):
            raise ConfigError(f"parameter {name!r} must be one of {', '.join(CHOICES[name])}, not {value!r}")
        values[name] = tuple(each) if kind is tuple else each[0]
    return cls(**values)


def parameters(stage, namespace):
    """Settings of a notebook from its `globals()`, refusing what papermill injected under a name the stage does not have."""
    known = [f.name for f in fields(STAGES[stage])]
    for cell in namespace.get("In", ()):
        if cell.startswith("# Parameters"):  # papermill heads the cell it injects so
            names = [t.id for node in ast.parse(cell).body if isinstance(node, ast.Assign) for t in node.targets]
            settings(stage, **dict.fromkeys(names))
    return settings(stage, **{n: namespace[n] for n in known if n in namespace})


def as_dict(values):
    """Settings as plain JSON types."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(values).items()}


MEASURING = ("arm", "scale", "splits", "prompts", "repeats", "guidances", "steps", "renders", "pipeline", "judge", "clip")  # all that bears on the base model


def key(settings):
    """A name for a point's settings, of those parameters that make a difference to its rows."""
    given = {k: v for k, v in as_dict(settings).items() if k not in EXECUTION and (settings.arm != "none" or k in MEASURING)}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:12]


def points(path, scale, only=()):
    """{key: settings} of every point of the sweeps in a YAML file, each once, whichever sweeps share it. A key is a digest of the settings.

    The file: {"scales": {scale: {parameter: value}}, "sweeps": {name: {"seeds": n, "vary": [{parameter: [values]}], parameter: value}}}; each table under
    `vary` is a grid, which may have its own number of seeds. Raises ConfigError for a sweep that is not there or a parameter that does not exist.
    """
    plan = read(path)
    for name in set(only) - plan["sweeps"].keys():
        raise ConfigError(f"no sweep {name!r} in {path}; it has {', '.join(plan['sweeps'])}")
    found = {}
    for name, sweep in plan["sweeps"].items():
        common = {k: v for k, v in sweep.items() if k not in ("seeds", "vary")}
        for grid in sweep["vary"] if not only or name in only else ():
            seeds, grid = grid.get("seeds", sweep["seeds"]), {k: v for k, v in grid.items() if k != "seeds"}
            for values in product(*grid.values()):
                for seed in range(seeds):
                    given = plan["scales"].get(scale, {}) | common | dict(zip(grid, values, strict=True)) | {"scale": scale, "seed": seed}
                    if given.get("arm") == "none":  # the base model has no training, and so no seed of it
                        given = {k: v for k, v in given.items() if k in MEASURING}
                    found[key(settings("study", **given))] = given
    return found
