"""How unlike the true face the face of the predicted clean picture is, to a frozen embedder.

Only late in the noise process is there a face in the prediction: above a timestep nothing is asked
(PortraitBooth, arXiv 2312.06354, its dynamic identity preservation).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from flashface_core.face2diffusion.files import load_encoder

from .batches import Batch
from .diffusion import clean_prediction

Decoder = Callable[[Tensor], Tensor]
"""Scaled latents (1, 4, h, w) to pictures (1, 3, 8 h, 8 w) in 0..1, with a gradient."""
Embedder = Callable[[Tensor], Tensor]
"""Faces (B, 3, side, side) in -1..1 to vectors (B, W), with a gradient."""


class IdentityLoss:
    """1 minus the cosine of the vectors of two faces: in the predicted picture and in the true one.

    Both are the face's region of the latents, decoded, so an embedder of aligned faces sees both
    equally unaligned, and what the VAE loses is lost in both. side: pixels of the embedder's faces.
    below: timesteps under which the loss is taken.
    """

    def __init__(self, decode: Decoder, embed: Embedder, side: int, below: int) -> None:
        self.decode, self.embed, self.side, self.below = decode, embed, side, below

    def __call__(
        self, predicted: Tensor, noisy: Tensor, batch: Batch, rows: Sequence[int]
    ) -> Tensor:
        """(B,); 0 but in `rows`, whose timestep is low enough and whose face has a region.

        predicted noise and noisy latents (B, 4, H, W) of a batch.
        """
        zeros = 0 * predicted.float().mean(dim=(1, 2, 3))
        is_late = batch.timesteps < self.below
        can_be_asked = (is_late & batch.region.flatten(1).any(dim=1)).tolist()
        asked = [row for row in rows if can_be_asked[row]]
        if not asked:
            return zeros
        clean = clean_prediction(noisy, predicted.float(), batch.timesteps)
        boxes = [bounds(batch.region[row, 0]) for row in asked]
        with torch.no_grad():
            true = self._vectors(batch.latents, asked, boxes)
        found = self._vectors(clean, asked, boxes)
        index = torch.tensor(asked, device=zeros.device)
        return zeros.index_add(0, index, 1 - F.cosine_similarity(found, true))

    def _vectors(self, latents: Tensor, rows: list[int], boxes: list[tuple]) -> Tensor:
        faces = []
        for row, (top, bottom, left, right) in zip(rows, boxes, strict=True):
            face = self.decode(latents[row : row + 1, :, top:bottom, left:right].float())
            size = (self.side, self.side)
            faces.append(F.interpolate(face, size, mode="bilinear", antialias=True))
        return self.embed(torch.cat(faces).clamp(0, 1) * 2 - 1)


def with_msid(path: Path, decode: Decoder, below: int, device: str | torch.device) -> IdentityLoss:
    """path: an MSID, as Face2Diffusion has it. Raises FlashFaceError for any other file."""
    encoder = load_encoder(path).to(device)
    return IdentityLoss(decode, encoder, encoder.topology.size, below)


def bounds(region: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is not 0 in (H, W); the ends are outside of it."""
    rows, columns = (torch.nonzero(region.any(dim=dim)).flatten() for dim in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
