"""What happens in one sampling step: roles, features, the extra branch, face term, rescale.

The guider keeps its own view (y); the face is added after it has spoken.
"""

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import comfy.model_sampling
import torch

from ..errors import FlashFaceError
from ..features import FaceFeatures
from ..flashface.guidance import StepPlan, add_face_guidance, rescale_guidance
from .photo_encoder import PhotoEncoder
from .reference_branch import ask_for_branches, reference_conds
from .row_conds import SAID, mark_conds, place_tensors
from .schedule import sigmas_between
from .step import Branches, Run, Step, System, entries, say_bypassed, swapped_conds

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider

log = logging.getLogger("flashface")


def make_run(system: System):
    def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        """OUTER_SAMPLE: say it when a guider, or another node, bypasses our steps."""
        guider = executor.class_obj
        options = guider.model_options.setdefault("transformer_options", {})
        run = Run()  # of this run: the guider has cloned its options
        with entries(options, {system.run: run, SAID: options.get(SAID, set())}):
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        # With one noise level left there may be nothing to predict.
        if not run.reached and (run.called or len(sigmas) > 1):
            log.warning(
                "%s had no effect: %s does not call ComfyUI's predict_noise.",
                system.node,
                type(guider).__name__,
            )
        else:
            say_bypassed(run, f"{system.node} had no effect")
        return result

    return outer_sample


def make_predict_noise(
    system: System,
    features: FaceFeatures,
    make_plan: Callable[[float, bool], StepPlan],
    percents: tuple[float, float],
    at_timesteps: bool = True,
):
    """The PREDICT_NOISE wrapper: one sampling step of one guider.

    make_plan: from the model timestep, and whether the step lies between `percents` of sampling
    (start, end). at_timesteps: see every step `at_trained_noise`. What it puts into the guider's
    conds and into transformer_options is gone after the step; what others leave there stays.
    """

    def predict_noise(executor, x, timestep, model_options, *args, **kwargs):
        guider = executor.class_obj
        options = model_options.setdefault("transformer_options", {})
        run: Run = options.get(system.run) or Run()
        run.reached = True
        sampling = guider.inner_model.model_sampling
        check_timesteps(system.node, sampling)
        start, end = run.keep("window", sampling, lambda: sigmas_between(sampling, *percents))
        level = noise_level(sampling, timestep)
        is_inside = end <= level.sigma <= start
        given = {}
        if is_inside and at_timesteps:
            sigma = timestep.flatten()[:1]
            x, timestep = at_trained_noise(level, x, timestep)
            if (sigmas := options.get("sample_sigmas")) is not None:
                # Where context windows and others look up by value which step this is.
                given["sample_sigmas"] = torch.where(sigmas == sigma, timestep[:1], sigmas)
        plan = make_plan(level.t, is_inside)
        step = _make_step(features, plan, run, level.t, x, guider, model_options)
        branches = step.branches
        conds = {
            name: mark_conds(system, listed, name, plan.strength_of(name), step, x)
            for name, listed in guider.conds.items()
        }
        branches.reference_conds = reference_conds(system, guider.conds, step, x, options)
        with entries(options, {**given, system.step: step}), swapped_conds(guider, conds):
            denoised = executor(x, timestep, model_options, *args, **kwargs)
            if not conds.get("positive") or (plan.reference is None and plan.rescale == 0):
                return denoised
            if branches.y is None:  # context windows, or a guider that never asked for it
                ask_for_branches(guider, x, timestep, model_options, branches)
        return _with_face(x, denoised, branches, plan)

    return predict_noise


def _make_step(
    features: FaceFeatures,
    plan: StepPlan,
    run: Run,
    t: float,
    x: torch.Tensor,
    guider: "CFGGuider",
    options,
) -> Step:
    references = None
    if plan.needs_features:
        run.needed = True
        net: PhotoEncoder = features.net
        at = net.reference_timestep(t)
        references = run.keep(
            "references",
            (features, at),
            lambda: net.step_references(features, at, x.device, guider.inner_model),
        )
    alike = features, x.shape, x.dtype, x.device
    places = run.keep("places", alike, lambda: place_tensors(features, x))
    branches = Branches(options.get("context_handler") is None, x.shape)
    return Step(plan, references, places, branches)


def _with_face(
    x: torch.Tensor, denoised: torch.Tensor, branches: Branches, plan: StepPlan
) -> torch.Tensor:
    assert branches.y is not None
    if branches.y_ref is not None:
        denoised = add_face_guidance(denoised, branches.y_ref, branches.y, plan.face_guidance)
    if plan.rescale != 0:
        denoised = rescale_guidance(x, denoised, branches.y, plan.rescale)
    return denoised


def check_timesteps(node: str, sampling) -> None:
    """Raises FlashFaceError for a model_sampling without SD's trained timesteps.

    v-prediction and zero terminal SNR have them: a merge or a distilled model may want these.
    """
    if isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        return
    # Core's nodes make a class of their own of the one that says which sampling it is.
    kinds = [kind for kind in type(sampling).__mro__ if "<locals>" not in kind.__qualname__]
    raise FlashFaceError(
        f"MODEL is sampled with {kinds[0].__name__}, which has no timesteps, and {node} needs the "
        "1000 timesteps of Stable Diffusion for the photos; remove the node that sets it (such as "
        "ModelSamplingContinuousEDM)."
    )


class NoiseLevel(NamedTuple):
    """Of a step: the sampler's sigma, the model timestep nearest to it, the sigma of that timestep,
    and the least and the most that the model was trained with."""

    sigma: float
    t: float
    trained: float
    least: float
    most: float


def noise_level(sampling, timestep: torch.Tensor) -> NoiseLevel:
    """Read from the device at once: each reading waits for a GPU."""
    sigma = timestep.flatten()[:1]
    t = sampling.timestep(sigma)
    numbers = (sigma, t, sampling.sigma(t), sampling.sigma_min, sampling.sigma_max)
    return NoiseLevel(*torch.cat([one.to(sigma).reshape(1) for one in numbers]).tolist())


def at_trained_noise(level: NoiseLevel, x: torch.Tensor, timestep: torch.Tensor):
    """The same network input, seen as one of timestep t instead of a sigma beside it.

    The network knows whole timesteps. The official sampler also reads its clean prediction with
    the noise level of that timestep, where core uses the sampler's sigma: at 35 steps they differ
    by up to 0.3 %. Sigmas outside of the trained range are left alone.
    """
    sigma, trained = level.sigma, level.trained
    is_between = level.least < sigma < level.most
    if not is_between or math.isclose(trained, sigma, rel_tol=1e-5):
        return x, timestep
    # x / sqrt(sigma^2 + 1) is what core hands to the network.
    return x * ((trained**2 + 1) / (sigma**2 + 1)) ** 0.5, torch.full_like(timestep, trained)
