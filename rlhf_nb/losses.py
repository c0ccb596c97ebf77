"""Every objective as a function of tensors. Each returns one value per sample, (B,); the caller reduces.

Letters: B batch, C H W latent, L tokens, D feature, N candidate prompts, G groups. `predict(x_t, t, text)` is
a U-Net as a function: what it predicts of noisy latents (B, C, H, W) at times (B,) under text (B, L, D).
"""

from typing import Literal

import torch
import torch.nn.functional as F

PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")  # of the U-Net
Form = Literal["plain", "self-normalised", "huber"]  # of a prediction's error


def diffused(scheduler, latents, noise, timesteps):
    """The forward process: (noisy latents, what the U-Net must predict, its time input, SNR (B,)).

    timesteps (B,) int in [0, T). For "epsilon" and "v_prediction" x_t = sqrt(abar_t) x + sqrt(1 - abar_t)
    noise; for "flow_prediction" (flow matching) x_t = (1 - sigma_t) x + sigma_t noise, where sigma_t runs to
    1 and the time input is sigma_t T. Raises ValueError for another kind of prediction.
    """
    kind, total = scheduler.config.prediction_type, scheduler.config.num_train_timesteps
    if kind == "flow_prediction":
        shift, sigma = scheduler.config.get("flow_shift", 1.0), (timesteps + 1) / total
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        s = sigma.view(-1, 1, 1, 1).to(latents.dtype)
        snr = ((1 - sigma) / sigma).square()
        return (1 - s) * latents + s * noise, noise - latents, sigma * total, snr
    noisy = scheduler.add_noise(latents, noise, timesteps)
    alpha = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    if kind == "epsilon":
        return noisy, noise, timesteps, alpha / (1 - alpha)
    if kind == "v_prediction":
        return noisy, scheduler.get_velocity(latents, noise, timesteps), timesteps, alpha / (1 - alpha)
    raise ValueError(f"prediction type {kind!r} is none of {', '.join(PREDICTIONS)}")


def denoising(predict, scheduler, latents, text, timesteps, noise, min_snr=0.0):
    """- log p_theta(x | z) up to a constant and a positive factor: the noise-prediction error (section 4.3).

    latents, noise (B, C, H, W); text (B, L, D); timesteps (B,) int. The mean over C, H, W is
    taken, so that the value does not depend on the latent's size. `min_snr` > 0 is the gamma of Min-SNR
    weighting (Hang et al., 2023).
    """
    noisy, target, time, snr = diffused(scheduler, latents, noise, timesteps)
    noise_pred = predict(noisy, time, text)
    error = (noise_pred.float() - target.float()).square().mean((1, 2, 3))
    if not min_snr:
        return error
    kind = scheduler.config.prediction_type
    return error * snr.clamp(max=min_snr) / of_clean(kind, snr)


def of_clean(kind, snr):
    """By what the error of a prediction is larger than that of the clean latents, (B,)."""
    return {"epsilon": snr, "v_prediction": snr + 1, "flow_prediction": (1 + snr.sqrt()).square()}[kind]


def gap(a, b):
    """The mean square of a difference over C, H, W, (B,)."""
    return (a - b).square().mean((1, 2, 3))


class Noised:
    """One noising of a batch: whoever predicts it sees the same noisy latents at the same time."""

    def __init__(self, nets, batch):
        self.nets, self.text, self.kind = nets, batch.text, nets.scheduler.config.prediction_type
        self.noisy, self.target, self.time, self.snr = diffused(
            nets.scheduler, batch.latents, batch.noise, batch.timesteps
        )

    def predicted(self, who):
        """What "policy", "old" or "reference" predicts, (B, C, H, W)."""
        return getattr(self.nets, who)(self.noisy, self.time, self.text).float()

    def error_of(self, who):
        """How far what "policy", "old" or "reference" predicts is off, (B,)."""
        return self.error(self.predicted(who))

    def error(self, prediction, form="plain", most=3.0):
        """How far a prediction (B, C, H, W) is off, (B,), in a Form, which is how a timestep weighs.

        "plain": the mean square d. "self-normalised" (V-GRPO, DiffusionNFT): that of the clean latents over
        their mean absolute error, k d / |.| with k the error of the clean latents per error of the
        prediction; k grows without end for a U-Net that predicts noise and is held below `most`. "huber"
        (AWM's code): 4 d^(1/4) sqrt(1 - abar_t), flat for large d.
        """
        error = gap(prediction, self.target)
        if form == "huber":
            root = ((error + 1e-10) ** 0.25 - 1e-10**0.25) * 4
            return root * (1 + self.snr).rsqrt()
        if form == "self-normalised":
            size = (prediction - self.target).abs().mean((1, 2, 3)).detach().clamp(min=1e-5)
            return error * of_clean(self.kind, self.snr).rsqrt().clamp(max=most) / size
        return error


def told_apart(samples, **values):
    """Rows as a method gives them, with `values` (N,) each, of the groups whose rewards differ; all, if none
    do.
    """
    differ = ~flat(samples.reward, samples.group)
    row = (differ if differ.any() else ~differ).nonzero()[:, 0]
    return {"row": row, **{name: value[row] for name, value in values.items()}}


