"""The UNet's encoder once for y and y_ref: they are the same row up to the first attention that
sees a reference.

The encoder runs on the guider's own rows, the middle block and the decoder on all of them. Core's
forward stays as it is: patches of this one call widen what passes by, where nobody else looks at
its rows.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.conds
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP

from .other_packs import others_patch
from .step import FLASHFACE, Run

log = logging.getLogger("flashface")

KEY = "flashface_shared_encoder"
# In model_conds, beside a y_ref whose rows nobody moves: n for the n-th y, -n for its y_ref, or 0.
TWIN = "flashface_twin"
SHARED = "flashface_shared"  # in transformer_options: the SharedRows of one UNet call


class SharedRows(NamedTuple):
    """Of a UNet call with B rows, K of which go through the encoder.

    kept: (K,), their numbers. source: (B,), which of the K each row comes from.
    """

    kept: torch.Tensor
    source: torch.Tensor


def mark_twins(
    conds: list[list[dict] | None], positive: int, reference: list[dict]
) -> list[list[dict] | None]:
    """The guider's lists and y_ref's as one more, every row with the number of its pair.

    On the CPU, whatever the device: it is read in every call, and to ask a GPU is to wait for it.
    """

    def marked(cond: dict, twin: int) -> dict:
        number = comfy.conds.CONDRegular(torch.tensor([twin]))
        return {**cond, "model_conds": {**cond["model_conds"], TWIN: number}}

    lists = [
        listed and [marked(cond, n + 1 if i == positive else 0) for n, cond in enumerate(listed)]
        for i, listed in enumerate(conds)
    ]
    return [*lists, [marked(cond, -n - 1) for n, cond in enumerate(reference)]]


def share_encoder(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    """APPLY_MODEL: the encoder of this call on no row twice, where that can be done."""
    options, twins = transformer_options, kwargs.pop(TWIN, None)
    if twins is not None:
        shared, order = None, twins.tolist()
        if _is_plain(executor.class_obj.diffusion_model, x, order, control, options):
            run: Run = options.get(FLASHFACE.run) or Run()
            shared = run.keep(KEY, (order, x.device), lambda: shared_rows(order, x.device))
        log.debug(
            "The encoder runs on %d of %d rows.", len(x if shared is None else shared.kept), len(x)
        )
        if shared is not None:
            blocks = len(executor.class_obj.diffusion_model.input_blocks)
            options = _with_patches(options, shared, blocks)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _is_plain(
    unet: Any, x: torch.Tensor, twins: list[int], control: dict | None, options: dict
) -> bool:
    """Whether this is core's UNet as it is, and nothing in its encoder counts the rows.

    Patches of cross-attention do, ours for the other systems too. A vector per row (SDXL's) is part
    of the embedding, which has to be the same for all rows.
    """
    patched = {name for name, listed in options.get("patches", {}).items() if listed}
    residuals = [r for listed in (control or {}).values() for r in listed if r is not None]
    return (
        type(unet) is UNetModel
        and unet.num_classes is None
        and len(twins) == len(x)
        and all(len(residual) in (1, len(x)) for residual in residuals)
        and not any(name.startswith("attn2") for name in patched)
        and not others_patch(options)
    )


def shared_rows(twins: list[int], device: torch.device) -> SharedRows | None:
    """None where no y_ref has its y in the same call."""
    own: dict[int, list[int]] = {}
    for row, twin in enumerate(twins):
        own.setdefault(twin, []).append(row)
    rows = list(range(len(twins)))
    for twin, references in own.items():
        # The k-th row of a cond is that of the k-th picture of the batch.
        if twin < 0 and len(own.get(-twin, ())) == len(references):
            for reference, row in zip(references, own[-twin], strict=True):
                rows[reference] = row
    kept = sorted(set(rows))
    if len(kept) == len(rows):
        return None
    source = [kept.index(row) for row in rows]
    return SharedRows(*(torch.tensor(numbers, device=device) for numbers in (kept, source)))


def _with_patches(options: dict, shared: SharedRows, blocks: int) -> dict:
    """transformer_options of this call. blocks: how many the encoder has."""
    kept, source = shared

    def narrow(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        control = control and {
            name: [r if r is None or len(r) == 1 or name == "middle" else r[kept] for r in listed]
            for name, listed in control.items()
        }
        return executor(
            x[kept], timesteps[kept], context[kept], y, control, transformer_options, **kwargs
        )

    def embed_once(emb, _channels, _options):
        return emb[:1]  # every row of a step has the same timestep

    def widen_context(n, context, value, extra_options):
        if extra_options["block"][0] == "input":
            return n, context, value
        wide = context[source]
        return n, wide, wide if value is context else value[source]

    def widen(h, transformer_options):
        return h[source] if transformer_options["block"] == ("input", blocks - 1) else h

    def widen_skip(h, skip, transformer_options):
        return h, skip[source]

    added: dict[str, Callable] = {
        "emb_patch": embed_once,
        "attn2_patch": widen_context,
        "input_block_patch_after_skip": widen,
        "output_block_patch": widen_skip,
    }
    patches = options.get("patches", {})
    wrappers = options.get("wrappers", {})
    around_unet = {**wrappers.get(WrappersMP.DIFFUSION_MODEL, {}), KEY: [narrow]}  # the innermost
    return {
        **options,
        SHARED: shared,
        "patches": {
            **patches,
            **{name: [*patches.get(name, ()), patch] for name, patch in added.items()},
        },
        "wrappers": {**wrappers, WrappersMP.DIFFUSION_MODEL: around_unet},
    }
