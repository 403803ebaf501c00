"""Several people of one FaceStudio CONDITIONING: where each is, and cross-attention by region.

What core calls joint attention is that of all tokens of the context to everyone's tokens. Where a
CONDITIONING carries regions, its place is taken by attention of every token to its own person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import comfy.conds
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP

from ...errors import FlashFaceError
from ...facestudio.condition import attend_to_identities, identities_at
from ...people.identity import Identity
from ...people.place import Place
from ...sites import Site
from ..cross_attention import check_attention, make_cross_attention_patches
from ..row_conds import at_piece, check_rows, say_piece
from ..step import Run, entries, swapped_conds
from ..unet import site_of, transformer_blocks
from ..untraced import call_unet, plain_unet, with_actions
from .needs_apply import without_mark

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

WITHOUT = "regions: every part of it attends to everybody"
KEY = "facestudio"
NODE = "FaceStudio Apply"
PEOPLE = "facestudio_people"  # among the model_conds of a CONDITIONING; in a step, in a cond dict
REGIONS, TOKENS = "facestudio_regions", "facestudio_tokens"  # what goes with every row
PICTURE = "facestudio_picture"  # size of what is sampled, where core cuts it into windows
ROWS = "facestudio_rows"
RUN = "facestudio_run"
INPUTS = "facestudio_inputs"  # of one cross-attention


@dataclass(frozen=True, eq=False)
class People:
    """Where the people of a CONDITIONING are; one of them may be wherever no other is.

    tokens: T of every person.
    """

    places: tuple[Place | None, ...]
    tokens: int

    def regions(self, samples: int, height: int, width: int) -> torch.Tensor:
        """(M, people, height, width) of 0 and 1 at latent size; M is 1 or one per sample."""
        given = [None if place is None else place.region(height, width) for place in self.places]
        is_one = all(region is None or len(region) == 1 for region in given)
        count = 1 if is_one else samples
        regions = torch.zeros(count, len(given), height, width)
        for number, region in enumerate(given):
            if region is not None:
                regions[:, number] = comfy.utils.repeat_to_batch_size(region, count)
        if None in self.places:
            regions[:, self.places.index(None)] = 1 - regions.amax(1)
        return regions


def make_people(people: Sequence[Identity], tokens: int) -> People | None:
    """None where nobody is bound to a place: one person alone, or a group without any place.

    Raises FlashFaceError where several of a group have no place and others have one.
    """
    places = tuple(person.place for person in people)
    without = sum(place is None for place in places)
    if len(people) == 1 or without == len(people):
        return None
    if without > 1:
        raise FlashFaceError(
            f"{without} of {len(people)} people have no place, FaceStudio puts one at most where "
            "no other is; give the others a FlashFace Identity Place."
        )
    return People(places, tokens)


@dataclass(frozen=True, eq=False)
class Rows:
    """One UNet call in which every row has regions (B, people, H, W).

    Rows without are batched separately.
    """

    regions: torch.Tensor
    tokens: int
    attentions: dict[Site, Any]
    identities: dict[tuple[int, int], torch.Tensor]

    def identities_at(self, size: tuple[int, int]) -> torch.Tensor:
        """Long (B, h * w)."""
        if size not in self.identities:
            self.identities[size] = identities_at(self.regions, size)
        return self.identities[size]


def attach_people(model: "ModelPatcher") -> None:
    """Multi-identity cross-attention for the CONDITIONINGs that ask for it, and no others."""
    # Outside of FlashFaceApply's, which with context windows calls the UNet once more on its own:
    # that call needs PICTURE too.
    kind = WrappersMP.PREDICT_NOISE
    model.wrappers[kind] = {KEY: [mark_step], **model.wrappers.get(kind, {})}
    for kind, wrapper in (
        (WrappersMP.CALC_COND_BATCH, mark_call),
        (WrappersMP.APPLY_MODEL, find_rows),
    ):
        model.add_wrapper_with_key(kind, KEY, wrapper)
    model.set_model_attn2_patch(KEEP_INPUTS)
    model.set_model_attn2_output_patch(PATCHES["attn2_output_patch"])


def _where_rows_are(keep_inputs):
    def keep_where_rows_are(n, context, value, extra_options):
        """attn2_patch: for the calls in which `find_rows` has found any."""
        if ROWS in extra_options:
            return keep_inputs(n, context, value, extra_options)
        return n, context, value

    return keep_where_rows_are


def mark_step(executor, x, timestep, model_options, *args, **kwargs):
    """PREDICT_NOISE: nodes that copy conds inside of the step copy the marks."""
    guider = executor.class_obj
    options = model_options.setdefault("transformer_options", {})
    with entries(options, {PICTURE: tuple(x.shape)}):
        marked = {name: _marked(listed, x, options) for name, listed in guider.conds.items()}
        with swapped_conds(guider, marked):
            return executor(x, timestep, model_options, *args, **kwargs)


def mark_call(executor, model, conds, x_in, timestep, model_options, *args, **kwargs):
    """CALC_COND_BATCH: conds that others made within the step, and pieces of the picture."""
    options = model_options.get("transformer_options", {})
    conds = [_marked(listed, x_in, options) for listed in conds]
    return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)


def _marked(conds: list[dict] | None, x: torch.Tensor, options: dict) -> list[dict] | None:
    """The conds without the mark that asks for Apply; those of people with places are copies whose
    rows carry the regions of x."""
    conds = conds and [_with_people(without_mark(cond)) for cond in conds]
    return conds and [_with_row(c, x, options) if PEOPLE in c else c for c in conds]


def _with_people(cond: dict) -> dict:
    """Core gives areas of one prompt to the other with the other's model_conds, and nothing else of
    it: up to here the people are among these."""
    given = dict(cond.get("model_conds", {}))
    people = given.pop(PEOPLE, None)
    return cond if people is None else {**cond, PEOPLE: people.cond, "model_conds": given}


def _with_row(cond: dict, x: torch.Tensor, options: dict) -> dict:
    """Without regions where x is a piece of the picture and nobody knows where that lies."""
    people: People = cond[PEOPLE]
    samples, _, height, width = options.get(PICTURE, tuple(x.shape))
    run: Run = options.get(RUN) or Run()
    alike = samples, height, width, x.dtype, x.device
    whole = run.keep(people, alike, lambda: people.regions(samples, height, width).to(x))
    regions = at_piece(whole, x, options)
    rows = {name: row for name, row in cond["model_conds"].items() if name not in (REGIONS, TOKENS)}
    if regions is None:
        say_piece(NODE, x, options, WITHOUT)
    else:
        run.needed = True
        rows[REGIONS] = comfy.conds.CONDNoiseShape(regions)
        rows[TOKENS] = comfy.conds.CONDConstant(people.tokens)
    return {**cond, "model_conds": rows}


def find_rows(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    """APPLY_MODEL: what core brought along per row, to where the patches find it."""
    options = transformer_options
    if (run := options.get(RUN)) is not None:
        run.called = True
    regions, tokens = kwargs.pop(REGIONS, None), kwargs.pop(TOKENS, None)
    if regions is not None and tokens is not None:
        check_rows(NODE, x, regions)
        here = at_piece(regions, x, options)
        if here is None:
            say_piece(NODE, x, options, WITHOUT)
        else:
            rows = Rows(here, tokens, cross_attentions(plain_unet(executor.class_obj)), {})
            options = {
                **options,
                ROWS: rows,
                "patches": _next_to_attention(options.get("patches", {})),
            }
            options = with_actions(options, {KEY: select_people})
    return call_unet(executor, x, t, c_concat, c_crossattn, control, options, **kwargs)


def select_people(tensors, extra_options):
    """The joint attention out, that to each token's own person in.

    Where no other pack changes the attention, what goes out is bit for bit what came in, so that
    nobody's tokens reach another's region. What others have added stays.
    """
    n, x, context, value = tensors
    rows: Rows = extra_options[ROWS]
    check_attention(NODE, len(rows.regions), x, context, n)
    attn = rows.attentions[site_of(extra_options)]
    attention = partial(
        optimized_attention, attn_precision=attn.attn_precision, transformer_options=extra_options
    )
    q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(value)
    identities = rows.identities_at(tuple(extra_options["activations_shape"][-2:]))
    people = rows.regions.shape[1]
    own = attend_to_identities(q, k, v, identities, attn.heads, people, rows.tokens, attention)
    return attn.to_out(own) + (n - attn.to_out(attention(q, k, v, attn.heads)))


PATCHES = make_cross_attention_patches(KEY, INPUTS, select_people).patches
KEEP_INPUTS = _where_rows_are(PATCHES["attn2_patch"])


def _next_to_attention(patches: dict[str, list]) -> dict[str, list]:
    """Ours is the last to see what goes in and the first to see what comes out, whatever was put on
    MODEL before and after Apply."""
    act = PATCHES["attn2_output_patch"]
    before = [one for one in patches.get("attn2_patch", ()) if one is not KEEP_INPUTS]
    behind = [one for one in patches.get("attn2_output_patch", ()) if one is not act]
    return {**patches, "attn2_patch": [*before, KEEP_INPUTS], "attn2_output_patch": [act, *behind]}


def cross_attentions(unet: Any) -> dict[Site, Any]:
    """Every attn2 of a core UNet by its site; {} for others."""
    blocks = transformer_blocks(unet, with_encoder=True)
    return {site: block.attn2 for site, block in blocks.items() if block.attn2 is not None}
