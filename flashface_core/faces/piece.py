"""A square piece of a picture around its face, cut out to be drawn anew, and put back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..errors import FlashFaceError
from .boxes import check_inside, read_boxes
from .crop import Box, check_numbers, photo_to_uint8
from .face import Detector, Face
from .select import SELECT, choose_faces

PIECE_SELECT = SELECT[:4]  # one face of every picture
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue


@dataclass(frozen=True)
class Piece:
    """Pixels of a picture of this height and width; the square may reach over its edges."""

    left: int
    top: int
    side: int
    height: int
    width: int


class CutOut(NamedTuple):
    """crops: IMAGE (N, size, size, C). face: MASK (N, size, size), 1 in the box of the face."""

    crops: torch.Tensor
    face: torch.Tensor
    pieces: tuple[Piece, ...]


def cut_out(
    image: torch.Tensor,
    *,
    select: str,
    index: int,
    margin: float,
    size: int,
    detector: Detector | None = None,
    boxes: Any = None,
) -> CutOut:
    """One piece of every picture of IMAGE (N, H, W, C), at size x size pixels.

    margin: how much is added to the box of the face on every side, as a fraction of its longer
    side. Given boxes win over a detector. Raises FlashFaceError for a picture without that face,
    for boxes that do not match the pictures, where there is neither boxes nor detector, and for a
    size that is no multiple of 8, and for an empty batch.
    """
    if detector is None and boxes is None:
        raise FlashFaceError(
            "FlashFace Crop Face has neither a detector nor boxes; connect FlashFace Detector "
            "Loader, or the box of the face in pixels."
        )
    if size % 8:
        raise FlashFaceError(
            f"size is {size}; it must be a multiple of 8, such as {size // 8 * 8}."
        )
    if not len(image):
        raise FlashFaceError("The batch of images is empty; connect at least one picture.")
    check_numbers(image, "The picture")
    height, width = image.shape[1:3]
    given = None if boxes is None else read_boxes(boxes, len(image))
    crops, masks, pieces = [], [], []
    for number, picture in enumerate(image):
        if given is None:
            assert detector is not None
            faces = detector.find(photo_to_uint8(picture))
        else:
            faces = given[number]
        chosen = _chosen(faces, select, index, number)
        if given is not None:
            check_inside([chosen], width, height, number)
        box = chosen.box
        piece = piece_around(box, margin, height, width)
        crops.append(_resized(_cut(picture, piece), size).clamp(0, 1))
        masks.append(_box_in(piece, box, size))
        pieces.append(piece)
    return CutOut(torch.stack(crops), torch.stack(masks), tuple(pieces))


def _chosen(faces: Sequence[Face], select: str, index: int, number: int) -> Face:
    chosen = choose_faces(faces, select, index)
    if not chosen:
        found = f"{len(faces)} faces, and index is {index}" if faces else "no face"
        raise FlashFaceError(
            f"Picture {number} has {found}; use a picture whose face is upright and not too small, "
            "choose another face, or give its box with `boxes`."
        )
    return chosen[0]


def piece_around(box: Box, margin: float, height: int, width: int) -> Piece:
    """The square around a box (x1, y1, x2, y2), moved into a picture of this size if it fits."""
    x1, x2 = (min(max(value, 0), width) for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0), height) for value in (box[1], box[3]))
    longer = max(x2 - x1, y2 - y1, 1)
    side = min(math.ceil(longer * (1 + 2 * margin)), max(height, width))

    def start(low: float, high: float, room: int) -> int:
        if side > room:
            return (room - side) // 2
        return min(max(round((low + high - side) / 2), 0), room - side)

    return Piece(start(x1, x2, width), start(y1, y2, height), side, height, width)


def _cut(picture: torch.Tensor, piece: Piece) -> torch.Tensor:
    """(H, W, C) to (side, side, C); what lies over the edges repeats them."""
    right, bottom = piece.left + piece.side, piece.top + piece.side
    inside = picture[max(piece.top, 0) : bottom, max(piece.left, 0) : right]
    over = (
        max(-piece.left, 0),
        max(right - piece.width, 0),
        max(-piece.top, 0),
        max(bottom - piece.height, 0),
    )
    return pad(inside.movedim(-1, 0)[None], over, mode="replicate")[0].movedim(0, -1)


def _box_in(piece: Piece, box: Box, size: int) -> torch.Tensor:
    scale = size / piece.side
    x1, x2 = ((value - piece.left) * scale for value in (box[0], box[2]))
    y1, y2 = ((value - piece.top) * scale for value in (box[1], box[3]))
    centres = torch.arange(size) + 0.5
    rows, columns = (centres >= y1) & (centres < y2), (centres >= x1) & (centres < x2)
    return (rows[:, None] & columns).float()


def put_back(
    image: torch.Tensor,
    crops: torch.Tensor,
    pieces: Sequence[Piece],
    feather: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The pictures of IMAGE (N, H, W, C) with their pieces in place, (N, H, W, C).

    crops: (N, h, h, C'), or any number of them for one picture, which is then repeated. feather:
    width of the soft edge as a fraction of the piece. mask: MASK (1 or N, h', w') or (h', w') of
    the piece, where it shows; None: everywhere. Pixels of which nothing shows stay as they are, to
    the bit. Raises FlashFaceError for pictures or crops that are not those the pieces were cut for,
    and for crops with NaN.
    """
    if len(pieces) != len(image) or not len(crops) or len(crops) != len(image) != 1:
        raise FlashFaceError(
            f"There are {len(image)} pictures, {len(pieces)} places of faces and {len(crops)} "
            "crops; give one crop per picture, or several of a single picture."
        )
    for piece in pieces:
        if image.shape[1:3] != (piece.height, piece.width):
            raise FlashFaceError(
                f"The picture is {image.shape[2]} x {image.shape[1]} pixels, the face was cut out "
                f"of {piece.width} x {piece.height}; connect the same picture to both nodes."
            )
    if crops.shape[1] != crops.shape[2]:
        raise FlashFaceError(
            f"The crop is {crops.shape[2]} x {crops.shape[1]} pixels; it must be square, as it was "
            "cut out."
        )
    check_numbers(crops, "The crop")
    if mask is not None:
        mask = mask.reshape(-1, *mask.shape[-2:])
    if mask is not None and len(mask) not in (1, len(crops)):
        raise FlashFaceError(f"There are {len(mask)} masks for {len(crops)} crops; give 1 or all.")
    done = []
    for number, crop in enumerate(crops):
        piece = pieces[number % len(pieces)]
        shown = soft_edge(piece, feather)
        if mask is not None:
            region = _resized(mask[number % len(mask)][..., None].float().cpu(), piece.side)[..., 0]
            shown = shown * _softened(region.clamp(0, 1), feather)
        done.append(_paste(image[number % len(image)], crop, piece, shown))
    return torch.stack(done)


