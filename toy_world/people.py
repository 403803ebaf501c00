"""Identity in the toy world: what stays with a person in every scene and at every age."""

from dataclasses import dataclass

from torch import Tensor

from .factors import Factors, between, one_of

# Colours are sRGB in 0..1 and lie far apart, so that they survive an 8x autoencoder.
SKINS = {
    "porcelain": (0.99, 0.87, 0.79),
    "peach": (0.96, 0.75, 0.60),
    "golden": (0.89, 0.66, 0.42),
    "tan": (0.75, 0.52, 0.35),
    "brown": (0.54, 0.34, 0.22),
    "deep": (0.34, 0.21, 0.15),
}
HAIR_COLOURS = {
    "black": (0.13, 0.11, 0.14),
    "brown": (0.42, 0.23, 0.11),
    "blond": (0.95, 0.79, 0.36),
    "ginger": (0.86, 0.38, 0.09),
    "blue": (0.16, 0.40, 0.85),
    "green": (0.18, 0.60, 0.32),
    "pink": (0.96, 0.45, 0.68),
    "violet": (0.48, 0.22, 0.66),
}
EYE_COLOURS = {
    "brown": (0.36, 0.18, 0.06),
    "blue": (0.10, 0.48, 0.95),
    "green": (0.13, 0.66, 0.24),
    "amber": (0.95, 0.58, 0.05),
    "violet": (0.60, 0.20, 0.80),
}
FRAME_COLOURS = {
    "black": (0.08, 0.08, 0.10),
    "red": (0.86, 0.12, 0.14),
    "blue": (0.12, 0.28, 0.80),
    "gold": (0.93, 0.72, 0.16),
}
MARK_COLOURS = {
    "red": (0.90, 0.05, 0.12),
    "blue": (0.08, 0.22, 0.95),
    "green": (0.05, 0.68, 0.18),
    "yellow": (1.00, 0.88, 0.05),
    "violet": (0.78, 0.16, 0.94),
}
HAIR_STYLES = (
    "bald",
    "buzz cut",
    "short",
    "side part",
    "spiky",
    "mohawk",
    "curly",
    "bob",
    "long",
    "wavy",
    "buns",
    "pigtails",
)
FACIAL_HAIR = ("none", "moustache", "goatee", "beard")
GLASSES = ("none", "round", "square", "cat eye")
MARKS = ("none", "mole", "scar", "star", "heart", "cross", "ring")
MARK_PLACES = ("left cheek", "right cheek", "forehead", "chin")  # left and right in the picture
NOSES = ("button", "straight", "broad")


@dataclass(frozen=True)
class People(Factors):
    """A batch of identities. Lengths are in head units: half the height from chin to crown.

    The order of the factors is the order of the hash's columns: append, never insert.
    """

    skin: Tensor = one_of(SKINS)
    hair_colour: Tensor = one_of(HAIR_COLOURS)
    hair_style: Tensor = one_of(HAIR_STYLES)
    eye_colour: Tensor = one_of(EYE_COLOURS)
    facial_hair: Tensor = one_of(FACIAL_HAIR, weights=(4, 1, 1, 1))
    glasses: Tensor = one_of(GLASSES, weights=(4, 1, 1, 1))
    frame_colour: Tensor = one_of(FRAME_COLOURS)
    nose: Tensor = one_of(NOSES)
    mark: Tensor = one_of(MARKS)
    mark_colour: Tensor = one_of(MARK_COLOURS)
    mark_place: Tensor = one_of(MARK_PLACES)
    face_width: Tensor = between(0.70, 0.86)  # half of it
    jaw: Tensor = between(1.75, 3.1)  # exponent of the lower face: pointed .. square
    taper: Tensor = between(0.0, 0.16)  # how much narrower the chin's end is
    eye_spacing: Tensor = between(0.315, 0.395)  # half of it
    eye_size: Tensor = between(0.86, 1.12)
    eye_openness: Tensor = between(0.62, 0.88)  # height over width
    eye_slant: Tensor = between(-0.16, 0.22)
    brow_weight: Tensor = between(0.032, 0.075)
    brow_arch: Tensor = between(0.0, 1.0)
    brow_angle: Tensor = between(-0.22, 0.22)
    nose_length: Tensor = between(0.26, 0.40)
    nose_width: Tensor = between(0.10, 0.17)
    mouth_width: Tensor = between(0.22, 0.34)
    lips: Tensor = between(0.04, 0.085)
    lip_colour: Tensor = between(0.0, 1.0)  # bare .. painted
    ears: Tensor = between(0.75, 1.2)
    parting: Tensor = between(-1.0, 1.0)  # which way, and how much, the hair falls
