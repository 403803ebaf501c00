"""What happens in one sampling step: roles, features, the extra branch, face term, rescale.

The guider keeps its own view (y); the face is added after it has spoken.
"""

import logging
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.conds
import comfy.samplers
import comfy.utils
import torch

from ..checkpoint import Site
from ..features import FaceFeatures
from ..guidance import StepPlan, add_face_guidance, rescale_guidance
from ..rows import RowReferences, StepReferences
from .attach import KEY
from .reference import PhotoEncoder

log = logging.getLogger("flashface")


class Names(NamedTuple):
    """What one Apply node's data is called on its way, so that two of them fit on one MODEL.

    key: of wrappers and attachments. node: the id, for messages.
    step, run, branch: in transformer_options, the Step, the Run, and which cond list another one
    repeats (`with_branch`).
    role: in a cond dict, the name of the guider's list that it is in, or "reference".
    strength, position, region: in model_conds, what goes with every row.
    """

    key: str
    node: str
    step: str
    run: str
    role: str
    strength: str
    position: str
    region: str
    branch: str


def names_of(key: str, node: str) -> Names:
    return Names(key, node, **{field: f"{key}_{field}" for field in Names._fields[2:]})


FLASHFACE = names_of(KEY, "FlashFaceApply")
STRENGTH, POSITION = FLASHFACE.strength, FLASHFACE.position


class RowValues(comfy.conds.CONDRegular):
    """One Python number per row: core repeats and concatenates it, no tensor is synchronised."""

    def process_cond(self, batch_size, **kwargs):
        return RowValues(self.cond[:1] * batch_size)

    def can_concat(self, other):
        return True

    def concat(self, others):
        return sum((other.cond for other in others), list(self.cond))

    def size(self):
        return [len(self.cond)]


@dataclass(eq=False)
class Step:
    """One sampling step of one guider; lives as long as the step."""

    plan: StepPlan
    references: StepReferences | None
    position: torch.Tensor | None
    regions: torch.Tensor | None
    # Context windows cut the picture inside of calc_cond_batch, where y is a piece of it.
    is_noting: bool
    reference_conds: list[dict] | None = None
    y: torch.Tensor | None = None
    y_ref: torch.Tensor | None = None


@dataclass(eq=False)
class Run:
    """One sampling run; tells whether the steps came by, and keeps what the last one looked at.

    Samplers of higher order ask for most noise levels twice in a row.
    """

    reached: bool = False
    timestep: float | None = None
    references: StepReferences | None = None

    def references_at(self, timestep: float, compute: Callable[[], StepReferences]):
        if self.timestep != timestep:
            self.timestep = self.references = None
            self.references = compute()
            self.timestep = timestep
        return self.references


def make_run(names: Names):
    def outer_sample(executor, *args, **kwargs):
        """OUTER_SAMPLE: say it when a guider goes round our steps."""
        options = executor.class_obj.model_options.setdefault("transformer_options", {})
        run = options[names.run] = Run()  # of this run: the guider has cloned its options
        result = executor(*args, **kwargs)
        if not run.reached:
            guider = type(executor.class_obj).__name__
            log.warning(
                "%s had no effect: %s does not call ComfyUI's predict_noise.", names.node, guider
            )
        return result

    return outer_sample


