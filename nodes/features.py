"""FlashFaceEncode: identity to feature maps."""

from comfy_api.latest import io

from ..flashface_core.comfy_adapter.photo_encoder import ANCHORS
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, FaceFeatures, FaceIdentity, ReferenceNet, advanced


class FlashFaceEncode(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceEncode",
            display_name="FlashFace Encode",
            category=CATEGORY,
            aliases=["face features", "reference", "IPAdapter"],
            description="Encodes the photos of an identity for the ReferenceNet. The feature maps "
            "depend on the step, the photos and the negative prompt; they are kept and used again "
            "by every seed, prompt, place and weight.",
            inputs=[
                FaceIdentity.Input("identity"),
                ReferenceNet.Input("reference_net"),
                io.Vae.Input("vae", tooltip="An SD1.5 VAE."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The negative prompt, which is the ReferenceNet's text. Usually the "
                    "sampler's own.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Compute the feature maps for these steps now instead of while "
                    "sampling.",
                ),
                advanced(
                    io.Combo.Input(
                        "reference_steps",
                        options=list(ANCHORS),
                        default=next(iter(ANCHORS)),
                        optional=True,
                        tooltip="At how many timesteps the ReferenceNet runs: at every step's own, "
                        "or at a few, between which the feature maps are interpolated. The first "
                        "picture of a person is faster then, and the cache smaller.",
                    )
                ),
            ],
            outputs=[
                FaceFeatures.Output(
                    display_name="FACE_FEATURES",
                    tooltip="Feature maps of the photos, computed when they are asked for and "
                    "kept; for FlashFace Apply.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, identity, reference_net, vae, negative, sigmas=None, reference_steps="exact"
    ) -> io.NodeOutput:
        anchors = ANCHORS[reference_steps]
        return io.NodeOutput(reference_net.encode(identity, vae, negative, sigmas, anchors))


NODES = [FlashFaceEncode]
