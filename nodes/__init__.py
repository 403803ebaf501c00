"""The node classes, by family: loader, identity, features, guidance, apply."""

from comfy_api.latest import ComfyExtension, io

from . import apply, features, guidance, identity, loader


class FlashFaceExtension(ComfyExtension):
    async def on_load(self) -> None:
        loader.register_model_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *loader.NODES,
            *identity.NODES,
            *features.NODES,
            *guidance.NODES,
            *apply.NODES,
        ]
