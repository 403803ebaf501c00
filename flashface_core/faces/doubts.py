"""What speaks against a face: found and cut out, and yet a weak reference.

The limits were measured on photographs that packages ship; docs/PHOTOS.md has the numbers.
"""

import numpy as np
import torch
from PIL import Image

from .face import Face

SMALLEST = 224 // 3  # pixels of the long side: the network sees 224, so smaller is enlarged 3 times
SHARPNESS_SIZE = 112  # long side at which sharpness is measured; enlarging adds no detail
LEAST_SHARPNESS = 0.16
MOST_TURNED = 0.4
MOST_OUTSIDE = 0.05

ADVICE = {
    "small": f"is smaller than {SMALLEST} pixels, which are enlarged to 224",
    "blurred": "is blurred",
    "turned away": "is turned away, or upside down",
    "cut off": "reaches beyond its photo",
}


def doubts(photo: torch.Tensor, face: Face, crop: torch.Tensor) -> list[str]:
    """Keys of ADVICE for a face of a photo, both uint8 (H, W, 3), with its crop."""
    x1, y1, x2, y2 = face.box
    found = {
        "small": max(x2 - x1, y2 - y1) < SMALLEST,
        "blurred": sharpness(crop) < LEAST_SHARPNESS,
        "turned away": face.points is not None and is_turned(face.points),
        "cut off": outside(photo, face) > MOST_OUTSIDE,
    }
    if found["small"]:  # always soft once it is enlarged: one word says it
        found["blurred"] = False
    return [doubt for doubt, holds in found.items() if holds]


def sharpness(crop: torch.Tensor) -> float:
    """Mean absolute Laplacian by contrast, of the brightness of the middle of a crop."""
    picture = Image.fromarray(crop.numpy()).convert("L")
    scale = SHARPNESS_SIZE / max(picture.size)
    width, height = (max(5, round(side * scale)) for side in picture.size)
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    grey = np.asarray(picture.resize((width, height), way), dtype=np.float64)
    grey = grey[height // 5 : height - height // 5, width // 5 : width - width // 5]
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.abs(4 * middle - around).mean() / max(float(grey.std()), 1e-6))


def is_turned(points: np.ndarray) -> bool:
    """Whether the nose is far from the middle of the eyes, or not between eyes and mouth.

    points: (5, 2), as those of a Face. The distance counts in distances of the eyes.
    """
    left, right, nose = points[:3]
    eyes, mouth = (left + right) / 2, (points[3] + points[4]) / 2
    across = right - left
    distance = max(float(np.linalg.norm(across)), 1e-6)
    across = across / distance
    down = np.array([-across[1], across[0]])
    aside = abs(float((nose - eyes) @ across)) / distance
    return aside > MOST_TURNED or not 0 < (nose - eyes) @ down < (mouth - eyes) @ down


def outside(photo: torch.Tensor, face: Face) -> float:
    """The share of a face's box that is not in its photo."""
    height, width = photo.shape[:2]
    x1, y1, x2, y2 = face.box
    inside = max(0.0, min(x2, width) - max(x1, 0)) * max(0.0, min(y2, height) - max(y1, 0))
    return 1 - inside / max(face.area, 1e-6)
