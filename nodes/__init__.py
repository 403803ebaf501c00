"""The node classes, by family, in the order in which data goes through them."""

from comfy_api.latest import ComfyExtension, io

from ..flashface_core.people.identity_file import EXTENSION
from . import (
    apply,
    detector,
    face2diffusion,
    face_fusion,
    face_pass,
    facestudio,
    features,
    folders,
    from_model,
    guidance,
    identity,
    loader,
    people,
    plot,
    saved,
    similarity,
    tiny,
)


class FlashFaceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        # Here, for ComfyUI 0.3.75 does not call on_load.
        folders.register(loader.FOLDER, folders.CHECKPOINTS)
        folders.register(saved.FOLDER, [EXTENSION])
        folders.register(face2diffusion.FOLDER, folders.CHECKPOINTS)
        folders.register(facestudio.FOLDER, folders.SAFETENSORS)
        folders.register(face_fusion.FOLDER, folders.SAFETENSORS)
        folders.register(detector.ZOO_FOLDER, [".onnx"])
        return [
            *loader.NODES,
            *tiny.NODES,
            *from_model.NODES,
            *detector.NODES,
            *identity.NODES,
            *people.NODES,
            *saved.NODES,
            *features.NODES,
            *guidance.NODES,
            *plot.NODES,
            *apply.NODES,
            *similarity.NODES,
            *face_pass.NODES,
            *face2diffusion.NODES,
            *facestudio.NODES,
            *face_fusion.NODES,
        ]
