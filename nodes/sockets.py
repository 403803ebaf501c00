"""The sockets of this pack; BOUNDING_BOX is newer cores' own."""

from typing import Any, TypeVar

from comfy_api.latest import io

CATEGORY = "FlashFace"
IDENTITY, OTHER_METHODS = f"{CATEGORY}/identity", f"{CATEGORY}/other methods"


_Widget = TypeVar("_Widget", bound=io.WidgetInput)


def with_extra(widget: _Widget, **extra: Any) -> _Widget:
    """Options for the frontend. Not all widgets of 0.3.75 take them when they are made."""
    widget.extra_dict = {**widget.extra_dict, **extra}
    return widget


def advanced(widget: _Widget) -> _Widget:
    """Newer frontends fold it away."""
    return with_extra(widget, advanced=True)


def socket(io_type: str) -> type[io.ComfyTypeIO]:
    """A type whose inputs are never widgets.

    A frontend may have a widget for the name of any type, as newer ones have for BOUNDING_BOX,
    which then sends a value of its own where nothing is connected. forceInput makes it a socket.
    """
    kind = io.Custom(io_type)

    class Input(kind.Input):
        def __init__(self, id: str, **given: Any) -> None:
            super().__init__(id, extra_dict={"forceInput": True}, **given)

    kind.Input = Input
    return kind


ReferenceNet = socket("REFERENCE_NET")
FaceDetector = socket("FACE_DETECTOR")
FaceIdentity = socket("FACE_IDENTITY")
FaceFeatures = socket("FACE_FEATURES")
FaceGuidance = socket("FACE_GUIDANCE")
Face2Diffusion = socket("FACE2DIFFUSION")
FaceStudio = socket("FACESTUDIO")
FaceFusion = socket("FACE_FUSION")
FaceFusionFeatures = socket("FACE_FUSION_FEATURES")
FaceCrop = socket("FACE_CROP")
BoundingBox = socket("BOUNDING_BOX")
