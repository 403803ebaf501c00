"""Pictures of any kind as they are looked at."""

from PIL import Image, ImageOps


def upright(image: Image.Image) -> Image.Image:
    """As RGB. Pillow makes white of all that is above 255 in a picture of 16 bits."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):
        turned = turned.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    return turned.convert("RGB")
