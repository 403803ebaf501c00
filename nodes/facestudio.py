"""FaceStudioLoader, FaceStudioEncode and FaceStudioApply: a face in a style."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.facestudio.apply import apply_facestudio
from ..flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from . import folders
from .base import FlashFaceNode, schema
from .sockets import OTHER_METHODS, FaceDetector, FaceIdentity, FaceStudio

FOLDER = "facestudio"


class FaceStudioLoader(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceStudioLoader",
            display_name="FaceStudio Loader",
            category=OTHER_METHODS,
            aliases=["style", "portrait"],
            description="Loads FaceStudio: the layer that makes a condition of a style and a face, "
            "the UNet tensors trained with it, and its encoders.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folders.files(FOLDER),
                    tooltip="A file in models/facestudio, made by this pack's training. No weights "
                    "of FaceStudio were ever published.",
                ),
            ],
            outputs=[
                FaceStudio.Output(
                    display_name="FACESTUDIO", tooltip="For FaceStudio Encode and FaceStudio Apply."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name=None):
        advice = "put a file there that this pack's training has made, and press R to refresh."
        return folders.check(FOLDER, [model_name], "FaceStudio file", advice)

    @classmethod
    def execute(cls, model_name) -> io.NodeOutput:
        return io.NodeOutput(load_facestudio(folders.path(FOLDER, model_name)))


class FaceStudioEncode(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceStudioEncode",
            display_name="FaceStudio Encode",
            category=OTHER_METHODS,
            aliases=["style transfer", "portrait", "person"],
            description="People in a style, as a condition that takes the place of the text. For "
            "the MODEL of FaceStudio Apply.",
            inputs=[
                FaceStudio.Input("facestudio"),
                FaceIdentity.Input(
                    "identity",
                    tooltip="One person, a mix of two, or a group in which each has a place. "
                    "Photos of weight 0 alone: the style without a face.",
                ),
                io.Float.Input(
                    "alpha",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="What the picture follows: 1 is the style image, 0 is the text.",
                ),
                io.Boolean.Input(
                    "mask_face",
                    default=False,
                    tooltip="Paints the largest face of the style image out, so that nothing of it "
                    "gets into the picture; needs a detector.",
                ),
                io.Image.Input(
                    "style_image",
                    optional=True,
                    tooltip="A picture of a person, for style and content. Several pictures: the "
                    "mean of their styles.",
                ),
                io.Conditioning.Input(
                    "text", optional=True, tooltip="A prompt of SD1.5's CLIP, for alpha below 1."
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="For files without a style encoder of their own, in the order in which "
                    "they were trained.",
                ),
                io.ClipVision.Input("clip_vision_2", optional=True),
                io.ClipVision.Input("clip_vision_3", optional=True),
                FaceDetector.Input(
                    "detector",
                    optional=True,
                    tooltip="For mask_face; and with an InsightFace recognition model, for files "
                    "without a face encoder of their own.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="Face and style, in the place of a prompt."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Its counterpart without face and style."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        facestudio,
        identity,
        alpha,
        mask_face,
        style_image=None,
        text=None,
        clip_vision=None,
        clip_vision_2=None,
        clip_vision_3=None,
        detector=None,
    ) -> io.NodeOutput:
        given = (clip_vision, clip_vision_2, clip_vision_3)
        connected = [one for one in given if one is not None]
        made = facestudio.encode(identity, alpha, mask_face, style_image, text, connected, detector)
        return io.NodeOutput(*made)


class FaceStudioApply(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceStudioApply",
            display_name="FaceStudio Apply",
            category=OTHER_METHODS,
            aliases=["style transfer", "portrait"],
            description="An SD1.5 MODEL that understands the conditions of FaceStudio Encode: its "
            "trained UNet tensors, and every person's place in the picture.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The MODEL that FaceStudio was trained on; LoRAs may come "
                    "before or after, merges before.",
                ),
                FaceStudio.Input("facestudio"),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="Goes to any sampler.")],
        )

    @classmethod
    def execute(cls, model, facestudio) -> io.NodeOutput:
        return io.NodeOutput(apply_facestudio(model, facestudio))


NODES = [FaceStudioLoader, FaceStudioEncode, FaceStudioApply]
