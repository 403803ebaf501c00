"""Portraits of people in scenes, and the crops of their faces."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import Anatomy, anatomy, frame_for, head_outline, to_picture
from .backdrop import draw_backdrop
from .clothes import draw_clothes
from .face import (
    draw_brows,
    draw_ears,
    draw_eyes,
    draw_facial_hair,
    draw_glasses,
    draw_mouth,
    draw_nose,
    draw_skin,
    draw_wrinkles,
)
from .hair import Hair
from .marks import draw_mark
from .people import People
from .scenes import Scenes
from .shapes import Frame, cover
from .style import apply_style, shine, style_numbers

SIZE = 128
CROP = 64
# Half the side of a face box, and its middle's height, in head units: chin to hairline.
BOX_HALF, BOX_MIDDLE = 1.0, 0.03


def draw(people: People, scenes: Scenes, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, size, size) in 0..1, and face boxes (B, 4): x1, y1, x2, y2 in fractions."""
    face = anatomy(people, scenes)
    _, numbers = style_numbers(scenes)
    f = frame_for(face, size, numbers["sway"])
    picture = out_of_focus(draw_backdrop(f, scenes, 2 / size))
    picture, solid = _draw_person(picture, f, face, people, scenes)
    picture = shine(picture, f, face, scenes, solid)
    picture = draw_mark(picture, f, face, people)
    return apply_style(picture, f, scenes, solid).clamp(0, 1), _box(face)


def out_of_focus(picture: Tensor) -> Tensor:
    """A portrait's background: details of a pixel or two would fill the latents of a small VAE."""
    step = max(1, picture.shape[-1] // SIZE)
    for _ in range(2):
        picture = F.avg_pool2d(picture, 4 * step + 1, 1, 2 * step, count_include_pad=False)
    return picture


def _draw_person(
    picture: Tensor, f: Frame, face: Anatomy, people: People, scenes: Scenes
) -> tuple[Tensor, Tensor]:
    """From the back to the front; returns the picture and where the person is."""
    head = head_outline(face, f.u, f.v)
    hair = Hair(f, face, people, head)
    picture, behind = hair.draw_behind(picture)
    picture, body = draw_clothes(picture, f, face, scenes)
    picture, locks = hair.draw_locks(picture)
    picture = draw_ears(picture, f, face, people, hair.style["ears"])
    picture = draw_skin(picture, f, face, head)
    picture = draw_wrinkles(picture, f, face)
    picture = draw_eyes(picture, f, face, people)
    picture = draw_nose(picture, f, face, people)
    picture = draw_facial_hair(picture, f, face, people, head)
    picture = draw_mouth(picture, f, face, people)
    picture, front = hair.draw_front(picture)
    picture = hair.draw_ties(picture)
    picture = draw_brows(picture, f, face, people)
    picture = draw_glasses(picture, f, face, people)
    solid = cover(f, head)
    for part in (behind, body, locks, front):
        solid = torch.maximum(solid, part)
    return picture, solid


def face_boxes(people: People, scenes: Scenes) -> Tensor:
    """Float (B, 4): x1, y1, x2, y2 of the faces in fractions of the picture; squares."""
    return _box(anatomy(people, scenes))


def _box(face: Anatomy) -> Tensor:
    zero = torch.zeros_like(face.scale)
    x, y = (t.flatten() for t in to_picture(face, zero, zero + BOX_MIDDLE))
    half = face.scale.flatten() * (BOX_HALF / 2)
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)


def face_crop(pictures: Tensor, boxes: Tensor, size: int = CROP) -> Tensor:
    """The boxes (B, 4) cut out of the pictures (B, 3, H, W): (B, 3, size, size).

    A box that is no square is padded to one; what lies outside of the picture is black, as in the
    pack's own crops. Bilinear at twice the size, then halved, so that nothing is skipped.
    """
    x1, y1, x2, y2 = (boxes[:, n, None, None] for n in range(4))
    half = torch.maximum(x2 - x1, y2 - y1) / 2
    fine = 2 * size
    steps = (torch.arange(fine, device=boxes.device) * 2 + 1).to(boxes.dtype) / fine - 1
    x = (x1 + x2) / 2 + half * steps[None, None, :]
    y = (y1 + y2) / 2 + half * steps[None, :, None]
    x, y = torch.broadcast_tensors(x, y)
    grid = torch.stack([x, y], dim=-1) * 2 - 1
    crop = F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)
    return F.avg_pool2d(crop, 2)
