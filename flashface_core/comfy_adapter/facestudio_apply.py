"""FaceStudioApply: the tensors of a FaceStudio file in a clone of MODEL."""

from ..errors import FlashFaceError
from .facestudio import FaceStudio
from .facestudio_people import KEY, attach_people, cross_attentions

PREFIX = "diffusion_model."


def apply_facestudio(model, facestudio: FaceStudio):
    """A clone of MODEL with FaceStudio's UNet, for its CONDITIONING; MODEL is left as it is.

    Tensors are set by core's weight patches, before those that are there: a LoRA adds to them
    whether it is loaded before or after. Raises FlashFaceError for a MODEL that does not fit, or
    that carries FaceStudio already.
    """
    _check_fit(model, facestudio)
    model = model.clone()
    patches = {f"{PREFIX}{key}": ("set", (value,)) for key, value in facestudio.unet.items()}
    for key in model.add_patches(patches):
        *others, added = model.patches[key]
        model.patches[key] = [added, *others]
    attach_people(model)
    model.set_attachments(KEY, facestudio.name)
    return model


def _check_fit(model, facestudio: FaceStudio) -> None:
    kind, name = type(model.model).__name__, facestudio.name
    if (carried := model.get_attachment(KEY)) is not None:
        raise FlashFaceError(
            f"MODEL already carries FaceStudio's weights ({carried}); connect a MODEL without "
            "FaceStudioApply."
        )
    attentions = cross_attentions(getattr(model.model, "diffusion_model", None))
    widths = {attention.to_k.in_features for attention in attentions.values()}
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
                f"and {found} in MODEL; use the MODEL that FaceStudio was trained on."
            )
