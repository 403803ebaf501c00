"""FlashFaceTinyModels and FlashFaceTinyPhotos: small trained models, and photos for them."""

import folder_paths
from comfy_api.latest import io, ui

from ..flashface_core.comfy_adapter.flashface.tiny import (
    PEOPLE,
    load_tiny_models,
    load_tiny_photos,
)
from .base import FlashFaceNode, schema
from .sockets import CATEGORY, ReferenceNet


class FlashFaceTinyModels(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceTinyModels",
            display_name="FlashFace Tiny Models",
            category=CATEGORY,
            aliases=["demo", "example", "start"],
            description="Small trained models that come with the pack and draw portraits of "
            "128 x 128 pixels on any machine, with nothing to download: for trying things out, for "
            "tests, and for seeing what the settings do.",
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="Draws portraits of nobody in particular."
                ),
                ReferenceNet.Output(display_name="REFERENCE_NET", tooltip="For FlashFace Encode."),
                io.Clip.Output(
                    display_name="CLIP",
                    tooltip="For CLIP Text Encode; knows the toy world's words alone.",
                ),
                io.Vae.Output(
                    display_name="VAE", tooltip="For FlashFace Encode, VAE Decode and VAE Encode."
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_tiny_models(folder_paths.get_folder_paths("embeddings")))


class FlashFaceTinyPhotos(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceTinyPhotos",
            display_name="FlashFace Tiny Photos",
            category=CATEGORY,
            aliases=["demo", "example", "person"],
            description="Four photos of a drawn person, for FlashFace Tiny Models: face crops of "
            "64 x 64 pixels. The models have never seen any of these people.",
            inputs=[
                io.Int.Input(
                    "person", default=0, min=0, max=PEOPLE - 1, tooltip="Which of the eight people."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="photos",
                    tooltip="Four crops of one person; for FlashFace Identity.",
                )
            ],
        )

    @classmethod
    def execute(cls, person) -> io.NodeOutput:
        photos = load_tiny_photos(person)
        return io.NodeOutput(photos, ui=ui.PreviewImage(photos, cls=cls))


NODES = [FlashFaceTinyModels, FlashFaceTinyPhotos]
