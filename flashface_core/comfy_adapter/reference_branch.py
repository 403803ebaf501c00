"""The branch y_ref: the positive prompt once more, with the face, beside the guider's own."""

import uuid
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import comfy.samplers
import torch

from .other_packs import others_look_at_rows
from .row_conds import mark_conds, say_once
from .shared_encoder import mark_twins
from .step import FLASHFACE, Branches, Run, Step, System

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider


def reference_conds(
    system: System, conds: dict[str, list[dict]], step: Step, x: torch.Tensor, options: dict
) -> list[dict] | None:
    """The positive prompt once more, for y_ref; None where there is no such branch."""
    strength = step.plan.reference
    if strength is None:
        return None
    positive = conds.get("positive")
    if "positive" not in conds:
        say_once(
            options,
            "no positive",
            "%s: the guider has no list called positive (but %s), so there is no face guidance; "
            "the face is drawn above the launch timestep only.",
            system.node,
            ", ".join(conds) or "none",
        )
    marked = mark_conds(system, positive, "reference", strength, step, x)
    # Core's EasyCache keeps its differences per uuid: y and y_ref must not share one.
    return marked and with_own_uuids(marked)


def with_own_uuids(listed: list[dict]) -> list[dict]:
    return [{**cond, "uuid": uuid.uuid5(cond["uuid"], FLASHFACE.step)} for cond in listed]


def add_reference_branch(executor, model, conds, x_in, timestep, model_options, *args, **kwargs):
    """CALC_COND_BATCH: keep y, and compute y_ref beside it, once per step.

    In the same call where nobody but us looks at the rows. Otherwise in a call of its own, after
    y: the same lists once more, with y_ref in the place of y. Other packs look up their tokens by
    the number of the cond list, expect each number once, and contrast it with the other lists.
    """
    options = model_options.get("transformer_options", {})
    step: Step | None = options.get(FLASHFACE.step)
    role = FLASHFACE.role
    index = next((i for i, c in enumerate(conds) if c and c[0].get(role) == "positive"), None)
    is_asked = step is not None and step.branches.is_pending and x_in.shape == step.branches.shape
    if step is None or not is_asked or index is None:
        return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)
    branches = step.branches
    branches.is_pending = False

    def call(lists):
        return executor(model, lists, x_in, timestep, model_options, *args, **kwargs)

    reference = branches.reference_conds
    is_apart = reference is not None and others_look_at_rows(model_options, conds)
    lists = conds
    if reference is not None and not is_apart:
        tell_easycache(options, conds[index], reference)
        lists = mark_twins(conds, index, reference)
    random = random_state(x_in.device)
    results = call(lists)
    branches.y = results[index].clone()

    def call_again():
        # With other uuids: to EasyCache it would be the next step, in which nothing has changed.
        again = [reference if i == index else c and with_own_uuids(c) for i, c in enumerate(conds)]
        with drawing_again(random, x_in.device):
            return call(again)[index]

    if is_apart:
        branches.y_ref = unless_skipped(call_again, branches.y, model, timestep, options)
    elif reference is not None:
        branches.y_ref = results[-1]
    return results[: len(conds)]


def unless_skipped(
    call: Callable[[], torch.Tensor], y: torch.Tensor, model, timestep, options: dict
) -> torch.Tensor:
    """y_ref by a call of its own. Where core's EasyCache has made up y of this step, what the face
    changed last, as EasyCache itself would: a y_ref of now beside a y of before is not the face."""
    cache = options.get("easycache")
    if cache is None or not hasattr(cache, "uuid_cache_diffs"):  # LazyCache skips whole steps
        return call()
    run: Run = options.get(FLASHFACE.run) or Run()
    # What one unit of the network's output is in the clean picture.
    unit = model.model_sampling.calculate_denoised(
        timestep, torch.ones_like(y), torch.zeros_like(y)
    )
    if cache.skip_current_step:
        return y if run.face is None else y + unit * run.face
    y_ref = call()
    run.face = (y_ref - y) / unit
    return y_ref


def tell_easycache(options: dict, positive: list[dict], reference: list[dict]) -> None:
    """Core's EasyCache looks up every uuid in a step that it skips, also the one in which y_ref
    comes in: there y_ref is what y is."""
    known = getattr(options.get("easycache"), "uuid_cache_diffs", {})
    for y, y_ref in zip(positive, reference, strict=True):
        if y["uuid"] in known:
            known.setdefault(y_ref["uuid"], known[y["uuid"]])


def random_state(device: torch.device) -> list[torch.Tensor]:
    state = [torch.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state


@contextmanager
def drawing_again(state: list[torch.Tensor], device: torch.device):
    """The random numbers that were drawn from `state` on, once more: ToMe chooses by them which
    tokens it merges, and what is not alike in y and y_ref is multiplied by the face guidance."""
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.set_rng_state(state[0])
        if is_cuda:
            torch.cuda.set_rng_state(state[1], device)
        yield


def ask_for_branches(guider: "CFGGuider", x, timestep, model_options, branches: Branches) -> None:
    branches.is_pending = False
    lists = [one for one in (guider.conds["positive"], branches.reference_conds) if one]

    def call(lists):
        return comfy.samplers.calc_cond_batch(guider.inner_model, lists, x, timestep, model_options)

    if others_look_at_rows(model_options, lists):
        random = random_state(x.device)
        (y,) = call(lists[:1])

        def call_again():
            with drawing_again(random, x.device):
                return call(lists[1:])[0]

        branches.y = y
        if lists[1:]:
            options = model_options["transformer_options"]
            branches.y_ref = unless_skipped(call_again, y, guider.inner_model, timestep, options)
    else:
        branches.y, branches.y_ref = (*call(lists), None)[:2]
