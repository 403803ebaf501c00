"""The face itself: skin, eyes, brows, nose, mouth, wrinkles, beard, glasses."""

import torch
from torch import Tensor

from .anatomy import Anatomy
from .people import FRAME_COLOURS, People
from .shapes import (
    Frame,
    box,
    cover,
    disc,
    ellipse,
    fade,
    is_value,
    lens,
    paint,
    pick,
    plane,
    stroke,
    superellipse,
    turn,
)


def colour(like: Tensor, r: float, g: float, b: float) -> Tensor:
    return torch.tensor((r, g, b), device=like.device)[None, :, None, None]


def draw_ears(canvas: Tensor, f: Frame, face: Anatomy, people: People, bare: Tensor) -> Tensor:
    """bare: 0 where the hair style hides the ears."""
    size = plane(people.ears)
    u, v = f.u.abs() - face.width * 0.99, f.v - face.eye_v - 0.10
    canvas = paint(canvas, cover(f, ellipse(u, v, 0.125 * size, 0.19 * size)) * bare, face.skin)
    inner = cover(f, ellipse(u - 0.02, v, 0.06 * size, 0.11 * size)) * bare
    return paint(canvas, inner, face.skin * 0.78)


def draw_skin(canvas: Tensor, f: Frame, face: Anatomy, head: Tensor) -> Tensor:
    """The head, a little darker towards its rim, with a blush that is strongest in children."""
    canvas = paint(canvas, cover(f, head), face.skin * (1 - 0.12 * fade(head, -0.28, 0.0)))
    cheek = disc(f.u.abs() - 0.45, f.v - 0.40, 0.0)
    blush = fade(cheek, 0.24, 0.05) * (0.16 + 0.26 * face.child + 0.10 * face.smiling)
    return paint(canvas, blush * cover(f, head), colour(canvas, 0.93, 0.36, 0.34))


def draw_wrinkles(canvas: Tensor, f: Frame, face: Anatomy) -> Tensor:
    """An elder's lines: forehead, crow's feet, under the eyes, beside the mouth."""
    side = f.u.abs()
    forehead = torch.minimum(
        stroke(f.u, f.v + 0.63, 0.34, 0.03, 0.050),
        stroke(f.u, f.v + 0.43, 0.40, 0.04, 0.050),
    )
    u, v = side - face.eye_u - face.eye_rx - 0.09, f.v - face.eye_v
    feet = torch.minimum(
        stroke(u, v + 0.08 + 0.5 * u, 0.09, 0.0, 0.040),
        stroke(u, v - 0.08 - 0.5 * u, 0.09, 0.0, 0.040),
    )
    bag = stroke(side - face.eye_u, v - face.eye_ry - 0.09, face.eye_rx * 0.9, -0.07, 0.042)
    s, t = turn(side - 0.325, f.v - 0.47, 0.88, 0.47)
    fold = stroke(s, t, 0.19, -0.03, 0.052)
    lines = torch.minimum(torch.minimum(forehead, feet), torch.minimum(bag, fold))
    return paint(canvas, cover(f, lines) * face.elder * 0.95, face.skin * 0.58)


