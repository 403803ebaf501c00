"""The node classes, by family: loader, tiny models, identity, features, guidance, apply."""

from comfy_api.latest import ComfyExtension, io

from . import apply, features, guidance, identity, loader, tiny


class FlashFaceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        loader.register_model_folder()  # ComfyUI 0.3.75 does not call on_load
        return [
            *loader.NODES,
            *tiny.NODES,
            *identity.NODES,
            *features.NODES,
            *guidance.NODES,
            *apply.NODES,
        ]
