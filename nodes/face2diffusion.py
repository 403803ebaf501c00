"""Face2DiffusionLoader and Face2DiffusionTextEncode: a person as a word of the prompt."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.face2diffusion import encode_text, load_face2diffusion
from ..flashface_core.face2diffusion.word import PLACEHOLDER
from . import folders
from .base import FlashFaceNode, schema
from .sockets import OTHER_METHODS, Face2Diffusion, FaceIdentity

FOLDER = "face2diffusion"


class Face2DiffusionLoader(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        files = folders.files(FOLDER)
        # The first of a list is what a new node shows: of the user's files first.
        shipped = folders.shipped(FOLDER)
        encoders = sorted(files, key=lambda name: (name in shipped, "msid" not in name.lower()))
        return schema(
            node_id="Face2DiffusionLoader",
            display_name="Face2Diffusion Loader",
            category=OTHER_METHODS,
            aliases=["face token", "person"],
            description="Loads Face2Diffusion: the face encoder MSID, and the network that makes "
            "a word of a face.",
            inputs=[
                io.Combo.Input(
                    "mapping_name",
                    options=files,
                    tooltip="The mapping network in models/face2diffusion: the published "
                    "mapping.pt, or the same tensors as safetensors.",
                ),
                io.Combo.Input(
                    "encoder_name",
                    options=encoders,
                    tooltip="The face encoder in models/face2diffusion: the published msid.pt, or "
                    "the same tensors as safetensors.",
                ),
            ],
            outputs=[
                Face2Diffusion.Output(
                    display_name="FACE2DIFFUSION", tooltip="For Face2Diffusion Text Encode."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, mapping_name=None, encoder_name=None):
        advice = "put the published mapping.pt and msid.pt there and press R to refresh."
        return folders.check(FOLDER, [mapping_name, encoder_name], "file", advice)

    @classmethod
    def execute(cls, mapping_name, encoder_name) -> io.NodeOutput:
        names = (mapping_name, encoder_name)
        paths = [folders.path(FOLDER, name) for name in names]
        return io.NodeOutput(load_face2diffusion(*paths))


class Face2DiffusionTextEncode(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="Face2DiffusionTextEncode",
            display_name="Face2Diffusion Text Encode",
            category=OTHER_METHODS,
            aliases=["face token", "person", "textual inversion"],
            description="CLIP Text Encode with a person: a word of the prompt stands for the face. "
            "For any SD1.5 MODEL, which stays as it is.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text model of SD1.5 (CLIP-L)."),
                Face2Diffusion.Input("face2diffusion"),
                FaceIdentity.Input(
                    "identity",
                    tooltip="One person. The published encoder needs photos in which a detector "
                    "has found the face.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, with the placeholder where the person is meant: a photo "
                    "of f l in a forest.",
                ),
                io.String.Input(
                    "placeholder",
                    default=PLACEHOLDER,
                    tooltip="What stands for the person in the text. f l is that of the published "
                    "prompts; any other word will do.",
                ),
                FaceIdentity.Input(
                    "expression",
                    optional=True,
                    tooltip="Photos of anyone, whose expression is taken; for encoders that came "
                    "with an expression network, which the published one did not. Not connected: "
                    "the text decides.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip="The prompt with the person in it; goes where any other "
                    "CONDITIONING goes.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, clip, face2diffusion, identity, text, placeholder, expression=None
    ) -> io.NodeOutput:
        vector = None if expression is None else face2diffusion.expression(expression)
        return io.NodeOutput(encode_text(clip, face2diffusion, identity, text, placeholder, vector))


NODES = [Face2DiffusionLoader, Face2DiffusionTextEncode]
