"""What is the same in several rows of a UNet call is computed once.

y and y_ref are the same row up to the first attention that sees a reference: the encoder runs on
the guider's own rows, the middle block and the decoder on all of them. All prompts of one picture
are the same row up to the first cross-attention: what comes before it runs on one row. Core's
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
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from .other_packs import others_patch
from .step import FLASHFACE, Run
from .unet import site_of, transformer_blocks
from .untraced import OWN_FORWARDS

log = logging.getLogger("flashface")

KEY, CORES = "flashface_shared_encoder", "flashface_cores_unet"
# In model_conds, beside a y_ref whose rows nobody moves: n for the n-th y, -n for its y_ref, or 0.
TWIN = "flashface_twin"
SHARED = "flashface_shared"  # in transformer_options: the SharedRows of one UNet call
# In transformer_options: True where all rows that core makes differ in nothing but their text.
ONE_PICTURE = "flashface_one_picture"


class SharedRows(NamedTuple):
    """Of a UNet call with B rows, K of which go through the encoder, and S through its start, up to
    the first cross-attention.

    start: (S,), numbers of rows, S being 1 or K. kept: (K,), numbers of rows. source: (B,), which
    of the K each row comes from.
    """

    start: torch.Tensor
    kept: torch.Tensor
    source: torch.Tensor


def is_one_picture(conds: list[list[dict] | None], x_in: torch.Tensor) -> bool:
    """Whether the conds' rows differ in nothing but their text, and what belongs to faces."""
    known = {"c_crossattn", TWIN, *FLASHFACE.per_row}
    return len(x_in) == 1 and all(
        "area" not in cond and not cond.get("control") and cond["model_conds"].keys() <= known
        for listed in conds
        for cond in listed or ()
    )


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
    is_one: bool = options.get(ONE_PICTURE, False)
    if twins is None and not is_one:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    # A call of rows that nobody has marked has no y_ref.
    order = [0] * len(x) if twins is None else twins.tolist()
    shared, unet = None, executor.class_obj.diffusion_model
    run: Run = options.get(FLASHFACE.run) or Run()
    is_cores = run.keep(CORES, id(unet), lambda: runs_cores_code(unet))
    if is_cores and _is_plain(unet, x, order, control, options):
        key = order, is_one, x.device
        shared = run.keep(KEY, key, lambda: shared_rows(*key))
    start, kept = (len(x), len(x)) if shared is None else (len(shared.start), len(shared.kept))
    log.debug("The encoder runs on %d of %d rows, its start on %d.", kept, len(x), start)
    if shared is not None:
        options = _with_patches(options, shared, unet)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def runs_cores_code(unet: torch.nn.Module) -> bool:
    """Whether every module runs a forward of core's or PyTorch's. What a node has put in its place
    (a compiled one, one that repeats samples) may count rows."""
    modules = list(unet.modules())
    classes = {type(module) for module in modules}
    sources = {name for one in classes for name in (one.__module__, one.forward.__module__)}
    return {name.partition(".")[0] for name in sources} <= {"comfy", "torch"} and all(
        _is_of_its_class(module, name) for module in modules for name in OWN_FORWARDS
    )


def _is_of_its_class(module: torch.nn.Module, name: str) -> bool:
    """Core puts a forward back into the module itself when the patch for it ends."""
    own = vars(module).get(name)
    return own is None or getattr(own, "__func__", None) is getattr(type(module), name, own)


def _is_plain(
    unet: Any, x: torch.Tensor, twins: list[int], control: dict | None, options: dict
) -> bool:
    """Whether this is core's UNet as it is, and nothing in its encoder counts the rows.

    Patches of cross-attention do, ours for the other systems too. A vector per row (SDXL's) is part
    of the embedding, which has to be the same for all rows. A compiled UNet keeps how many rows
    went where in its graphs. Without a middle block core adds residuals to what was widened.
    """
    compiled = options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).get(COMPILE_KEY)
    patched = {name for name, listed in options.get("patches", {}).items() if listed}
    residuals = [r for listed in (control or {}).values() for r in listed if r is not None]
    return (
        type(unet) is UNetModel
        and not compiled
        and unet.num_classes is None
        and (control is None or unet.middle_block is not None)
        and len(twins) == len(x)
        and all(len(residual) in (1, len(x)) for residual in residuals)
        and not any(name.startswith("attn2") for name in patched)
        and not others_patch(options)
    )


def shared_rows(twins: list[int], is_one_picture: bool, device: torch.device) -> SharedRows | None:
    """None where nothing is the same: several pictures, and no y_ref has its y in the call."""
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
    start = kept[:1] if is_one_picture else kept
    if len(start) == len(rows):
        return None
    source = [kept.index(row) for row in rows]
    return SharedRows(*(torch.tensor(numbers, device=device) for numbers in (start, kept, source)))


def _with_patches(options: dict, shared: SharedRows, unet: Any) -> dict:
    """transformer_options of this call."""
    start, kept, source = shared
    last = "input", len(unet.input_blocks) - 1
    sites = transformer_blocks(unet, with_encoder=True)
    first = next((site for site in sites if site[0] == "input"), None)

    def narrow(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        control = control and {
            name: [r if r is None or len(r) == 1 or name == "middle" else r[kept] for r in listed]
            for name, listed in control.items()
        }
        return executor(
            x[start], timesteps[start], context[kept], y, control, transformer_options, **kwargs
        )

    def embed_once(emb, _channels, _options):
        return emb[:1]  # every row of a step has the same timestep

    def widen_context(n, context, value, extra_options):
        if extra_options["block"][0] == "input":
            return n, context, value
        wide = context[source]
        return n, wide, wide if value is context else value[source]

    def widen_start(x, extra_options):
        return x.expand(len(kept), -1, -1) if site_of(extra_options) == first else x

    def widen(h, transformer_options):
        return all_rows(h) if transformer_options["block"] == last else h

    def widen_skip(h, skip, transformer_options):
        return h, all_rows(skip)

    def all_rows(h):
        if len(h) == len(source):  # no row comes twice
            return h
        return h.expand(len(source), -1, -1, -1) if len(h) == 1 else h[source]

    added: dict[str, Callable] = {
        "emb_patch": embed_once,
        "middle_patch": widen_start,
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
