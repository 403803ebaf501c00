"""A face pass: the face of any picture is cut out, drawn anew, and pasted back."""

from comfy_api.latest import io

from ..flashface_core.faces.piece import PIECE_SELECT, cut_out, put_back
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, BoundingBox, FaceCrop, FaceDetector


class FlashFaceCropFace(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceCropFace",
            display_name="FlashFace Crop Face",
            category=CATEGORY,
            aliases=["face detailer", "face pass", "face swap", "inpaint crop", "cut out"],
            description="Cuts a square around the face out of a finished picture, at the size that "
            "FlashFace draws best; FlashFace Paste Face puts it back.",
            inputs=[
                io.Image.Input("image", tooltip="Finished pictures, made with any model."),
                io.Combo.Input(
                    "select",
                    options=PIECE_SELECT,
                    default="largest",
                    tooltip="Which face to take when a picture has several.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="With select = index: which face, counted from 0 by size, with boxes "
                    "in their order.",
                ),
                io.Float.Input(
                    "margin",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Room around the face on every side, as a fraction of its longer side. "
                    "At 1 the face is a third of the crop, as FlashFace knows faces.",
                ),
                io.Int.Input(
                    "size",
                    default=768,
                    min=64,
                    max=4096,
                    step=8,
                    tooltip="Pixels of the crop's sides, and so of what is drawn.",
                ),
                FaceDetector.Input("detector", optional=True, tooltip="Finds the faces."),
                BoundingBox.Input(
                    "boxes",
                    optional=True,
                    tooltip="Face boxes in pixels, as for FlashFace Identity. They win over a "
                    "detector.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="crop",
                    tooltip="The square around the face, of the size asked for.",
                ),
                io.Mask.Output(
                    display_name="face",
                    tooltip="1 in the box of the face: its place, and after Grow Mask what is "
                    "drawn anew.",
                ),
                FaceCrop.Output(
                    display_name="FACE_CROP",
                    tooltip="Where the crop was; for FlashFace Paste Face.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image, select, index, margin, size, detector=None, boxes=None
    ) -> io.NodeOutput:
        cut = cut_out(
            image,
            select=select,
            index=index,
            margin=margin,
            size=size,
            detector=detector,
            boxes=boxes,
        )
        return io.NodeOutput(cut.crops, cut.face, cut.pieces)


class FlashFacePasteFace(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFacePasteFace",
            display_name="FlashFace Paste Face",
            category=CATEGORY,
            aliases=["face detailer", "face pass", "stitch", "put back"],
            description="Puts a face that was drawn anew back where FlashFace Crop Face cut it "
            "out, with a soft edge. Everything else stays as it is, to the bit.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the faces were cut out of."),
                io.Image.Input("crop", tooltip="The face, drawn anew; square, of any size."),
                FaceCrop.Input("face_crop", tooltip="Where it was; of FlashFace Crop Face."),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge, as a fraction of the crop.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the crop the new face shows; without it everywhere.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The picture with its new face.")
            ],
        )

    @classmethod
    def execute(cls, image, crop, face_crop, feather, mask=None) -> io.NodeOutput:
        return io.NodeOutput(put_back(image, crop, face_crop, feather, mask))


NODES = [FlashFaceCropFace, FlashFacePasteFace]
