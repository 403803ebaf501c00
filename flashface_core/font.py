"""The font of what is drawn for the user."""

from PIL import ImageFont


def font_of(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own, at this many pixels; small letters where it has no other size.

    Before Pillow 10.1 it takes no size (TypeError), and without FreeType none (ImportError).
    """
    try:
        return ImageFont.load_default(size=size)
    except (TypeError, ImportError):
        return ImageFont.load_default()