def strata(entries, pairs, low=0.0):
    """Rows as a method gives them, {name: (M,)}, `pairs` times over, each with timesteps of its own part of
    [low, 1) of the forward process.
    """
    count, width = len(entries["row"]), (1 - low) / pairs
    part = torch.arange(pairs).repeat_interleave(count)
    many = {name: value.repeat(pairs) for name, value in entries.items()}
    if "group" in many:
        many["group"] += part * (int(entries["group"].max()) + 1)
    return many | {"low": low + part * width, "high": low + (part + 1) * width}


def weights(reward, power=1.0, baseline=0.0):
    """The weight r^k of a model-generated image, (B,), less `baseline` times the mean weight.

    k = 1 is the paper's raw reward, k = 0 plain fine-tuning on the model's own images; if r is the chance
    that a rater says good, r^k is that of k raters agreeing, and exp(R / tau) of the utility R = log r at the
    temperature tau = 1 / k. A baseline above zero pushes the worst images away.
    """
    weight = reward**power
    return weight - baseline * weight.mean()


def shares(is_model):
    """What a sample counts so that a sum over the batch becomes the mean over each source, (B,).

    is_model (B,) bool marks the rows of D_model, the others are of D_pre: Eq. 2 adds the two expectations.
    """
    model = is_model.float()
    of_model, of_pre = model.sum().clamp(min=1), (1 - model).sum().clamp(min=1)
    return model / of_model + (1 - model) / of_pre


def advantages(reward, group, most=5.0):
    """(reward - its group's mean) / the standard deviation over the batch, held within +-`most`; (B,).

    group (B,) int: the images of one prompt. Zero in a group whose rewards are all equal.
    """
    _, place = group.unique(return_inverse=True)
    reward = reward.double()  # the mean of equal numbers is exactly that number
    count = torch.bincount(place).to(reward)
    mean = torch.bincount(place, reward) / count
    centred = reward - mean[place]
    return (centred / reward.std().clamp(min=1e-4)).clamp(-most, most).float()


def super_linear(advantage, gamma):
    """sign(A) |A|^(1 + gamma) over its standard deviation in the batch, within +-5; (B,)."""
    shaped = advantage.sign() * advantage.abs() ** (1 + gamma)
    return (shaped / shaped.std().clamp(min=1e-4)).clamp(-5, 5)


def reverse_step(scheduler, noise_pred, latents, timesteps, previous, eta=1.0):
    """DDIM's step from timesteps to `previous`: the Gaussian's mean (B, C, H, W) and deviation (B, 1, 1, 1).

    latents (B, C, H, W) at timesteps (B,); previous (B,), negative at the end. Source: Song et al. (2021),
    eq. 12 and 16, sigma = eta times the DDPM deviation. For U-Nets that predict noise or velocity.
    """
    alphas = scheduler.alphas_cumprod.to(latents)
    a = alphas[timesteps].view(-1, 1, 1, 1)
    p = alphas[previous.clamp(min=0)].view(-1, 1, 1, 1)
    if scheduler.config.prediction_type == "v_prediction":
        noise_pred = a.sqrt() * noise_pred + (1 - a).sqrt() * latents
    clean = (latents - (1 - a).sqrt() * noise_pred) / a.sqrt()
    variance = eta**2 * (1 - p) / (1 - a) * (1 - a / p)
    mean = p.sqrt() * clean + (1 - p - variance).sqrt() * noise_pred
    return mean, variance.sqrt()


def log_prob(latents, mean, deviation):
    """Log-density of `latents` under a Gaussian up to a constant, per dimension, (B,).

    The mean, not the sum, over C, H, W: the sum overflows a ratio of two such densities (Black et al., 2024,
    code).
    """
    return -((latents - mean).square() / (2 * deviation.square())).mean((1, 2, 3))


def reward_mse(scores, labels):
    """L_MSE of section 4.2, (B,): (y - r_phi(x, z))^2 with y = 1 good, 0 bad (or a mean of votes)."""
    return (labels - scores).square()


def prompt_classification(scores, temperature=2.0):
    """L_pc of section 4.2, (B,): cross-entropy of the true prompt under softmax(r / T).

    scores (B, N), the true prompt in column 0.
    """
    truth = scores.new_zeros(len(scores), dtype=torch.long)
    return F.cross_entropy(scores / temperature, truth, reduction="none")


def flat(reward, group):
    """Which images (N,) are of a group (N,) whose rewards (N,) are all equal: it has nothing to teach."""
    _, place = group.unique(return_inverse=True)
    low, high = (
        reward.new_zeros(int(place.max()) + 1).scatter_reduce(0, place, reward, kind, include_self=False)
        for kind in ("amin", "amax")
    )
    return (low == high)[place]


def clipped(advantage, ratio, clip):
    """PPO's loss (Schulman et al., 2017, eq. 7), (B,): max(-A ratio, -A ratio held within 1 +- clip)."""
    held = ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(-advantage * ratio, -advantage * held)
