"""When and how strongly the face guides: the schedule and the combination of branches.

Pure functions of FLASHFACE.md section 5 (official ops/context_diffusion.py), written for
predicted clean latents: every term is linear in eps, so eps and x - denoised differ by sigma only.
"""

from dataclasses import dataclass, field

import torch

from ..errors import FlashFaceError
from ..sites import COARSE, FINE, MEDIUM


def check_percents(start: float, end: float) -> None:
    """Raises FlashFaceError when nothing of sampling lies between them."""
    if start >= end:
        raise FlashFaceError(
            f"start_percent {start:g} is not below end_percent {end:g}; the face would never be "
            "used."
        )


@dataclass(frozen=True)
class Guidance:
    """What FlashFaceGuidance sets.

    feature_strength: reference attention at and below the launch timestep ("lamda_feat").
    face_guidance: weight of (with face - without face), the second kind of CFG; 0 is off.
    launch_timestep: model timestep (0..1000) at and below which face guidance runs.
    early_strength: reference attention above the launch timestep, in every branch.
    guidance_rescale: 0..1, how far the result's spread is pulled to the text branch's.
    start_percent, end_percent: the part of sampling in which all this is on.
    coarse, medium, fine: multiply the strength at middle + deepest / middle / finest sites.
    preset: which of PRESETS set the first three, "" for none; shown only, never computed with.
    """

    feature_strength: float = 1.2
    face_guidance: float = 3.2
    launch_timestep: float = 750
    early_strength: float = 0.85
    guidance_rescale: float = 0.5
    start_percent: float = 0.0
    end_percent: float = 1.0
    coarse: float = 1.0
    medium: float = 1.0
    fine: float = 1.0
    preset: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_percents(self.start_percent, self.end_percent)

    @property
    def is_off(self) -> bool:
        return self.feature_strength == self.early_strength == self.face_guidance == 0

    def level_strength(self, level: str) -> float:
        return {COARSE: self.coarse, MEDIUM: self.medium, FINE: self.fine}[level]


# feature_strength, face_guidance, launch_timestep (FLASHFACE.md section 10; the readme's advice)
PRESETS = {
    "stable identity": (1.2, 3.2, 750),
    "strong identity": (1.2, 3.0, 800),
    "change age": (0.9, 2.5, 750),
    "subtle": (0.85, 2.0, 600),
}


@dataclass(frozen=True)
class StepPlan:
    """Strengths of one sampling step: of the positive rows, of all other rows, and of the extra
    branch y_ref (None: no such branch), with the face term's weight and the rescale."""

    positive: float
    other: float
    reference: float | None
    face_guidance: float
    rescale: float

    def strength_of(self, cond_list: str) -> float:
        """Of the rows of one of the guider's cond lists."""
        return self.positive if cond_list == "positive" else self.other

    @property
    def needs_features(self) -> bool:
        return any((self.positive, self.other, self.reference))


def plan_step(guidance: Guidance, timestep: float, inside_window: bool = True) -> StepPlan:
    """The two phases around the launch timestep (FLASHFACE.md section 5)."""
    if not inside_window:
        return StepPlan(0.0, 0.0, None, 0.0, 0.0)
    if timestep > guidance.launch_timestep:
        early = guidance.early_strength
        return StepPlan(early, early, None, 0.0, guidance.guidance_rescale)
    strength = guidance.feature_strength
    if guidance.face_guidance == 0:
        return StepPlan(strength, strength, None, 0.0, guidance.guidance_rescale)
    # At strength 0 the branch with the face equals the one without it.
    reference = strength if strength != 0 else None
    return StepPlan(0.0, 0.0, reference, guidance.face_guidance, guidance.guidance_rescale)


def add_face_guidance(
    denoised: torch.Tensor, y_ref: torch.Tensor, y: torch.Tensor, weight: float
) -> torch.Tensor:
    """guider(y, ...) + weight * (y_ref - y)."""
    return denoised + weight * (y_ref - y)


def rescale_guidance(
    x: torch.Tensor, denoised: torch.Tensor, y: torch.Tensor, rescale: float
) -> torch.Tensor:
    """Pull the standard deviation of the result to that of the text branch without face.

    x: noisy latent (B, C, H, W); y: clean prediction of the positive row. Unlike core's RescaleCFG
    node, which works on v, this is applied to eps as the official sampler does.
    """
    noise = x - denoised
    dims = tuple(range(1, x.ndim))
    spread = (x - y).std(dim=dims, keepdim=True)
    factor = rescale * spread / (noise.std(dim=dims, keepdim=True) + 1e-12) + (1 - rescale)
    return x - noise * factor
