"""The stages: their settings, typed, with the toy scale's defaults; their notebooks; and what they make."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from .bounds import (
    Arm,
    Count,
    Extra,
    Few,
    FewOrNone,
    Guidance,
    Listed,
    Natural,
    Place,
    Positive,
    Renders,
    Rows,
    Seed,
    Several,
    Share,
    Size,
    Some,
    Split,
    Width,
    fit,
)

NOTEBOOKS = {  # a stage's, which bears its name
    name[3:]: name
    for name in (
        "01_prompts 02_generate 03_feedback 04_reward 05_align 06_evaluate 07_best_of_n 08_data 10_stress "
        "11_reach 09_sensitivity 12_league 13_verdicts A1_pretrain"
    ).split()
}
MAKES = {  # what a stage is not finished without
    stage: made.split()
    for stage, made in {
        "prompts": "prompts.csv",
        "generate": "images",
        "feedback": "feedback.sqlite labels.csv raters.csv agreement.csv numbers.json",
        "reward": "model gains.csv numbers.json",
        "align": "unet log.csv curve.csv numbers.json",
        "evaluate": "verdicts.csv accuracy.csv paired.csv quality.csv numbers.json result.png others.png "
        "pictures",
        "best_of_n": "best_of_n.csv votes.csv numbers.json",
        "data": "controls.csv data.csv rewards.csv feedback.csv nearer.csv",
        "stress": "study.csv half.csv novelty.csv",
        "reach": "votes.csv seeds.csv gains.csv",
        "league": "gains.csv claims.csv",
        "sensitivity": "frontier.csv choices.csv",
        "verdicts": "verdicts.csv",
        "pretrain": "judge.csv eye.csv gates.csv numbers.json",
        "study": "rows.csv",
    }.items()
}
EXECUTION = ("accumulate", "extras")  # how a run is done: it may change before a new start


class Settings(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Names and values that know no others and stay as they are."""


class Stage(Settings):
    """What every stage takes."""

    scale: str = "smoke"
    seed: Seed = 0


class Models(Stage):
    """Where the models are: a shipped one, any local folder or any hub name of the same architecture."""

    pipeline: Place = "toy/pipeline"
    clip: Place = "toy/clip"


class Prompts(Stage):
    vocabulary: Literal["toy", "paper"] = "toy"
    to_label: Count = 1800  # seen combination prompts; every seen simple prompt is labelled too
    to_evaluate: Several = 500  # combination prompts of each evaluation split
    to_tune: Count = 200  # validation combination prompts, for choosing guidance
    to_test: Count = 100  # combination prompts of each split that measure the reward


class Generate(Stage):
    pipeline: Place = "toy/pipeline"
    pictures: Place = ""  # own ones with prompts, in place of drawn ones: a folder, tars, tables, a hub name
    per_simple: Few = 10  # images of a count, colour or background prompt (the paper: 60)
    per_combination: Few = 3  # images of a combination prompt (the paper: 6)
    per_test: Few = 6  # images of a prompt that measures the reward
    test_seen: Natural = 40  # seen combination prompts that also get such images
    guidance: Guidance = 3.0  # classifier-free guidance the images are drawn with
    steps: Few = 8  # DPM-Solver++ steps


class Feedback(Stage):
    raters: FewOrNone = 3  # simulated raters an image
    careless: Share = 0.1  # share of the images that one more rater labels at random
    imported: Place = ""  # a file of labels to add
    aggregation: Literal["majority", "dawid-skene"] = "majority"
    judge: Place = "toy/judge"


class Reward(Stage):
    clip: Place = "toy/clip"
    lam: Size = 0.5  # lambda, weight of prompt classification
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 2.0  # T of prompt classification
    candidates: Few = 4  # N, the true prompt and N - 1 contrastive ones
    updates: Count = 2000
    batch: Rows = 128
    lr: Positive = 3e-3
    hidden: Rows = 512
    seeds: Few = 5  # heads behind every figure

    @model_validator(mode="after")
    def _fits(self):
        fit(self.batch * self.candidates * self.hidden, "batch x candidates x hidden numbers")
        return self


class Stress(Stage):
    updates: Count = 400  # of the many heads of chapter 10; all else is as stage `reward` had it
    hidden: Rows = 256


class Rounds(Settings):
    """Fresh images, for methods that draw: each round's are trained on for an equal share of the updates."""

    count: Few = 1
    prompts: Count = 32  # labelled prompts drawn a round
    images: Few = 4  # of each of them
    guidance: Guidance = 1.0
    steps: Few = 8


class Training(Models):
    """A method's training of the U-Net; `knobs` are the method's own numbers (methods/)."""

    method: str = "reward_weighted"
    knobs: dict = {}
    rounds: Rounds = Rounds()
    updates: Count = 1500
    model_batch: Rows = 32  # rows of D_model a step
    pre_batch: Annotated[int, Field(ge=0, le=2**16)] = 8  # rows of D_pre a step
    lr: Positive = 1.6e-3
    drop: Share = 0.1  # share of prompts dropped, so that guidance keeps working
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.995
    lora: FewOrNone = 0  # rank of the adapters, 0 to train the whole U-Net
    lora_targets: Some[Place] = ("to_q", "to_k", "to_v", "to_out.0")
    accumulate: Rows = 1  # micro-batches a step
    precision: Literal["no", "bf16", "fp16"] = "no"  # the weights stay in single precision
    extras: Listed[Extra] = ()  # "checkpointing": less memory, more time
    pretraining: Place = "world"  # scenes of the toy world, or captioned images: a folder or a hub name
    pre_images: Count = 6000
    min_score: Size = 0.0  # lowest aesthetic score of a pre-training image
    judge: Place = "toy/judge"