def draw_eyes(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    side = f.u.abs()
    slant = plane(people.eye_slant) * 0.8 + 0.05 * face.smiling - 0.28 * face.sad
    # Positive slant lifts the outer corner.
    p, q = turn(side - face.eye_u, f.v - face.eye_v, -slant, 1.0)
    almond = lens(p, q, face.eye_rx, face.eye_ry)
    white = cover(f, almond)
    ink = torch.lerp(face.skin * 0.25, colour(canvas, 0.10, 0.06, 0.08), 0.6)
    canvas = paint(canvas, cover(f, almond - 0.028) * (0.35 + 0.65 * fade(q, 0.05, -0.02)), ink)
    canvas = paint(canvas, white, colour(canvas, 0.99, 0.99, 0.98))
    radius = 0.130 * plane(people.eye_size) * (1 + 0.10 * face.child - 0.10 * face.surprised)
    ball = disc(p, q, 0.0)
    canvas = paint(canvas, cover(f, ball - radius) * white, face.eyes * 0.55)
    canvas = paint(canvas, cover(f, ball - radius + 0.028) * white, face.eyes)
    canvas = paint(canvas, cover(f, ball - 0.052) * white, colour(canvas, 0.04, 0.03, 0.05))
    towards = torch.where(f.u < 0, -p, p)
    glint = cover(f, disc(towards + 0.045, q + 0.05, 0.036)) * white
    return paint(canvas, glint, colour(canvas, 1.0, 1.0, 1.0))


def draw_brows(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    lift = 0.10 * face.surprised + 0.02 * face.sad + 0.01 * face.child
    # Positive angle raises the outer end; sadness raises the inner one.
    angle = plane(people.brow_angle) * (1 - 0.6 * face.sad) - 0.42 * face.sad
    half = 0.205 * plane(people.eye_size) ** 0.5
    p, q = turn(f.u.abs() - face.eye_u - 0.01, f.v - face.eye_v + 0.255 + lift, -angle, 1.0)
    bend = 0.10 * plane(people.brow_arch) + 0.05 * face.surprised
    width = plane(people.brow_weight) * (1 - 0.12 * face.child)
    tint = torch.lerp(face.hair * 0.82, face.grey, 0.30 * face.elder)
    return paint(canvas, cover(f, stroke(p, q + 0.5 * bend, half, bend, width)), tint)


def draw_nose(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    broad, straight = is_value(people, "nose", "broad"), is_value(people, "nose", "straight")
    button = is_value(people, "nose", "button")
    width = plane(people.nose_width) * (1 + 0.35 * broad - 0.25 * straight - 0.1 * face.child)
    tip = face.nose_v
    shade, shine = face.skin * 0.70, torch.lerp(face.skin, torch.ones_like(face.skin), 0.35)
    under = stroke(f.u, f.v - tip, width, -0.10, 0.040)
    # The bridge casts a line on one side only, as in a drawing.
    long = (tip - face.eye_v) * 0.5
    bridge = stroke(f.v - tip + long, f.u + width * 0.55, long, 0.0, 0.030)
    canvas = paint(canvas, cover(f, bridge) * straight, shade)
    ball = cover(f, ellipse(f.u, f.v - tip + 0.05, width * 0.9, width * 0.75))
    canvas = paint(canvas, ball * button * 0.55, torch.lerp(face.skin, shine * 0 + shade, 0.35))
    canvas = paint(canvas, cover(f, under), shade)
    nostril = ellipse(f.u.abs() - width * 0.72, f.v - tip + 0.035, 0.045, 0.032)
    canvas = paint(canvas, cover(f, nostril) * broad, face.skin * 0.45)
    return paint(canvas, cover(f, disc(f.u - 0.02, f.v - tip + 0.09, 0.035)) * 0.8, shine)


def draw_mouth(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    """One shape for all moods: a middle line that bends, lips around it, an opening inside."""
    calm = 1 - face.smiling - face.surprised - face.sad
    width = plane(people.mouth_width) * (1 + 0.32 * face.smiling - 0.44 * face.surprised)
    bend = -0.02 * calm - 0.16 * face.smiling + 0.15 * face.sad
    opening = 0.09 * face.smiling + 0.135 * face.surprised
    t = f.u / width
    body = (1 - t * t).clamp(min=0)
    round_body = torch.lerp(body, torch.sqrt(body), face.surprised)
    # A smile opens below its upper lip, so the middle sinks with the opening.
    middle = bend * (t * t - 0.5) - 0.02 * face.smiling
    offset = (f.v - face.mouth_v - middle).abs()
    lips = plane(people.lips) * (1 - 0.25 * face.child)
    outside = f.u.abs() - width
    lip = torch.maximum(offset - opening * round_body - lips * torch.sqrt(body), outside)
    red = torch.lerp(face.skin * 0.62, colour(canvas, 0.80, 0.16, 0.24), 0.25)
    red = torch.lerp(red, colour(canvas, 0.85, 0.10, 0.25), 0.75 * plane(people.lip_colour))
    canvas = paint(canvas, cover(f, lip), red)
    inside = torch.maximum(offset - opening * round_body, outside)
    is_open = face.smiling + face.surprised
    dark = colour(canvas, 0.30, 0.04, 0.07)
    canvas = paint(canvas, cover(f, inside) * is_open, dark)
    teeth = torch.maximum(inside, f.v - face.mouth_v - middle - 0.005)
    canvas = paint(canvas, cover(f, teeth) * face.smiling, colour(canvas, 0.99, 0.98, 0.95))
    line = torch.maximum(offset - 0.022, outside)
    return paint(canvas, cover(f, line) * (1 - is_open), red * 0.40)


def draw_facial_hair(
    canvas: Tensor, f: Frame, face: Anatomy, people: People, head: Tensor
) -> Tensor:
    """Under the mouth, above everything else of the skin; children have none."""
    grown = 1 - face.child
    beard, goatee = (is_value(people, "facial_hair", name) for name in ("beard", "goatee"))
    moustache = is_value(people, "facial_hair", "moustache") + beard
    tint = torch.lerp(face.hair, face.grey, 0.30 * face.elder)
    edge = 0.47 - 0.47 * fade(f.u.abs() / face.width, 0.50, 1.0)
    full = torch.maximum(head - 0.05, edge - f.v)
    canvas = paint(canvas, cover(f, full) * beard * grown, tint * 0.88)
    tuft = superellipse(f.u, f.v - 0.86, 0.21, 0.21, 2.6)
    canvas = paint(canvas, cover(f, tuft) * goatee * grown, tint * 0.92)
    whiskers = stroke(f.u, f.v - 0.455, 0.36, 0.13, 0.085)
    return paint(canvas, cover(f, whiskers) * moustache * grown, tint)


def draw_glasses(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    square, cat = is_value(people, "glasses", "square"), is_value(people, "glasses", "cat eye")
    worn = 1 - is_value(people, "glasses", "none")
    side, v = f.u.abs(), f.v - face.eye_v
    rx = torch.minimum(torch.full_like(face.eye_u, 0.285), face.eye_u - 0.035)
    p = side - face.eye_u
    q = v + cat * (0.03 + 0.30 * p)  # cat eyes rise outwards
    rim = superellipse(p, q, rx, rx * (0.98 - 0.18 * square - 0.24 * cat), 2.0 + 4 * square + cat)
    tint = pick(FRAME_COLOURS, people.frame_colour)
    canvas = paint(canvas, cover(f, rim) * worn * 0.14, colour(canvas, 0.85, 0.95, 1.0))
    bridge = box(side, v + 0.03, face.eye_u - rx + 0.01, 0.026, 0.01)
    reach = (face.width - face.eye_u - rx) * 0.5 + 0.02
    arm = box(side - face.eye_u - rx - reach, v + 0.05, reach, 0.026, 0.01)
    wire = torch.minimum(rim.abs() - 0.042, torch.minimum(bridge, arm))
    return paint(canvas, cover(f, wire) * worn, tint)
