"""FaceStudioApply: the tensors of a FaceStudio file in a clone of MODEL."""

from typing import TYPE_CHECKING

from comfy.patcher_extension import WrappersMP

from ...errors import FlashFaceError
from ..row_conds import SAID
from ..step import Run, entries, say_bypassed
from ..unet import context_widths, transformer_blocks
from .networks import SOURCE, FaceStudio, Source
from .people import KEY, NODE, RUN, attach_people

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

PREFIX = "diffusion_model."


def apply_facestudio(model: "ModelPatcher", facestudio: FaceStudio):
    """A clone of MODEL with FaceStudio's UNet, for its CONDITIONING; MODEL is left as it is.

    Tensors are set by core's weight patches, after merges and before what adds: the file's they
    are whatever was merged into MODEL, and a LoRA adds to them whether it is loaded before or
    after. Raises FlashFaceError for a MODEL that does not fit, or that carries FaceStudio already.
    """
    _check_fit(model, facestudio)
    model = model.clone()
    patches = {f"{PREFIX}{key}": ("set", (value,)) for key, value in facestudio.unet.items()}
    for key in model.add_patches(patches):
        *others, added = model.patches[key]
        behind = max((i + 1 for i, patch in enumerate(others) if _is_base(patch)), default=0)
        model.patches[key] = [*others[:behind], added, *others[behind:]]
    attach_people(model)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, make_source_check(facestudio.source))
    model.set_attachments(KEY, facestudio.name)
    return model


def _is_base(patch: tuple) -> bool:
    """Core's (strength, value, strength of what is there, ...): makes a new tensor, as merges and
    "set" do, where a LoRA adds to the one that is there."""
    _, value, kept, *_ = patch
    is_set = isinstance(value, tuple) and isinstance(value[0], str) and value[0] == "set"
    return kept != 1 or is_set or isinstance(value, list)  # a list: another model's tensor


def make_source_check(source: Source):
    def check_source(executor, *args, **kwargs):
        """OUTER_SAMPLE: conditions of FaceStudio are of the file whose tensors MODEL has."""
        for conds in executor.class_obj.conds.values():
            for cond in conds or ():
                given: Source | None = cond.get(SOURCE)
                if given is not None and given.fingerprint != source.fingerprint:
                    raise FlashFaceError(
                        f"A condition was encoded with {given.name}, and MODEL carries the weights "
                        f"of another FaceStudio file, {source.name}; connect one FaceStudio Loader "
                        "to both FaceStudio Encode and FaceStudio Apply."
                    )
        options = executor.class_obj.model_options.setdefault("transformer_options", {})
        run = Run()
        with entries(options, {SAID: options.get(SAID, set()), RUN: run}):
            result = executor(*args, **kwargs)
        say_bypassed(run, f"{NODE} gave nobody a region")
        return result

    return check_source


def _check_fit(model: "ModelPatcher", facestudio: FaceStudio) -> None:
    kind, name = type(model.model).__name__, facestudio.name
    if (carried := model.get_attachment(KEY)) is not None:
        raise FlashFaceError(
            f"MODEL already carries FaceStudio's weights ({carried}); connect a MODEL without "
            "FaceStudio Apply."
        )
    unet = getattr(model.model, "diffusion_model", None)
    widths = context_widths(transformer_blocks(unet, with_encoder=True))
    if widths != {facestudio.context_width}:
        found = f"context width {', '.join(map(str, sorted(widths)))}" if widths else "no UNet"
        raise FlashFaceError(
            f"MODEL ({kind}, {found}) and {name} (context width {facestudio.context_width}) do not "
            "fit; use an SD1.5 MODEL, the one that FaceStudio was trained on."
        )
    state = model.model.state_dict()
    for key, tensor in facestudio.unet.items():
        there = state.get(f"{PREFIX}{key}")
        if there is None or there.shape != tensor.shape:
            found = "no such tensor" if there is None else f"{tuple(there.shape)}"
            raise FlashFaceError(
                f"{name} and MODEL ({kind}) do not fit: {key} is {tuple(tensor.shape)} in the file "
                f"and {found} in MODEL; use the MODEL that FaceStudio was trained on, and load it "
                "anew if another node has replaced layers of it."
            )
