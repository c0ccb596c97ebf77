"""A method's loss of every step: the samples of its round, its terms, their means; nothing here knows a
method's name.
"""

import functools

import torch

from . import diffusion, losses, methods, rollout
from .batches import Batches
from .config import ConfigError
from .nets import Nets


class Objective:
    """A method's loss of every step for train.loop, over the samples of the step's round."""

    def __init__(self, settings, pipe, unet, material, engine, score=None, folder=None):
        self.settings, self.material, self.engine = settings, material, engine
        self.method = methods.load(settings.method)
        self.knobs = self.method.Knobs(**settings.knobs)
        check(self.method, settings, engine)
        if self.method.RECORD and pipe.scheduler.config.prediction_type == "flow_prediction":
            raise ConfigError(
                f"method {settings.method!r} trains steps of DDIM, and a flow-matching model takes none: "
                "choose another of either"
            )
        frozen, prompts = self.method.FROZEN, material.prompts
        texts = score.clip.prompts(prompts) if "reward" in frozen else None
        self.nets = Nets(pipe, unet, frozen, score, texts, engine.autocast)
        self.number, self.told = None, {}  # of the round whose samples are at hand, and what is logged of it
        if self.method.DRAWS:
            self.rounds = rollout.Rounds(self, pipe, score, prompts, folder)
        else:
            self.batches = self.of(material.samples)

    def of(self, samples):
        """The batches of one round's samples."""
        s, m = self.settings, self.material
        return Batches(
            samples,
            self.method.rows(samples, self.knobs),
            m.pre,
            (s.model_batch, s.pre_batch if "beta" in s.knobs else 0),
            total=self.nets.scheduler.config.num_train_timesteps,
            empty=m.empty,
            drop=0.0 if self.method.RECORD else s.drop,
            seed=s.seed,
            shared=self.method.SHARED,
        )

    def at(self, step):
        """The batches that step `step` belongs to; at the first step of a round its images are drawn."""
        length = self.settings.updates // self.settings.rounds.count
        number = step // length
        if self.method.DRAWS and number != self.number:
            if step == number * length and number and "old" in self.method.FROZEN:
                self.method.after(self.nets, self.knobs, number)
            samples = self.rounds.samples(number)
            self.batches, self.number = self.of(samples), number
            flat = losses.flat(samples.reward, samples.group).float().mean()
            self.told = {"round_reward": samples.reward.mean(), "round_flat": flat}
        return self.batches

    def terms(self, model, step, positions):
        """A method's terms at `positions` of step `step`, what it logs, and the batch, (b,) each."""
        batch = self.at(step).take(step, positions, next(model.parameters()).device)
        self.nets.policy = diffusion.predictor(model)
        return *self.method.loss(self.nets, batch, self.knobs), batch

    def micro_batches(self):
        """This process's loss_at(model, step), one a micro-batch; all of them add up to the step's loss."""
        return [functools.partial(self.loss_at, part=part) for part in range(self.settings.accumulate)]

    def loss_at(self, model, step, part=0):
        """This process's micro-batch `part` of step `step`: the sum of its terms, each by its source's share.

        Logged are the means over either source, and of a round's images their reward and the share of their
        groups that have no spread.
        """
        processes, rank = self.engine.num_processes, self.engine.process_index
        positions = self.at(step).positions(processes, rank, self.settings.accumulate)[part]
        terms, log, batch = self.terms(model, step, positions)
        share = losses.shares(self.batches.is_model)[positions].to(terms)
        sources = {"model": batch.is_model, "pre": ~batch.is_model}
        sizes = dict(zip(sources, self.batches.size, strict=True))
        logged = {
            f"{source}_{name}": torch.where(of, value, 0).sum() / sizes[source]
            for name, value in log.items()
            for source, of in sources.items()
            if sizes[source]
        }
        parts = processes * self.settings.accumulate
        told = {name: (value / parts).to(terms.device) for name, value in self.told.items()}
        return (terms * share).sum(), logged | told

    @torch.no_grad()
    def blame(self, model, step):
        """Which samples of step `step` have terms that are not finite, as words for a message."""
        bad = []
        for part in self.at(step).positions(parts=min(32, len(self.batches.units))):
            terms = self.terms(model, step, part)[0]
            bad += part[~terms.isfinite().cpu()].tolist()
        return f" (samples {self.batches.named(step, sorted(bad)[:5])})" if bad else ""


def check(method, settings, engine):
    """Raise ConfigError where settings and method do not go together, before any work."""
    name, processes = settings.method, engine.num_processes
    if not method.DRAWS and settings.rounds.count > 1:
        raise ConfigError(f"method {name!r} draws no images of its own: leave `rounds` at one")
    if method.RECORD and settings.rounds.guidance != 1:
        raise ConfigError(
            f"method {name!r} draws without guidance, as it trains: leave `guidance` of `rounds` at 1"
        )
    if settings.updates % settings.rounds.count:
        raise ConfigError(
            f"{settings.updates} updates do not divide into {settings.rounds.count} rounds: change either"
        )
    if method.DRAWS and engine.is_fsdp2:
        raise ConfigError(f"method {name!r} draws with the policy: launch with --multi_gpu, weights whole")
    batch = settings.model_batch + settings.pre_batch
    if batch < processes * settings.accumulate:
        raise ConfigError(
            f"a batch of {batch} cannot be split over {processes} processes and {settings.accumulate} "
            "micro-batches: lower either or raise the batch"
        )
