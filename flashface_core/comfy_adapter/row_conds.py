"""What goes with every row of a UNet call: its strength, position mask and regions.

It travels in the `model_conds` of a cond dict, as tensors with one entry per row, and only so: core
cuts them to areas, repeats, splits and concatenates them, and wrappers of other packs that repeat,
reverse or split rows move them along.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import comfy.conds
import comfy.utils
import torch

from ..errors import FlashFaceError
from ..features import FaceFeatures, Person
from ..row_references import Known, RowReferences
from ..sites import Site
from .other_packs import others_look_at_rows
from .shared_encoder import ONE_PICTURE, TWIN, is_one_picture
from .step import FLASHFACE, Places, Run, Step, System, entries
from .untraced import call_unet, plain_unet

log = logging.getLogger("flashface")

WITHOUT = "the places of faces, and without people who are bound to a region"
SAID = "flashface_said"  # in transformer_options: what has been logged in this run


def place_tensors(features: FaceFeatures, x: torch.Tensor) -> Places:
    """Where the people are in a picture like x (B, C, H, W)."""
    height, width = x.shape[-2:]
    people = people_seen(features)
    places = [person.place for person in people if person.place is not None]
    if not places:
        return Places()
    position = _stack([place.position_mask(height, width) for place in places], len(x))
    position = position.amax(1, keepdim=True).to(x)
    if not any(person.inside_region for person in people):
        return Places(position)
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
    unbound = x.new_tensor([not person.inside_region for person in people])
    return Places(position, regions.to(x), unbound[None, :, None, None])


def people_seen(features: FaceFeatures) -> list[Person]:
    """Those of whom anything is left to see, in the order of the regions."""
    return [person for person in features.people if person.references]


def _stack(masks: list[torch.Tensor], samples: int) -> torch.Tensor:
    """(M_i, H, W) each to (M, len, H, W): one per sample, fewer masks repeat.

    M is 1 where everybody has one mask.
    """
    count = samples if any(len(mask) > 1 for mask in masks) else 1
    return torch.stack([comfy.utils.repeat_to_batch_size(m, count) for m in masks], 1)


def _row_conds(
    strength: float, position: torch.Tensor | None, regions: torch.Tensor | None, like: torch.Tensor
) -> tuple[Any, Any, Any]:
    """The same for every row of a cond dict, as core's COND objects; None where there is nothing.

    position: (M, 1, H, W), regions: (M, people, H, W), M being 1 or one per sample.
    """
    number = torch.full((1,), strength, dtype=torch.float32, device=like.device)
    return (
        comfy.conds.CONDRegular(number),
        None if position is None else comfy.conds.CONDNoiseShape(position),
        None if regions is None else comfy.conds.CONDNoiseShape(regions),
    )


def check_rows(node: str, x: torch.Tensor, *given: torch.Tensor | None) -> None:
    """Raises FlashFaceError where another pack gave the UNet other rows than what goes with them.

    x: (B, C, H, W); given: what `node` had brought for them, (B, ...) each.
    """
    for tensor in given:
        if tensor is not None and len(tensor) != len(x):
            raise FlashFaceError(
                f"Another node that wraps the model gives the UNet {len(x)} rows and leaves what "
                f"{node} has for them at {len(tensor)}; remove one of the two."
            )


def at_piece(
    mask: torch.Tensor | None, x: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor | None:
    """The part of mask (B, N, H, W) that belongs to x (B, C, h, w).

    Core cuts x into context windows, of the picture or of the batch, and not always the masks that
    go with it. None where x is a piece of the picture that somebody else has cut out, so that
    nobody knows where it lies.
    """
    if mask is None or (mask.shape[-2:] == x.shape[-2:] and len(mask) in (1, len(x))):
        return mask
    window = options.get("context_window")
    part: torch.Tensor = mask if window is None else window.get_tensor(mask)
    return part if part.shape[-2:] == x.shape[-2:] else None


def say_once(options: dict[str, Any], about: str, text: str, *values: Any) -> None:
    """Log a warning, once per run."""
    said = options.get(SAID)
    if said is None or about not in said:
        log.warning(text, *values)
    if said is not None:
        said.add(about)


def say_piece(node: str, x: torch.Tensor, options: dict[str, Any], without: str) -> None:
    """Log that a piece of the picture is drawn without what belongs to places."""
    text = (
        "%s: another node shows the model a piece of the picture, %d x %d px, and does not tell "
        "where it lies; it is drawn without %s."
    )
    say_once(options, f"{node}: piece", text, node, 8 * x.shape[-1], 8 * x.shape[-2], without)


def mark_conds(
    system: System,
    conds: list[dict] | None,
    role: str,
    strength: float,
    step: Step,
    x: torch.Tensor,
) -> list[dict] | None:
    """Copies of the cond dicts whose rows carry their own strength, mask and regions."""
    given = _row_conds(strength, step.places.position, step.places.regions, like=x)
    named = zip(system.per_row, given, strict=True)
    rows = {name: cond for name, cond in named if cond is not None}

    def marked(cond: dict) -> dict:
        given = {**cond["model_conds"], **rows}
        if system.counts_text and (text := given.get("c_crossattn")) is not None:
            # On the CPU, where reading it waits for nothing.
            given[system.text] = comfy.conds.CONDRegular(torch.tensor([text.cond.shape[1]]))
        return {**cond, system.role: role, "model_conds": given}

    return conds and [marked(cond) for cond in conds]


def make_piece_conds(system: System):
    """CALC_COND_BATCH: masks of the whole picture do not go with a piece of it.

    Here, where x is not yet cut to areas: core would cut them at coordinates of the piece.
    """
    _, position, region = system.per_row

    def piece_conds(executor, model, conds, x_in, timestep, model_options, *args, **kwargs):
        options = model_options.get("transformer_options", {})
        step: Step | None = options.get(system.step)

        def fitting(cond: dict) -> dict:
            rows = dict(cond["model_conds"])
            for name in {position, region} & rows.keys():
                here = at_piece(rows[name].cond, x_in, options)
                if here is None:
                    say_piece(system.node, x_in, options, WITHOUT)
                    del rows[name]
                    if name == region and step is not None and step.places.unbound is not None:
                        here = step.places.unbound.expand(-1, -1, *x_in.shape[-2:])
                if here is not None:
                    rows[name] = comfy.conds.CONDNoiseShape(here)
            return {**cond, "model_conds": rows}

        if step is None:
            return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)
        conds = [listed and [fitting(cond) for cond in listed] for listed in conds]
        is_unmoved = not others_look_at_rows(model_options, conds)
        given = {system.unmoved: is_unmoved}
        if system is FLASHFACE:
            given[ONE_PICTURE] = is_unmoved and is_one_picture(conds, x_in)
        with entries(options, given):
            return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)

    return piece_conds


AttachRows = Callable[[dict, RowReferences, Any], dict]


def make_row_data(system: System, levels: Mapping[Site, float], attach_rows: AttachRows):
    """The APPLY_MODEL wrapper: what core brought along per row, to where the patches find it.

    levels: what multiplies the strength at every site. attach_rows: transformer_options, rows and
    the UNet to new transformer_options. Outside of the UNet, for torch.compile sees what is inside.
    """
    names = system.per_row

    def row_data(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        given = [kwargs.pop(name, None) for name in names]
        text = kwargs.pop(system.text, None)
        options = transformer_options
        if (run := options.get(system.run)) is not None:
            run.called = True
        if (step := options.get(system.step)) is not None:
            twins = kwargs.get(TWIN) if system is FLASHFACE else None
            copies = None
            if text is not None:
                kept: Run = run or Run()  # to compare texts on a GPU is to wait for it
                key = text.tolist(), c_crossattn.shape, c_crossattn.device
                copies = kept.keep(system.text, key, lambda: _text_copies(c_crossattn, key[0]))
            rows = _rows(system, step, x, options, levels, twins, copies, *given)
            options = attach_rows(options, rows, plain_unet(executor.class_obj))
            if not rows.has_effect:  # plain to the last bit
                options = {**options, ONE_PICTURE: False}
        return call_unet(executor, x, t, c_concat, c_crossattn, control, options, **kwargs)

    return row_data


def _text_copies(context: torch.Tensor, tokens: list[int]) -> torch.Tensor | None:
    """How many times context (B, T, D) repeats each row's text; None where none is repeated.

    Core does so where rows of several lengths share a call. Another pack may have made a text
    longer or shorter, which is then that row's text.
    """
    if len(tokens) != len(context):
        return context.new_ones(len(tokens), dtype=torch.float32)  # for check_rows
    total, copies = context.shape[1], []
    for row, own in zip(context, tokens, strict=True):
        is_repeated = own < total and total % own == 0 and torch.equal(row[own:], row[:-own])
        copies.append(total // own if is_repeated else 1)
    if set(copies) == {1}:
        return None
    return torch.tensor(copies, dtype=torch.float32, device=context.device)


def _rows(
    system: System,
    step: Step,
    x: torch.Tensor,
    options: dict,
    levels: Mapping[Site, float],
    twins: torch.Tensor | None,
    copies: torch.Tensor | None,
    strength: torch.Tensor | None,
    position: torch.Tensor | None,
    regions: torch.Tensor | None,
) -> RowReferences:
    strengths = step.strengths_of(None if twins is None else twins.tolist(), len(x))
    if strength is None:  # conds that a node made inside a step: like every other row
        strengths = [step.plan.other] * len(x)
        strength = torch.full((len(x),), step.plan.other, device=x.device)
        position, regions = (
            None if mask is None else comfy.utils.repeat_to_batch_size(mask, len(x))
            for mask in (step.places.position, step.places.regions)
        )
    check_rows(system.node, x, strength, position, regions, copies)
    here, here_regions = (at_piece(mask, x, options) for mask in (position, regions))
    if here is None and position is not None:
        say_piece(system.node, x, options, WITHOUT)
    if here_regions is None and regions is not None:
        assert step.places.unbound is not None
        here_regions = step.places.unbound.expand(len(x), -1, *x.shape[-2:])
    run: Run = options.get(system.run) or Run()
    whole = step.places.regions
    is_whole = whole is not None and whole.shape[-2:] == x.shape[-2:]
    covered = step.places.covered if is_whole and options.get(system.unmoved) else None
    known = Known(strengths, covered, run.keep)
    return RowReferences(strength, here, here_regions, step.references, levels, known, copies)