def soft_edge(piece: Piece, feather: float) -> torch.Tensor:
    """(side, side): 1 inside, falling to 0 over `feather` of the side at those of its edges that
    are not the picture's."""
    along = (torch.arange(piece.side) + 0.5) / (max(feather, 1e-6) * piece.side)

    def ramp(start: int, room: int) -> torch.Tensor:
        near = along if start > 0 else torch.full_like(along, 1)
        far = along.flip(0) if start + piece.side < room else torch.full_like(along, 1)
        share = torch.minimum(near, far).clamp(0, 1)
        return share * share * (3 - 2 * share)

    return ramp(piece.top, piece.height)[:, None] * ramp(piece.left, piece.width)


def _softened(region: torch.Tensor, feather: float) -> torch.Tensor:
    """A mask (side, side) with its edge softened outwards and inwards by half of the feather."""
    reach = round(feather * len(region) / 4)
    for _ in range(2 if reach else 0):  # two boxes are a tent
        grown = pad(region[None, None], (reach,) * 4, mode="replicate")
        region = avg_pool2d(grown, 2 * reach + 1, stride=1)[0, 0]
    return region


def _paste(
    picture: torch.Tensor, crop: torch.Tensor, piece: Piece, shown: torch.Tensor
) -> torch.Tensor:
    top, left = max(-piece.top, 0), max(-piece.left, 0)  # of the piece, over the picture's edge
    bottom, right = (
        min(piece.side, piece.height - piece.top),
        min(piece.side, piece.width - piece.left),
    )
    crop = _in_channels(crop.to(picture), picture.shape[-1])
    channels = crop.shape[-1]
    new = _resized(crop, piece.side).clamp(0, 1)
    new, shown = new[top:bottom, left:right], shown[top:bottom, left:right, None].to(picture)
    where = (
        slice(piece.top + top, piece.top + bottom),
        slice(piece.left + left, piece.left + right),
        slice(channels),
    )
    result = picture.clone()
    result[where] = torch.where(shown > 0, torch.lerp(picture[where], new, shown), picture[where])
    return result


def _in_channels(crop: torch.Tensor, channels: int) -> torch.Tensor:
    """Those that a crop has for a picture with so many; transparency stays the picture's."""
    if channels == 1 and crop.shape[-1] >= 3:
        return (crop[..., :3] * crop.new_tensor(LUMINANCE)).sum(-1, keepdim=True)
    if crop.shape[-1] == 1:
        return crop.expand(-1, -1, min(channels, 3))
    return crop[..., :channels]


def _resized(picture: torch.Tensor, side: int) -> torch.Tensor:
    """(h, w, C) to (side, side, C), without aliasing. Any dtype: torch has no such resize for half
    precision on a CPU, and newer cores keep images in it (`--fp16-intermediates`)."""
    if picture.shape[:2] == (side, side):
        return picture
    rows = picture.movedim(-1, 0)[None].float()
    resized = interpolate(rows, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].movedim(0, -1).to(picture)