def make_predict_noise(
    names: Names,
    features: FaceFeatures,
    make_plan: Callable[[float, bool], StepPlan],
    window: tuple[float, float],
    at_timesteps: bool = True,
):
    """make_plan: from the model timestep, and whether the step lies in the window (sigmas).
    at_timesteps: see every step `at_trained_noise`."""
    start_sigma, end_sigma = window

    def predict_noise(executor, x, timestep, model_options, *args, **kwargs):
        guider = executor.class_obj
        options = dict(model_options.get("transformer_options", {}))
        run: Run = options.get(names.run) or Run()
        run.reached = True
        sampling = guider.inner_model.model_sampling
        sigma = timestep.flatten()[:1]
        t = float(sampling.timestep(sigma))
        is_inside = end_sigma <= float(sigma) <= start_sigma
        if is_inside and at_timesteps:
            x, timestep = at_trained_noise(sampling, x, timestep, t)
            if (sigmas := options.get("sample_sigmas")) is not None:
                # Where context windows and others look up by value which step this is.
                options["sample_sigmas"] = torch.where(sigmas == sigma, timestep[:1], sigmas)
        plan = make_plan(t, is_inside)
        references = None
        if plan.needs_features:
            net: PhotoEncoder = features.net
            seen_at = net.seen_at(t)
            references = run.references_at(
                seen_at,
                lambda: net.step_references(features, seen_at, x.device, guider.inner_model),
            )
        position, regions = place_tensors(features, x)
        is_whole = model_options.get("context_handler") is None
        step = Step(plan, references, position, regions, is_noting=is_whole)

        def marked(conds, role: str, strength: float):
            return conds and mark_conds(names, conds, role, strength, position, regions)

        conds = guider.conds
        guider.conds = {
            name: marked(c, name, plan.positive if name == "positive" else plan.other)
            for name, c in conds.items()
        }
        positive = conds.get("positive")
        if plan.reference is not None and positive:
            # Core's EasyCache keeps its differences per uuid: y and y_ref must not share one.
            step.reference_conds = [
                {**c, "uuid": uuid.uuid5(c["uuid"], names.step)}
                for c in marked(positive, "reference", plan.reference)
            ]
        options[names.step] = step
        model_options = {**model_options, "transformer_options": options}
        try:
            denoised = executor(x, timestep, model_options, *args, **kwargs)
            if not positive or (plan.reference is None and plan.rescale == 0):
                return denoised
            if step.y is None:  # context windows, or a guider that never asked for it
                step.is_noting = False
                batch = [guider.conds["positive"], step.reference_conds]
                results = comfy.samplers.calc_cond_batch(
                    guider.inner_model,
                    [c for c in batch if c],
                    x,
                    timestep,
                    with_branch(model_options, 1, 0),
                )
                step.y, step.y_ref = (*results, None)[:2]
        finally:
            guider.conds = conds
        assert step.y is not None
        if step.y_ref is not None:
            denoised = add_face_guidance(denoised, step.y_ref, step.y, plan.face_guidance)
        if plan.rescale != 0:
            denoised = rescale_guidance(x, denoised, step.y, plan.rescale)
        return denoised

    return predict_noise


def at_trained_noise(sampling, x: torch.Tensor, timestep: torch.Tensor, t: float):
    """The same network input, seen as one of timestep t instead of a sigma beside it.

    The network knows whole timesteps. The official sampler also reads its clean prediction with
    the noise level of that timestep, where core uses the sampler's sigma: at 35 steps they differ
    by up to 0.3 %. Sigmas outside of the trained range are left alone.
    """
    trained = sampling.sigma(torch.tensor(t)).to(timestep)
    sigma = timestep.flatten()[0]
    is_between = float(sampling.sigma_min) < float(sigma) < float(sampling.sigma_max)
    if not is_between or math.isclose(float(trained), float(sigma), rel_tol=1e-5):
        return x, timestep
    # x / sqrt(sigma^2 + 1) is what core hands to the network.
    return x * ((trained**2 + 1) / (sigma**2 + 1)) ** 0.5, torch.full_like(timestep, float(trained))


def place_tensors(features: FaceFeatures, x: torch.Tensor):
    """Position mask (M, 1, H, W), the union of all places, and regions (M, people, H, W).

    None where no person has a place, and where nobody is bound to a region.
    """
    height, width = x.shape[-2:]
    people = [person for person in features.people if person.references]
    places = [person.place for person in people if person.place is not None]
    if not places:
        return None, None
    position = _stack([place.position_mask(height, width) for place in places], len(x))
    position = position.amax(1, keepdim=True).to(x)
    if not any(person.inside_region for person in people):
        return position, None
    everywhere = torch.ones(1, height, width)
    regions = _stack(
        [
            person.place.region(height, width)
            if person.place is not None and person.inside_region
            else everywhere
            for person in people
        ],
        len(x),
    )
    return position, regions.to(x)


