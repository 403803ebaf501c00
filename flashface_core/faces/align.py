"""A face brought to the place and size at which ArcFace and Face2Diffusion's encoder see it."""

import numpy as np
import torch

from ..errors import FlashFaceError

ALIGNED_SIZE = 112
# Where ArcFace was trained to see eyes, nose and corners of the mouth, in pixels of 112 x 112.
ARCFACE_POINTS = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift that bring points (N, 2) closest to target (N, 2): float64 (3, 3).

    Umeyama (1991) without reflection; in the plane it is linear regression of complex numbers.
    Raises FlashFaceError for points that coincide.
    """
    z, w = (np.asarray(points, dtype=np.float64) @ [1, 1j] for points in (source, target))
    centred = z - z.mean()
    spread = (centred.conj() @ centred).real
    if not spread > 0:
        raise FlashFaceError(
            "The key points of a face coincide, so it cannot be aligned; use another photo."
        )
    turn = centred.conj() @ (w - w.mean()) / spread
    shift = w.mean() - turn * z.mean()
    return np.array(
        [
            [turn.real, -turn.imag, shift.real],
            [turn.imag, turn.real, shift.imag],
            [0, 0, 1],
        ]
    )


def align_face(photo: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) and five points (5, 2) to uint8 (112, 112, 3), black outside the photo.

    Bilinear without smoothing, as the official code warps what its networks were trained on.
    """
    back = np.linalg.inv(similarity_transform(points, ARCFACE_POINTS))
    x, y = np.meshgrid(np.arange(ALIGNED_SIZE), np.arange(ALIGNED_SIZE))
    where = np.stack([x, y, np.ones_like(x)], axis=-1) @ back[:2].T  # pixels of the photo
    size = photo.shape[1::-1]
    low = np.clip(np.floor(where.min((0, 1))), 0, size).astype(int)
    high = np.clip(np.ceil(where.max((0, 1))) + 1, 0, size).astype(int)
    if (low >= high).any():
        return torch.zeros(ALIGNED_SIZE, ALIGNED_SIZE, 3, dtype=torch.uint8)
    region = photo[low[1] : high[1], low[0] : high[0]]
    # grid_sample counts from -1 to 1 between the outer edges of the outermost pixels.
    grid = (where - low + 0.5) / (high - low) * 2 - 1
    warped = torch.nn.functional.grid_sample(
        region.movedim(-1, 0)[None].float(),
        torch.from_numpy(grid)[None].float(),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return warped[0].movedim(0, -1).round().clamp(0, 255).to(torch.uint8)
