"""FlashFaceTinyModels: the small trained models that come with the pack."""

import folder_paths
from comfy_api.latest import io

from ..flashface_core.comfy_adapter.flashface.tiny import load_tiny_models
from .base import FlashFaceNode
from .sockets import CATEGORY, ReferenceNet


class FlashFaceTinyModels(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlashFaceTinyModels",
            display_name="FlashFace Tiny Models",
            category=CATEGORY,
            description="Small trained models that come with the pack and draw portraits of "
            "128 x 128 pixels on any machine, with nothing to download: for trying things out, for "
            "tests, and for seeing what the settings do.",
            inputs=[],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                ReferenceNet.Output(display_name="REFERENCE_NET"),
                io.Clip.Output(display_name="CLIP"),
                io.Vae.Output(display_name="VAE"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_tiny_models(folder_paths.get_folder_paths("embeddings")))


NODES = [FlashFaceTinyModels]
