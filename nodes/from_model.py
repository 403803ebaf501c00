"""ReferenceNetFromModel: features without a FlashFace checkpoint."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.flashface.from_model import reference_net_from_model
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, ReferenceNet


class ReferenceNetFromModel(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ReferenceNetFromModel",
            display_name="FlashFace ReferenceNet from Model",
            category=CATEGORY,
            aliases=["reference only", "training-free", "SDXL face"],
            description="Experimental, and without training: an SD1.5 or SDXL model looks at the "
            "photos with its own self-attention. Needs no FlashFace checkpoint; likeness is far "
            "from FlashFace's.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The MODEL that will be sampled, before or after LoRA: its weights "
                    "are taken while sampling.",
                ),
            ],
            outputs=[
                ReferenceNet.Output(
                    display_name="REFERENCE_NET",
                    tooltip="For FlashFace Encode; the MODEL that is sampled looks at the "
                    "photos itself.",
                )
            ],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        return io.NodeOutput(reference_net_from_model(model))


NODES = [ReferenceNetFromModel]
