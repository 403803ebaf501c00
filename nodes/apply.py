"""FlashFaceApply: a MODEL that draws the identity, for any sampler."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.flashface.apply import apply_features
from ..flashface_core.flashface.guidance import Guidance
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, FaceFeatures, FaceGuidance


class FlashFaceApply(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceApply",
            display_name="FlashFace Apply",
            category=CATEGORY,
            aliases=[
                "face swap",
                "portrait",
                "character",
                "person",
                "identity",
                "likeness",
                "IPAdapter",
                "FaceID",
                "InstantID",
                "PuLID",
            ],
            description="Patches a MODEL so that every sampler draws the identity. Put LoRA before "
            "or after; bypass it and nothing is left behind.",
            inputs=[
                io.Model.Input("model", tooltip="FlashFace Loader's MODEL, or another SD1.5 one."),
                FaceFeatures.Input("features"),
                FaceGuidance.Input(
                    "guidance", optional=True, tooltip="The authors' defaults when not connected."
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="Goes to any sampler; LoRA, ControlNet and other patches may follow.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, features, guidance=None) -> io.NodeOutput:
        return io.NodeOutput(apply_features(model, features, guidance or Guidance()))


NODES = [FlashFaceApply]
