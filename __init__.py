"""FlashFace for ComfyUI: a person's face, encoded as feature maps, in any picture."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    # Imported here: pytest and type checkers import this file without a package around it.
    from .nodes import FlashFaceExtension

    return FlashFaceExtension()
