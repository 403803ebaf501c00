"""Where a face goes: a box or a mask, as the network's position channel and as a region."""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch.nn.functional import interpolate

from ..errors import FlashFaceError

PIXELS_PER_LATENT = 8
Share = float | Fraction


@dataclass(frozen=True, eq=False)
class Place:
    """The place of one person in the picture.

    box: x, y, width, height as fractions of the picture; not used when there is a mask.
    mask: bool (M, H, W) at any resolution, one per picture of a batch (fewer repeat), or None.
    strength: multiplies the feature strength for this person.
    inside_region: only the picture tokens inside the region attend to this person.
    """

    box: tuple[float, float, float, float]
    mask: torch.Tensor | None = None
    strength: float = 1.0
    inside_region: bool = False

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.box)) or not 0 <= self.strength < math.inf:
            raise FlashFaceError(
                f"A place has the box {self.box} and strength {self.strength:g}; it must be finite "
                "numbers, and the strength 0 or more."
            )
        if self.mask is not None:
            empty = [i for i, mask in enumerate(self.mask) if not mask.any()]
            if empty or not len(self.mask):
                raise FlashFaceError(
                    f"The mask is empty ({tuple(self.mask.shape)}, nothing above 0.5 in mask "
                    f"{empty[0] if empty else 0}); paint the place of the face, or disconnect it."
                )
            return
        x, y, width, height = self.box
        if width <= 0 or height <= 0:
            raise FlashFaceError(
                f"The place of the face has no size (width {width:g}, height {height:g}); "
                "both must be above 0."
            )
        if x >= 1 or y >= 1 or x + width <= 0 or y + height <= 0:
            raise FlashFaceError(
                f"The place of the face is outside the picture: x {x:g}, y {y:g}, width {width:g}, "
                f"height {height:g} as fractions, where the picture is 0 to 1."
            )

    def boxes(self) -> list[tuple[Share, Share, Share, Share]]:
        """(x1, y1, x2, y2) as fractions, one per mask, exact, or the one of the box."""
        if self.mask is None:
            x, y, width, height = self.box
            return [(x, y, x + width, y + height)]
        boxes = []
        height, width = self.mask.shape[-2:]
        for mask in self.mask:
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            x = [Fraction(int(n), width) for n in (columns[0], columns[-1] + 1)]
            y = [Fraction(int(n), height) for n in (rows[0], rows[-1] + 1)]
            boxes.append((x[0], y[0], x[1], y[1]))
        return boxes

    def position_mask(self, height: int, width: int) -> torch.Tensor:
        """The network's fifth channel: float (M, height, width) of 0 and 1 at latent size."""
        return torch.stack([position_mask(box, height, width) for box in self.boxes()])

    def region(self, height: int, width: int) -> torch.Tensor:
        """Which latent pixels may attend to this person: float (M, height, width) of 0 and 1."""
        if self.mask is None:
            return box_mask(self.boxes()[0], height, width, square=False)[None]
        resized = interpolate(self.mask[:, None].float(), (height, width), mode="nearest-exact")
        if not resized.flatten(1).any(1).all():
            raise FlashFaceError(
                f"The masked region is smaller than one latent pixel of a {8 * width}x{8 * height} "
                "picture; paint a larger one."
            )
        return resized[:, 0]


def position_mask(box: tuple[Share, ...], height: int, width: int) -> torch.Tensor:
    """The face-position mask of a box (x1, y1, x2, y2) in fractions, float (height, width).

    A square of the longer side, anchored at the top left, on the 8x canvas, sampled [::8, ::8]
    (FLASHFACE.md section 8; official demo_gradio.py).
    """
    return box_mask(box, height, width, square=True)


def box_mask(box: tuple[Share, ...], height: int, width: int, square: bool) -> torch.Tensor:
    canvas_width, canvas_height = PIXELS_PER_LATENT * width, PIXELS_PER_LATENT * height
    x1, x2 = int(box[0] * canvas_width), int(box[2] * canvas_width)
    y1, y2 = int(box[1] * canvas_height), int(box[3] * canvas_height)
    if square:
        side = max(x2 - x1, y2 - y1)
        x2, y2 = x1 + side, y1 + side
    columns = torch.arange(0, canvas_width, PIXELS_PER_LATENT)
    rows = torch.arange(0, canvas_height, PIXELS_PER_LATENT)
    inside_x = (columns >= x1) & (columns < x2)
    inside_y = (rows >= y1) & (rows < y2)
    if not inside_x.any() or not inside_y.any():
        raise FlashFaceError(
            f"The place of the face, x {x1} to {x2} and y {y1} to {y2} px in a "
            f"{canvas_width}x{canvas_height} picture, covers none of it; make it larger."
        )
    return (inside_y[:, None] & inside_x[None]).float()


def mask_to_bool(mask: torch.Tensor) -> torch.Tensor:
    """MASK (M, H, W) or (H, W) in 0..1 to bool (M, H, W): above 0.5 is inside."""
    return mask.detach().cpu().reshape(-1, *mask.shape[-2:]) > 0.5