def _stack(masks: list[torch.Tensor], samples: int) -> torch.Tensor:
    """(M_i, H, W) each to (M, len, H, W): one per sample, fewer masks repeat.

    M is 1 where everybody has one mask.
    """
    count = samples if any(len(mask) > 1 for mask in masks) else 1
    return torch.stack([comfy.utils.repeat_to_batch_size(m, count) for m in masks], 1)


def mark_conds(
    names: Names, conds: list[dict], role: str, strength: float, position, regions
) -> list[dict]:
    """Copies of the cond dicts whose rows carry their own strength, mask and regions."""
    rows: dict = {names.strength: RowValues([strength])}
    if position is not None:
        rows[names.position] = comfy.conds.CONDNoiseShape(position)
    if regions is not None:
        rows[names.region] = comfy.conds.CONDNoiseShape(regions)
    return [{**c, names.role: role, "model_conds": {**c["model_conds"], **rows}} for c in conds]


def add_reference_branch(executor, model, conds, x_in, timestep, model_options, *args, **kwargs):
    """CALC_COND_BATCH: note y, and compute y_ref beside it, once per step."""
    step: Step | None = model_options.get("transformer_options", {}).get(FLASHFACE.step)
    role = FLASHFACE.role
    index = next((i for i, c in enumerate(conds) if c and c[0].get(role) == "positive"), None)
    if step is None or not step.is_noting or index is None:
        return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)
    step.is_noting = False
    extra = [] if step.reference_conds is None else [step.reference_conds]
    model_options = with_branch(model_options, len(conds), index)
    results = executor(model, [*conds, *extra], x_in, timestep, model_options, *args, **kwargs)
    step.y = results[index].clone()
    if extra:
        step.y_ref = results[-1]
    return results[: len(conds)]


def with_branch(model_options: dict, reference: int, positive: int) -> dict:
    """Options of a call in which cond list `reference` is the positive prompt once more.

    IPAdapter packs and others look up their own tokens by the number of the cond list, and know
    none beyond those of the guider.
    """
    options = {**model_options["transformer_options"], FLASHFACE.branch: {reference: positive}}
    return {**model_options, "transformer_options": options}


def _for_whole_picture(mask: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    if mask is None or mask.shape[-2:] != x.shape[-2:]:
        return None
    return comfy.utils.repeat_to_batch_size(mask, len(x))


def _in_window(mask: torch.Tensor | None, x: torch.Tensor, window) -> torch.Tensor | None:
    """Core cuts x into context windows, and not the masks that go with it."""
    if mask is None or window is None or mask.shape[-2:] == x.shape[-2:]:
        return mask
    return window.get_tensor(mask)


HandOver = Callable[[dict, RowReferences, Any], dict]


def make_row_data(names: Names, levels: Mapping[Site, float], hand_over: HandOver):
    """hand_over: transformer_options, rows and the running UNet to new transformer_options."""

    # Newer cores may hand on more: everything that is not ours goes through.
    def row_data(executor, x, timesteps, context, y, control, transformer_options, *args, **kwargs):
        """DIFFUSION_MODEL: what core brought along per row, to where the patches find it."""
        strengths = kwargs.pop(names.strength, None)
        position = kwargs.pop(names.position, None)
        regions = kwargs.pop(names.region, None)
        step: Step | None = transformer_options.get(names.step)
        if step is not None:
            if strengths is None:  # conds that a node made inside a step: like every other row
                strengths = [step.plan.other] * len(x)
                position = _for_whole_picture(step.position, x)
                regions = _for_whole_picture(step.regions, x)
            window = transformer_options.get("context_window")
            position, regions = (_in_window(mask, x, window) for mask in (position, regions))
            rows = RowReferences(strengths, position, regions, step.references, levels, x.device)
            as_seen = transformer_options.get(names.branch, {})
            branches = [as_seen.get(i, i) for i in transformer_options.get("cond_or_uncond", [])]
            transformer_options = {**transformer_options, "cond_or_uncond": branches}
            transformer_options = hand_over(transformer_options, rows, executor.class_obj)
        return executor(x, timesteps, context, y, control, transformer_options, *args, **kwargs)

    return row_data