class Align(Training):
    scorer: Place = "learnt"  # "similarity", a scorer of CLIP's architecture, module:function (scorers.py)


class Study(Training):
    """One point of an experiment: notebook 05's training under another weighing, measured on some prompts."""

    precision: Literal["no"] = "no"
    arm: Arm = "reward"  # what rewards an image; "given": the reward of notebook 04, "none": the base model
    tflop: Size = 0.0  # budget of the training; it buys `updates`, or rounds of as many; 0 for no budget
    raters: FewOrNone = 0  # simulated raters in place of the recorded labels, 0 to keep those
    error: Share = 0.1  # chance that such a rater errs
    label_share: Share = 1.0  # share of the images that have a label
    unlabelled: bool = True  # the reward weighs the images without a label too
    drawing_guidance: Guidance = 0.0  # to draw new images with, 0 to take those of stage `generate`
    objects: Natural = 0  # only images of prompts with the first so many objects, 0 for all
    kept: Natural = 0  # only so many of those images, 0 for all
    splits: Some[Split] = ("validation",)
    prompts: Several = 200  # combination prompts of each split
    repeats: Few = 2  # pictures of each prompt
    guidances: Some[Guidance] = (3.0,)
    own_best: bool = False  # other splits than validation at guidance 1 and at the best there alone
    mixing: Listed[Size] = ()  # steps from base to tuned model, 1 is all the way, on validation prompts too
    steps: Few = 8
    renders: Renders = 2000


class Measured(Models):
    """What both chapters that measure a model take."""

    steps: Few = 8
    real: Place = "world"  # real pictures behind the Fréchet distance: as `pretraining` in notebook 05
    renders: Renders = 2000  # how many
    judge: Place = "toy/judge"  # or an open detector of the OWL-ViT family, for photographs
    scorer: Place = "learnt"


class Evaluate(Measured):
    guidances: Some[Guidance] = (1.0, 2.0, 3.0, 4.0)  # searched on validation prompts; 1 is none
    others: Count = 250  # combination prompts of each split beside the held-out one
    voted: Count = 40  # prompts of the seen and of the unseen group that raters compare, four images each


class BestOfN(Measured):
    prompts: Count = 40
    most: Several = 32  # largest n


class Tour(Models):
    guidance: Guidance = 3.0
    steps: Few = 8
    updates: Count = 40
    judge: Place = "toy/judge"


class Gpu(Stage):
    lora: Few = 8  # rank of the adapters in the memory table


class Pretrain(Stage):
    retrain: bool = False  # True: train the bundle anew (hours on two cores); False: examine the shipped one
    pairs: Count = 100_000
    autoencoder_channels: Annotated[Some[Width], Field(min_length=4, max_length=4)] = (16, 16, 32, 64)
    latent_channels: Count = 4
    autoencoder_steps: Count = 5300
    autoencoder_batch: Count = 32
    autoencoder_lr: Positive = 2e-3
    decoder_steps: Count = 2000  # the decoder alone, on the encoder's final latents
    decoder_batch: Count = 32
    decoder_lr: Positive = 1.5e-3
    text_width: Count = 96  # of CLIP's text tower, its embeddings and what the U-Net attends to
    text_layers: Count = 3
    clip_steps: Count = 1200
    clip_batch: Count = 256
    clip_lr: Positive = 1e-3
    vision_steps: Count = 4500  # the vision tower and the projections alone, on the final text tower
    vision_batch: Count = 128
    vision_lr: Positive = 1e-3
    unet_channels: Some[Width] = (48, 96)  # of its levels
    unet_layers: Count = 1  # residual blocks a level
    unet_attention: Listed[Natural] = (1,)  # the levels that attend to the text
    unet_heads: Count = 4
    rival_channels: Some[Width] = (48, 96, 96)  # of a second U-Net, trained beside the shipped one
    rival_attention: Listed[Natural] = (1, 2)
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    density: Literal["uniform", "logit-normal"] = "uniform"  # of the timesteps in training
    min_snr: Size = 5.0  # gamma of the loss's weight at a timestep, 0 for equal weights
    fresh_pairs: bool = False  # the U-Net sees no pair twice: every step renders its own
    unet_steps: Count = 48_000
    unet_batch: Count = 64
    unet_lr: Positive = 2e-3
    unet_ema: Share = 0.9995
    rival_steps: Count = 9600  # the rest as for the first
    points: Count = 16  # of either training, at which its averages are kept and measured
    judge_steps: Count = 2800
    judge_batch: Count = 128
    judge_lr: Positive = 1.5e-3
    checked: Count = 2000  # fresh renders the judge is tested on
    gate_prompts: Count = 500
    guidance: Guidance = 3.0
    steps: Few = 8


STAGES = {
    "tour": Tour,
    "prompts": Prompts,
    "generate": Generate,
    "feedback": Feedback,
    "reward": Reward,
    "align": Align,
    "evaluate": Evaluate,
    "best_of_n": BestOfN,
    **dict.fromkeys("data reach sensitivity league verdicts methods".split(), Stage),  # no own dials
    "stress": Stress,
    "pretrain": Pretrain,
    "gpu": Gpu,
    "study": Study,
}
