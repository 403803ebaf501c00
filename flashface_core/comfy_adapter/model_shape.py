"""What a MODEL's UNet is like: whether it can look at photos itself, and who can share features."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import FlashFaceError
from ..sites import Site, site_depths
from .unet import context_widths, transformer_blocks

INPUT_CHANNELS = 4


@dataclass(frozen=True)
class Family:
    """reference_size: pixels; half of a picture's side, which was a size of its training too."""

    name: str
    reference_size: int


FAMILIES = {768: Family("SD1.5", 256), 2048: Family("SDXL", 512)}  # by context width


@dataclass(frozen=True)
class Shape:
    """What two UNets share when one can look at features that were prepared for the other.

    widths: channels by attention site; depths: how often the picture has been halved there.
    latents: name of the latent format.
    """

    context_width: int
    widths: Mapping[Site, int]
    depths: Mapping[Site, int]
    latents: str
    has_pooled: bool


def shape_of(
    model, node: str = "FlashFace ReferenceNet from Model", with_encoder: bool = False
) -> Shape:
    """node: who asks, for messages. with_encoder: attention sites of the encoder too.

    Raises FlashFaceError for a MODEL that is neither SD1.5 nor SDXL.
    """
    unet = model.model.diffusion_model
    kind = type(model.model).__name__
    blocks = transformer_blocks(unet, with_encoder)
    context = sorted(context_widths(blocks))
    if len(context) != 1 or context[0] not in FAMILIES:
        found = f"context width {', '.join(map(str, context))}" if context else "no UNet"
        raise FlashFaceError(
            f"The MODEL ({kind}, {found}) is neither SD1.5 nor SDXL, and {node} works with these "
            "two; connect one of them."
        )
    if unet.in_channels != INPUT_CHANNELS:
        raise FlashFaceError(
            f"The MODEL ({kind}) has {unet.in_channels} input channels, as inpainting and editing "
            f"models do, and {node} needs {INPUT_CHANNELS}; connect an ordinary model of the "
            "family."
        )
    return Shape(
        context[0],
        {site: block.norm1.normalized_shape[0] for site, block in blocks.items()},
        site_depths(blocks, unet.state_dict()),
        type(model.get_model_object("latent_format")).__name__,
        unet.num_classes is not None,
    )
