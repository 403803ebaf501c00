"""FlashFaceLoader: a checkpoint in models/flashface to MODEL and REFERENCE_NET."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.flashface.load import WEIGHT_DTYPES, load_flashface
from . import folders
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, ReferenceNet, advanced, with_extra

FOLDER = "flashface"


class FlashFaceLoader(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceLoader",
            display_name="FlashFace Loader",
            category=CATEGORY,
            aliases=["face swap", "checkpoint", "identity", "IPAdapter"],
            description="Loads a FlashFace checkpoint: the complete fine-tuned SD1.5 model and the "
            "Face ReferenceNet that encodes photos.",
            inputs=[
                with_extra(
                    io.Combo.Input(
                        "model_name",
                        options=folders.files(FOLDER),
                        tooltip="A file in models/flashface: the published flashface.ckpt, or the "
                        "safetensors that tools/convert.py makes of it (a third of the size).",
                    ),
                    when_empty="put flashface.ckpt into models/flashface",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="Precision of both networks; default lets ComfyUI choose.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="The complete fine-tuned UNet; without Apply it draws nobody in "
                    "particular.",
                ),
                ReferenceNet.Output(
                    display_name="REFERENCE_NET",
                    tooltip="What looks at the photos; for FlashFace Encode.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name=None):
        advice = (
            "put the published flashface.ckpt there, or the safetensors that tools/convert.py "
            "makes of it, and press R to refresh."
        )
        return folders.check(FOLDER, [model_name], "file", advice)

    @classmethod
    def execute(cls, model_name, weight_dtype) -> io.NodeOutput:
        path = folders.path(FOLDER, model_name)
        return io.NodeOutput(*load_flashface(path, weight_dtype))


NODES = [FlashFaceLoader]
