"""Direct reward fine-tuning of the last step, DRaFT-1 (Clark et al., 2024, arXiv 2309.17400): the gradient of
the reward itself, through the decoder and the sampler's last step.
"""

from pydantic import Field

from .. import losses
from . import Numbers

FROZEN = ("decoder", "reward")
DRAWS = "policy"
RECORD = True
SHARED = False


class Knobs(Numbers):
    eta: float = Field(0.0, ge=0)  # noise of the sampler on the way to the last step


def rows(samples, knobs):
    """Every image."""
    return {"row": range(len(samples))}


def loss(nets, batch, knobs):
    """Minus the reward of the picture that the policy's last step leads to, on the way as it was drawn."""
    x_t, time, then = batch.states[:, -2], batch.times[:, -2], batch.times[:, -1]
    noise_pred = nets.policy(x_t, time, batch.text)
    latents, _ = losses.reverse_step(nets.scheduler, noise_pred, x_t, time, then, eta=0.0)
    score = nets.reward(nets.decoder(latents), batch.prompt)
    return -score, {"reward": score}
