"""FlashFaceGuidance: how strongly the face guides, and when."""

from comfy_api.latest import io

from ..flashface_core.flashface.guidance import PRESETS, Guidance
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, FaceGuidance, advanced, with_extra

CUSTOM = "custom"
OVERRIDDEN = ("feature_strength", "face_guidance", "launch_timestep")
NUMBERS = {name: dict(zip(OVERRIDDEN, of, strict=True)) for name, of in PRESETS.items()}
SIMPLE = ("feature_strength", "face_guidance")


class FlashFaceGuidance(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        def number(name: str, default: float, high: float, step: float, tooltip: str):
            widget = io.Float.Input(
                name, default=default, min=0.0, max=high, step=step, tooltip=tooltip
            )
            return widget if name in SIMPLE else advanced(widget)

        return schema(
            node_id="FlashFaceGuidance",
            display_name="FlashFace Guidance",
            category=CATEGORY,
            aliases=["face strength", "likeness", "preset"],
            description="How strongly the face guides, and when. Defaults are the authors'.",
            inputs=[
                with_extra(
                    io.Combo.Input(
                        "preset",
                        options=[CUSTOM, *PRESETS],
                        default=CUSTOM,
                        tooltip="Anything but custom overrides feature_strength, face_guidance and "
                        "launch_timestep, whatever they say here; FlashFace Guidance Plot shows "
                        "the numbers in use. For change age a text cfg of 8.5 is advised.",
                    ),
                    presets=NUMBERS,  # for web/js/flashface.js
                ),
                number(
                    "feature_strength", 1.2, 3.0, 0.05, "Likeness: how much the photos are seen."
                ),
                number(
                    "face_guidance",
                    3.2,
                    20.0,
                    0.1,
                    "CFG for the face: weight of (with face - without face). 0 turns it off.",
                ),
                io.Int.Input(
                    "launch_timestep",
                    default=750,
                    min=0,
                    max=1000,
                    step=10,
                    tooltip="Face guidance runs at and below this model timestep; sampling goes "
                    "from 999 to 0.",
                ),
                number(
                    "early_strength", 0.85, 3.0, 0.05, "Feature strength before launch_timestep."
                ),
                number(
                    "guidance_rescale",
                    0.5,
                    1.0,
                    0.05,
                    "Pulls the contrast back to that of the text prediction.",
                ),
                number("start_percent", 0.0, 1.0, 0.01, "The face is off before this part."),
                number("end_percent", 1.0, 1.0, 0.01, "The face is off after this part."),
                number("coarse", 1.0, 3.0, 0.05, "Strength at the middle and deepest sites."),
                number("medium", 1.0, 3.0, 0.05, "Strength at the middle-sized sites."),
                number("fine", 1.0, 3.0, 0.05, "Strength at the finest sites."),
            ],
            outputs=[
                FaceGuidance.Output(
                    display_name="FACE_GUIDANCE",
                    tooltip="For FlashFace Apply and FlashFace Guidance Plot.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        preset,
        feature_strength,
        face_guidance,
        launch_timestep,
        early_strength,
        guidance_rescale,
        start_percent,
        end_percent,
        coarse,
        medium,
        fine,
    ) -> io.NodeOutput:
        guidance = Guidance(
            *PRESETS.get(preset, (feature_strength, face_guidance, launch_timestep)),
            early_strength=early_strength,
            guidance_rescale=guidance_rescale,
            start_percent=start_percent,
            end_percent=end_percent,
            coarse=coarse,
            medium=medium,
            fine=fine,
            preset=preset if preset in PRESETS else "",
        )
        return io.NodeOutput(guidance)


NODES = [FlashFaceGuidance]
