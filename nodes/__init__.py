"""The node classes, by family, in the order in which data goes through them."""

from comfy_api.latest import ComfyExtension, io

from . import (
    apply,
    detector,
    face2diffusion,
    features,
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
        loader.register_model_folder()  # ComfyUI 0.3.75 does not call on_load
        saved.register_identity_folder()
        face2diffusion.register_model_folder()
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
            *face2diffusion.NODES,
        ]
