"""FlashFaceGuidancePlot: the guidance as a picture."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.schedule import sampling_steps
from ..flashface_core.flashface.plot import draw_guidance
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, FaceGuidance


class FlashFaceGuidancePlot(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceGuidancePlot",
            display_name="FlashFace Guidance Plot",
            category=CATEGORY,
            aliases=["face strength", "schedule"],
            description="Draws what a FlashFace Guidance will do in every step of sampling; no "
            "model is needed.",
            inputs=[
                FaceGuidance.Input("guidance"),
                io.Int.Input(
                    "steps",
                    default=30,
                    min=1,
                    max=1000,
                    tooltip="Steps of the scheduler simple; not used when sigmas is connected.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The sampler's own steps, of an SD1.5 or SDXL MODEL.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="IMAGE", tooltip="Strength and guidance over the steps."
                )
            ],
        )

    @classmethod
    def execute(cls, guidance, steps, sigmas=None) -> io.NodeOutput:
        return io.NodeOutput(draw_guidance(guidance, sampling_steps(guidance, steps, sigmas)))


NODES = [FlashFaceGuidancePlot]
