"""Every objective as a function. Each returns one value per sample, (B,); the caller weights and reduces.

Letters: B batch, C H W latent, L tokens, D feature, N candidate prompts.
"""

import torch
import torch.nn.functional as F

PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")  # of the U-Net


def diffused(scheduler, latents, noise, timesteps):
    """The forward process under the scheduler's own parameterisation: (noisy latents, what the U-Net must predict, its time input, SNR).

    timesteps (B,) int in [0, T). For "epsilon" and "v_prediction" x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise; for "flow_prediction"
    (flow matching) x_t = (1 - sigma_t) x + sigma_t noise, where sigma_t runs to 1 and the time input is sigma_t T. SNR is (B,).
    """
    kind, total = scheduler.config.prediction_type, scheduler.config.num_train_timesteps
    if kind == "flow_prediction":
        shift, sigma = scheduler.config.get("flow_shift", 1.0), (timesteps + 1) / total
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        s = sigma.view(-1, 1, 1, 1).to(latents.dtype)
        return (1 - s) * latents + s * noise, noise - latents, sigma * total, ((1 - sigma) / sigma).square()
    noisy, alpha = scheduler.add_noise(latents, noise, timesteps), scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    if kind == "epsilon":
        return noisy, noise, timesteps, alpha / (1 - alpha)
    if kind == "v_prediction":
        return noisy, scheduler.get_velocity(latents, noise, timesteps), timesteps, alpha / (1 - alpha)
    raise ValueError(f"prediction type {kind!r} is none of {', '.join(PREDICTIONS)}")


def denoising(unet, scheduler, latents, encoder_hidden_states, timesteps, noise, min_snr=0.0):
    """- log p_theta(x | z) up to a constant and a positive factor: the noise-prediction error, (B,) (section 4.3).

    latents, noise (B, C, H, W); encoder_hidden_states (B, L, D); timesteps (B,) int. The mean over C, H, W is taken, so that
    the value does not depend on the latent's size. `min_snr` > 0 is the gamma of Min-SNR weighting (Hang et al., 2023).
    """
    noisy, target, time, snr = diffused(scheduler, latents, noise, timesteps)
    noise_pred = unet(noisy, time, encoder_hidden_states).sample
    error = (noise_pred.float() - target.float()).square().mean((1, 2, 3))
    if not min_snr:
        return error
    kind = scheduler.config.prediction_type  # what turns the error of the prediction into that of the clean latents
    return error * snr.clamp(max=min_snr) / (snr if kind == "epsilon" else snr + 1 if kind == "v_prediction" else (1 + snr.sqrt()).square())


def weights(reward, coefficient=1.0, baseline=0.0):
    """The weight r^k of a model-generated image, (B,), less `baseline` times the mean weight.

    k = 1 is the paper's raw reward, k = 0 plain fine-tuning on the model's own images; if r is the chance that a rater says good, r^k
    is that of k raters agreeing, and exp(R / tau) of the utility R = log r at the temperature tau = 1 / k. A baseline above zero pushes
    the worst images away.
    """
    weight = reward**coefficient
    return weight - baseline * weight.mean()


def eq2(weight, is_model, beta):
    """Coefficients (B,) that make the sum of per-sample errors Eq. 2: E_model[weight error] + beta E_pre[error].

    weight (B,) from `weights`, ignored for pre-training rows; is_model (B,) bool marks the rows of D_model, the others are of D_pre.
    Each expectation is the mean over its own rows of the whole batch.
    """
    model = is_model.float()
    n_model, n_pre = model.sum().clamp(min=1), (1 - model).sum().clamp(min=1)
    return model * weight / n_model + (1 - model) * beta / n_pre


def reward_mse(scores, labels):
    """L_MSE of section 4.2, (B,): (y - r_phi(x, z))^2 with y = 1 good, 0 bad (or a mean of votes)."""
    return (labels - scores).square()


def prompt_classification(scores, temperature=2.0):
    """L_pc of section 4.2, (B,): cross-entropy of the true prompt, column 0 of `scores` (B, N), under softmax(r / T)."""
    truth = scores.new_zeros(len(scores), dtype=torch.long)
    return F.cross_entropy(scores / temperature, truth, reduction="none")
