"""Which timesteps a sampler visits, and which of them lie between start and end percent."""

from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch

from ..errors import FlashFaceError
from ..flashface.guidance import Guidance
from ..flashface.plot import Step

SCHEDULER = "simple"  # the official trailing spacing where the steps divide 1000


def sigmas_between(sampling: Any, start_percent: float, end_percent: float) -> tuple[float, float]:
    """Of a run's model_sampling, which nodes behind Apply may have changed."""
    return sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)


def sampling_steps(guidance: Guidance, steps: int, sigmas: torch.Tensor | None) -> list[Step]:
    """One entry per sigma that is sampled, which is all but the last.

    sigmas: SIGMAS (steps + 1,) on SD1.5's noise levels; without, `steps` steps of the scheduler
    simple. Raises FlashFaceError for SIGMAS without a step.
    """
    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    if sigmas is None:
        sigmas = comfy.samplers.calculate_sigmas(sampling, SCHEDULER, steps)
    if len(sigmas) < 2:
        raise FlashFaceError(
            f"sigmas has {len(sigmas)} values, and a step needs two (from, to); raise steps or "
            "denoise of its scheduler node, or disconnect it."
        )
    start, end = sigmas_between(sampling, guidance.start_percent, guidance.end_percent)
    return [
        Step(float(sampling.timestep(sigma)), end <= float(sigma) <= start)
        for sigma in sigmas[:-1].float().cpu()
    ]
