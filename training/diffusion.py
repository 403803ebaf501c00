"""The noise process and the loss. Pure functions; nothing here draws a random number."""

import torch

# FLASHFACE.md section 4: scaled-linear betas, 1000 steps, no zero-SNR, eps prediction.
TIMESTEPS = 1000
BETAS = (0.00085, 0.012)


def noise_levels(device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of every timestep, variance preserving, float32 (1000,)."""
    root = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, TIMESTEPS, dtype=torch.float64)
    alphas_squared = torch.cumprod(1 - root**2, 0)
    alphas, sigmas = alphas_squared**0.5, (1 - alphas_squared) ** 0.5
    return alphas.float().to(device), sigmas.float().to(device)


def add_noise(latent: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """x_t = alpha_t x_0 + sigma_t eps, for latents (B, 4, H, W) and timesteps (B,)."""
    alphas, sigmas = (
        level[timesteps][:, None, None, None] for level in noise_levels(latent.device)
    )
    return alphas * latent + sigmas * noise


def clean_prediction(noisy: torch.Tensor, noise: torch.Tensor, timesteps) -> torch.Tensor:
    """x_0 = (x_t - sigma_t eps) / alpha_t, of latents and predicted noise (B, 4, H, W)."""
    alphas, sigmas = (level[timesteps][:, None, None, None] for level in noise_levels(noisy.device))
    return (noisy - sigmas * noise) / alphas


def noise_loss(
    predicted: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    min_snr_gamma: float | None = None,
    region: torch.Tensor | None = None,
    region_weight: float = 1.0,
) -> torch.Tensor:
    """Mean squared error of the noise per sample, (B,).

    min_snr_gamma: weight min(SNR, gamma) / SNR (arXiv 2303.09556, for eps), None: 1.
    region: (B, 1, H, W) of 0 and 1; inside it the error counts region_weight times, normalised so
    that a uniform error keeps its value.
    """
    error = (predicted - noise).float() ** 2
    if region is None or region_weight == 1.0:
        loss = error.mean(dim=(1, 2, 3))
    else:
        weights = (1 + (region_weight - 1) * region).expand_as(error)
        loss = (weights * error).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))
    if min_snr_gamma is not None:
        alphas, sigmas = noise_levels(loss.device)
        snr = (alphas / sigmas)[timesteps] ** 2
        loss = loss * snr.clamp(max=min_snr_gamma) / snr
    return loss
