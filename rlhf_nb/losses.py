"""Every objective as a function. Each returns one value per sample, (B,); the caller weights and reduces.

Letters: B batch, C H W latent, L tokens, D feature, N candidate prompts.
"""

import torch
import torch.nn.functional as F


def target(scheduler, latents, noise, timesteps):
    """What the U-Net must predict under the scheduler's own parameterisation, (B, C, H, W)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"prediction type {kind!r} is not supported; use a model with 'epsilon' or 'v_prediction'")


def denoising(unet, scheduler, latents, encoder_hidden_states, timesteps, noise):
    """- log p_theta(x | z) up to a constant and a positive factor: the noise-prediction error, (B,) (section 4.3).

    latents, noise (B, C, H, W); encoder_hidden_states (B, L, D); timesteps (B,) int. The mean over C, H, W is taken, so that
    the value does not depend on the latent's size.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    noise_pred = unet(noisy, timesteps, encoder_hidden_states).sample
    return (noise_pred.float() - target(scheduler, latents, noise, timesteps).float()).square().mean((1, 2, 3))


def reward_weighted(error, reward, is_model, beta):
    """Per-sample terms whose sum is Eq. 2: E_model[r(x, z) error] + beta E_pre[error]; (B,) each.

    error (B,) from `denoising`; reward (B,) in [0, 1], ignored for pre-training rows; is_model (B,) bool marks the rows of
    D_model, the others are of D_pre. Each expectation is the mean over its own rows.
    """
    model = is_model.float()
    n_model, n_pre = model.sum().clamp(min=1), (1 - model).sum().clamp(min=1)
    return error * (model * reward / n_model + (1 - model) * beta / n_pre)


def reward_mse(scores, labels):
    """L_MSE of section 4.2, (B,): (y - r_phi(x, z))^2 with y = 1 good, 0 bad (or a mean of votes)."""
    return (labels - scores).square()


def prompt_classification(scores, temperature=2.0):
    """L_pc of section 4.2, (B,): cross-entropy of the true prompt, column 0 of `scores` (B, N), under softmax(r / T)."""
    truth = scores.new_zeros(len(scores), dtype=torch.long)
    return F.cross_entropy(scores / temperature, truth, reduction="none")
