"""Which timesteps a sampler visits, and which of them lie between start and end percent."""

from typing import TYPE_CHECKING, Any

import comfy.model_sampling
import comfy.samplers
import torch

from ..errors import FlashFaceError
from ..flashface.guidance import Guidance
from ..flashface.plot import Step

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

SCHEDULER = "simple"  # the official trailing spacing where the steps divide 1000


def sigmas_between(
    model: "ModelPatcher", start_percent: float, end_percent: float
) -> tuple[float, float]:
    sampling: Any = model.get_model_object("model_sampling")
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
    start = sampling.percent_to_sigma(guidance.start_percent)
    end = sampling.percent_to_sigma(guidance.end_percent)
    return [
        Step(float(sampling.timestep(sigma)), end <= float(sigma) <= start)
        for sigma in sigmas[:-1].float().cpu()
    ]
