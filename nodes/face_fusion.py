"""FaceFusionLoader, FaceFusionEncode and FaceFusionApply: faces beside the text."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.face_fusion.apply import apply_fusion
from ..flashface_core.comfy_adapter.face_fusion.photos import (
    REFERENCE_NOISES,
    TRAINING_FREE,
    FaceFusion,
    collect_photos,
    load_face_fusion,
)
from . import folders
from .base import FlashFaceNode, schema
from .sockets import OTHER_METHODS, FaceFusionFeatures, FaceIdentity
from .sockets import FaceFusion as FaceFusionSocket

FOLDER = "face_fusion"


class FaceFusionLoader(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceFusionLoader",
            display_name="Face Fusion Loader",
            category=OTHER_METHODS,
            aliases=["reference only", "person"],
            description="Loads Face Fusion's projections: what makes keys and values for "
            "cross-attention of a UNet's own view of the photos. A reconstruction.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    # A new node shows the first, and the shipped ones fit one tiny MODEL alone.
                    options=[*folders.own(FOLDER), TRAINING_FREE, *folders.shipped(FOLDER)],
                    tooltip="A file in models/face_fusion, which fits the UNet it was trained on. "
                    "Training-free: any SD1.5 or SDXL model's own self-attention stands in for it.",
                ),
            ],
            outputs=[
                FaceFusionSocket.Output(
                    display_name="FACE_FUSION", tooltip="For Face Fusion Encode."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name=None):
        if model_name == TRAINING_FREE:
            return True
        advice = f"put a file of this pack's training there, or choose {TRAINING_FREE!r}."
        return folders.check(FOLDER, [model_name], "file", advice)

    @classmethod
    def execute(cls, model_name) -> io.NodeOutput:
        if model_name == TRAINING_FREE:
            return io.NodeOutput(FaceFusion())
        return io.NodeOutput(load_face_fusion(folders.path(FOLDER, model_name)))


class FaceFusionEncode(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceFusionEncode",
            display_name="Face Fusion Encode",
            category=OTHER_METHODS,
            aliases=["reference", "person"],
            description="The photos of an identity, and what the network is told about them.",
            inputs=[
                FaceFusionSocket.Input("face_fusion"),
                FaceIdentity.Input("identity", tooltip="One person, or a group."),
                io.Vae.Input("vae", tooltip="The VAE of the MODEL that is sampled."),
                io.Conditioning.Input(
                    "text",
                    tooltip="What the network is told about the photos, by the MODEL's own CLIP: "
                    "an empty prompt, as in training.",
                ),
            ],
            outputs=[
                FaceFusionFeatures.Output(
                    display_name="FACE_FUSION_FEATURES", tooltip="For Face Fusion Apply."
                )
            ],
        )

    @classmethod
    def execute(cls, face_fusion, identity, vae, text) -> io.NodeOutput:
        return io.NodeOutput(collect_photos(face_fusion, identity, vae, text))


class FaceFusionApply(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FaceFusionApply",
            display_name="Face Fusion Apply",
            category=OTHER_METHODS,
            aliases=["reference", "person", "likeness"],
            description="Patches a MODEL so that its cross-attention sees the faces beside the "
            "text, for any sampler. Bypass it and nothing is left behind.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5 or SDXL, before or after LoRA."),
                FaceFusionFeatures.Input("features"),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much the faces count against the text: log(strength) is added to "
                    "their logits. 1 is the formula (for identities `as given`), 0 the plain "
                    "MODEL.",
                ),
                io.Combo.Input(
                    "reference_noise",
                    options=REFERENCE_NOISES,
                    default=REFERENCE_NOISES[0],
                    tooltip="The noise on the photos: as much as the picture has at each step, or "
                    "none, when they are looked at once per run. As trained: what the file says.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in sampling the faces begin to be seen.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in sampling the faces cease to be seen.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="Goes to any sampler; the prompt stays an ordinary one.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, model, features, strength, reference_noise, start_percent, end_percent
    ) -> io.NodeOutput:
        return io.NodeOutput(
            apply_fusion(model, features, strength, reference_noise, start_percent, end_percent)
        )


NODES = [FaceFusionLoader, FaceFusionEncode, FaceFusionApply]
