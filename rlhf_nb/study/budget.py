"""What a training costs in floating-point operations, and how long a training a budget buys."""

from dataclasses import dataclass

import torch

from .. import align, config, flops
from ..objective import Objective


@dataclass(frozen=True)
class Cost:
    """Of an update, and of a fresh picture, drawn, decoded and scored: 10^12 operations; 0 for none drawn."""

    update: float
    picture: float

    def of(self, settings):
        """What a whole training costs, and how many fresh pictures are in it."""
        rounds = settings.rounds
        drawn = rounds.count * rounds.prompts * rounds.images if self.picture else 0
        return settings.updates * self.update + drawn * self.picture, drawn


def cost(run, pipe, unet, material, score):
    """The Cost of a point's training, by its first step. The round that this draws is the training's own."""
    one = run.settings.rounds.model_copy(update={"count": 1})
    settings = run.settings.model_copy(update={"updates": 1, "rounds": one})
    engine = align.accelerator(settings)
    objective = Objective(settings, pipe, unet, material, engine, score, run.path("work"))
    objective.at(0)
    [loss_at] = objective.micro_batches()
    update = flops.count(lambda: loss_at(unet, 0)[0].backward())
    unet.zero_grad()
    return Cost(update / 1e12, picture(objective) / 1e12 if objective.method.DRAWS else 0.0)


def picture(objective):
    """Operations behind one fresh picture of a method that draws."""
    rounds, asked = objective.rounds, objective.settings.rounds
    part = torch.arange(min(rounds.at_once(), asked.prompts * asked.images))
    with objective.nets.acting(objective.method.DRAWS) as unet:
        prompt = torch.zeros(len(part), dtype=torch.long)
        return flops.count(lambda: rounds.drawn(unet, 0, part, prompt)) / len(part)


def bought(settings, price):
    """`settings` with as many updates as their budget `tflop` buys at a Cost.

    A method that draws has `updates` in every round, and as many rounds as the budget buys. Raises
    ConfigError where it buys none.
    """
    if not settings.tflop:
        return settings
    rounds, a_round = settings.rounds, price.update
    if price.picture:
        a_round *= settings.updates
        a_round += rounds.prompts * rounds.images * price.picture
    count = int(settings.tflop / a_round)
    if not count:
        wrong = f"a budget of {settings.tflop:g} TFLOP buys no update"
        raise config.ConfigError(f"{wrong}: raise `tflop`")
    more = {"updates": count}
    if price.picture:
        more = {"updates": count * settings.updates}
        more["rounds"] = rounds.model_copy(update={"count": count})
    return settings.model_copy(update=more)
