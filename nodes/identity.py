"""FlashFaceIdentity and what shapes an identity: who is drawn, and where."""

import logging

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ..flashface_core.faces.select import NO_FACE, SELECT, make_identity
from ..flashface_core.people.identity import one_person
from ..flashface_core.people.place import Place, mask_to_bool
from .base import FlashFaceNode, schema
from .sockets import IDENTITY, BoundingBox, FaceDetector, FaceIdentity, advanced

log = logging.getLogger("flashface")

REFERENCE_WEIGHT = ["as four photos", "as given"]
ATTENTION = ["whole image", "inside the region"]


class FlashFaceIdentity(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceIdentity",
            display_name="FlashFace Identity",
            category=IDENTITY,
            aliases=["face swap", "face crop", "person", "photo", "character", "portrait"],
            description="Photos of one person to an identity. Without detector and boxes each "
            "image is taken as a face that is cropped already (core's Image Crop makes one).",
            inputs=[
                io.Image.Input("image", tooltip="One photo, or a batch of photos of one person."),
                io.Combo.Input(
                    "select",
                    options=SELECT,
                    default="largest",
                    tooltip="Which face to take when an image has several.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="With select = index: which face, counted from 0 as the preview does.",
                ),
                advanced(
                    io.Float.Input(
                        "crop_margin",
                        default=0.0,
                        min=0.0,
                        max=2.0,
                        step=0.01,
                        tooltip="Fraction of the box added on every side. FlashFace was trained "
                        "at 0.",
                    )
                ),
                io.Combo.Input(
                    "no_face",
                    options=NO_FACE,
                    default="error",
                    tooltip="What to do with an image in which the wanted face is not found.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much these photos count beside the others of this person; 0 drops "
                    "them.",
                ),
                advanced(
                    io.Combo.Input(
                        "reference_weight",
                        options=REFERENCE_WEIGHT,
                        default="as four photos",
                        tooltip="FlashFace was trained with four photos: fewer are weighted as if "
                        "they were four. `as given` leaves the weights alone.",
                    )
                ),
                io.String.Input("name", default="", tooltip="For previews and saved identities."),
                FaceDetector.Input(
                    "detector",
                    optional=True,
                    tooltip="Finds the faces; see FlashFace Detector Loader.",
                ),
                BoundingBox.Input(
                    "boxes",
                    optional=True,
                    tooltip="Face boxes in pixels: x, y, width and height by name or as four "
                    "numbers, a list of them (one per image), or a list of lists. They win over a "
                    "detector.",
                ),
                FaceIdentity.Input(
                    "append_to", optional=True, tooltip="More photos of the same person."
                ),
            ],
            outputs=[
                FaceIdentity.Output(
                    display_name="FACE_IDENTITY",
                    tooltip="The person: for Encode, Place, Mix, Group, Save and Similarity.",
                ),
                io.Image.Output(
                    display_name="faces", tooltip="The faces as they were cut out, 224 x 224."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The photos with all faces numbered; green ones were taken.",
                ),
                io.Int.Output(display_name="count", tooltip="How many faces these photos gave."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        select,
        index,
        crop_margin,
        no_face,
        weight,
        reference_weight,
        name,
        detector=None,
        boxes=None,
        append_to=None,
    ) -> io.NodeOutput:
        tell_of_list()
        made = make_identity(
            image,
            select=select,
            index=index,
            margin=crop_margin,
            no_face=no_face,
            weight=weight,
            as_four_photos=reference_weight == REFERENCE_WEIGHT[0],
            name=name,
            detector=detector,
            boxes=boxes,
            append_to=append_to,
        )
        return io.NodeOutput(made.identity, made.faces, made.preview, made.count)


def tell_of_list() -> None:
    """Core runs a node once per entry where an input is a list, which a canvas hardly shows."""
    context = get_executing_context()
    if context is not None and context.list_index == 1:  # the second of any number
        log.warning(
            "FlashFace Identity was given a list, so it makes one person of every entry. For one "
            "person connect the photos as a batch: Rebatch Images with a batch_size of at least "
            "their number makes one, and append_to takes photos of other sizes."
        )


class FlashFaceIdentityPlace(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        def fraction(name: str, default: float, low: float, tooltip: str):
            return io.Float.Input(
                name, default=default, min=low, max=1.0, step=0.01, tooltip=tooltip
            )

        return schema(
            node_id="FlashFaceIdentityPlace",
            display_name="FlashFace Identity Place",
            category=IDENTITY,
            aliases=["face position", "region", "mask", "box"],
            description="Where the face goes in the picture, and how strongly this person is "
            "drawn. Fractions of the picture: 0 is left or top, 1 is right or bottom.",
            inputs=[
                FaceIdentity.Input("identity"),
                fraction("x", 0.3, -1.0, "Left edge of the face."),
                fraction("y", 0.1, -1.0, "Upper edge of the face."),
                fraction("width", 0.3, 0.0, "Width. The network sees a square of the longer side."),
                fraction("height", 0.3, 0.0, "Height. See width."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Multiplies feature_strength for this person.",
                ),
                io.Combo.Input(
                    "attention",
                    options=ATTENTION,
                    default="whole image",
                    tooltip="Which part of the picture looks at the photos; `inside the region` "
                    "keeps several people apart.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The region as a mask; the four numbers are then not used.",
                ),
            ],
            outputs=[
                FaceIdentity.Output(
                    display_name="FACE_IDENTITY", tooltip="The person with a place in the picture."
                )
            ],
        )

    @classmethod
    def execute(
        cls, identity, x, y, width, height, strength, attention, mask=None
    ) -> io.NodeOutput:
        place = Place(
            box=(x, y, width, height),
            mask=None if mask is None else mask_to_bool(mask),
            strength=strength,
            inside_region=attention == ATTENTION[1],
        )
        person = one_person(identity, "FlashFace Identity Place places one person")
        return io.NodeOutput(person.with_place(place))


NODES = [FlashFaceIdentity, FlashFaceIdentityPlace]
