"""Where the parts of a face are: identity and scene joined. Only here does age move them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .people import EYE_COLOURS, HAIR_COLOURS, SKINS, People
from .scenes import Scenes
from .shapes import Frame, fade, is_value, pick, plane, superellipse, turn

GREY = (0.80, 0.80, 0.82)


@dataclass(frozen=True)
class Anatomy:
    """Head units, each (B, 1, 1, 1) unless said; colours (B, 3, 1, 1)."""

    child: Tensor  # 0 or 1
    elder: Tensor
    smiling: Tensor
    surprised: Tensor
    sad: Tensor
    width: Tensor  # half of the face's
    jaw: Tensor
    taper: Tensor
    eye_u: Tensor
    eye_v: Tensor
    eye_rx: Tensor
    eye_ry: Tensor
    nose_v: Tensor  # its tip
    mouth_v: Tensor
    skin: Tensor
    hair: Tensor
    eyes: Tensor
    grey: Tensor
    scale: Tensor  # head units to the picture's -1..1
    centre_x: Tensor
    centre_y: Tensor
    sine: Tensor  # of the tilt
    cosine: Tensor


def anatomy(people: People, scenes: Scenes) -> Anatomy:
    child, elder = is_value(scenes, "age", "child"), is_value(scenes, "age", "elder")
    surprised, smiling = (is_value(scenes, "expression", e) for e in ("surprised", "smiling"))
    openness = plane(people.eye_openness) * (1 + 0.30 * surprised - 0.22 * smiling)
    eye_rx = 0.192 * plane(people.eye_size) * (1 + 0.2 * child)
    tilt = plane(scenes.tilt) * (math.pi / 180)
    width = plane(people.face_width)
    scale = plane(scenes.size)
    # The chin stays above the garment's collar, and the crown in the picture.
    top, bottom = -0.14, 0.75 - scale
    return Anatomy(
        child=child,
        elder=elder,
        smiling=smiling,
        surprised=surprised,
        sad=is_value(scenes, "expression", "sad"),
        width=width + child * (0.08 - 0.2 * (width - 0.7)),
        jaw=torch.lerp(plane(people.jaw), torch.full_like(child, 2.35), 0.45 * child),
        taper=plane(people.taper) * (1 - 0.4 * child),
        eye_u=plane(people.eye_spacing) + 0.02 * child,
        eye_v=0.02 + 0.14 * child,
        eye_rx=eye_rx,
        eye_ry=eye_rx * (openness * (1 + 0.06 * child)).clamp(max=0.98),
        nose_v=0.02 + 0.14 * child + plane(people.nose_length) * (1 - 0.3 * child),
        mouth_v=0.57 + 0.03 * child,
        skin=pick(SKINS, people.skin),
        hair=pick(HAIR_COLOURS, people.hair_colour),
        eyes=pick(EYE_COLOURS, people.eye_colour),
        grey=torch.tensor(GREY, device=child.device)[None, :, None, None],
        scale=scale,
        centre_x=plane(scenes.centre_x),
        centre_y=top + (bottom - top) * plane(scenes.centre_y),
        sine=torch.sin(tilt),
        cosine=torch.cos(tilt),
    )


def frame_for(face: Anatomy, size: int, sway: Tensor | float = 0.0) -> Frame:
    """The pixels of a size x size picture. sway: how far paint runs, in the picture's -1..1."""
    steps = (torch.arange(size, device=face.scale.device) * 2 + 1) / size - 1
    x, y = steps.float()[None, None, None, :], steps.float()[None, None, :, None]
    x, y = x + sway * torch.sin(9 * y + 4 * x), y + sway * torch.sin(8 * x + 2)
    a, b = (x - face.centre_x) / face.scale, (y - face.centre_y) / face.scale
    u, v = turn(a, b, face.sine, face.cosine)
    return Frame(x, y, u, v, a, b, pixel=2 / size / face.scale)


def head_outline(face: Anatomy, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the head: round above, the person's jaw below."""
    lower = fade(v, -0.2, 0.25)
    width = face.width * (1 - face.taper * v.clamp(min=0))
    return superellipse(u, v, width, 1.0, 2.15 + (face.jaw - 2.15) * lower)


def to_picture(face: Anatomy, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Head units to fractions of the picture; the inverse of `frame_for` without sway."""
    a, b = turn(u, v, -face.sine, face.cosine)
    return (
        (face.centre_x + face.scale * a + 1) / 2,
        (face.centre_y + face.scale * b + 1) / 2,
    )
