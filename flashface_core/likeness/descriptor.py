"""A face as edges and colours: the measure of likeness that needs no network and no weights.

Histograms of oriented gradients (Dalal and Triggs 2005) and a small picture in Lab, each the mean
of the face and its mirror image. Sizes and the share of colour were chosen by identifying drawn
people and photographs; web/docs/FlashFaceSimilarity.md has the numbers.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SIZE, CELL, ORIENTATIONS = 64, 8, 9
COLOUR = 0.4  # length of the colour part, that of the edges being 1
CLIP = 0.2  # of a normalised histogram: one strong edge must not drown the others
EPSILON = 1e-2

LUMA = (0.299, 0.587, 0.114)
LINEAR_RGB_TO_XYZ = (
    (0.4124, 0.3576, 0.1805),
    (0.2126, 0.7152, 0.0722),
    (0.0193, 0.1192, 0.9505),
)
WHITE = (0.9505, 1.0, 1.089)
USUAL_LAB = (0.60, 0.15, 0.15)  # of a face, in hundreds: colours are told apart from there


def describe(crop: torch.Tensor) -> torch.Tensor:
    """A levelled face crop, uint8 (h, w, 3), to a unit vector, float32 (D,).

    The crop is stretched to a square. A crop of one colour has no edges and is told by its colour.
    """
    square = Image.fromarray(crop.numpy()).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    face = torch.from_numpy(np.array(square)).permute(2, 0, 1).float()[None] / 255
    both = torch.cat([face, face.flip(-1)])
    edges = edge_histograms(both).flatten(1)
    edges = F.normalize(edges - edges.mean(1, keepdim=True), dim=1)
    colours = F.avg_pool2d(lab(both), CELL) - both.new_tensor(USUAL_LAB)[:, None, None]
    colours = COLOUR * F.normalize(colours.flatten(1), dim=1)
    return F.normalize(torch.cat([edges, colours], dim=1).mean(0), dim=0)


def edge_histograms(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in 0..1 to histograms of edge directions (B, 4 * 9, H / 8 - 1, W / 8 - 1).

    Directions without sign, shared linearly between neighbours; 2 x 2 cells are normalised as one.
    """
    grey = (pictures * pictures.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    grey = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    dy = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    strength = (dx**2 + dy**2).sqrt()
    position = (torch.atan2(dy, dx) / math.pi % 1) * ORIENTATIONS
    lower = position.floor()
    share = position - lower
    lower = lower.long() % ORIENTATIONS
    histogram = strength.new_zeros(len(pictures), ORIENTATIONS, *strength.shape[-2:])
    histogram.scatter_add_(1, lower, strength * (1 - share))
    histogram.scatter_add_(1, (lower + 1) % ORIENTATIONS, strength * share)
    cells = F.avg_pool2d(histogram, CELL)
    corners = [cells[..., y : y + cells.shape[2] - 1, :] for y in (0, 1)]
    blocks = torch.cat([c[..., x : x + cells.shape[3] - 1] for x in (0, 1) for c in corners], 1)
    blocks = blocks / (blocks.norm(dim=1, keepdim=True) + EPSILON)
    blocks = blocks.clamp(max=CLIP)
    return blocks / (blocks.norm(dim=1, keepdim=True) + EPSILON)


def lab(pictures: torch.Tensor) -> torch.Tensor:
    """sRGB (B, 3, H, W) in 0..1 to CIE Lab (D65) in hundreds, the same shape."""
    linear = torch.where(pictures > 0.04045, ((pictures + 0.055) / 1.055) ** 2.4, pictures / 12.92)
    to_xyz = pictures.new_tensor(LINEAR_RGB_TO_XYZ) / pictures.new_tensor(WHITE)[:, None]
    x, y, z = torch.einsum("ij,bjhw->ibhw", to_xyz, linear)
    x, y, z = (torch.where(v > 0.008856, v ** (1 / 3), 7.787 * v + 16 / 116) for v in (x, y, z))
    return torch.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], dim=1)
