"""Face Fusion: text and face tokens in one softmax, inside the network's own cross-attention.

    K = [W_k c ; W'_k h_1 ; ... ; W'_k h_R],   V = [W_v c ; W'_v h_1 ; ... ; W'_v h_R]
    out = softmax(Q K^T / sqrt(d) + M) V

h_j: the UNet's own hidden states of reference j at this layer, c: the text. M is minus infinity on
reference tokens outside of the face, and for queries outside of a person's region; strength s and
a photo's weight w add log(s w). Photos of one person are more tokens, people are regions, and a
face between two people is the photos of both with the weights of `mix_identities`.

A reconstruction from the abstract of Mohamed, Han and Li (arXiv 2409.19111) and from its reviews:
neither full text nor code nor weights were to be had, and s is an addition.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, scaled_dot_product_attention

from ..errors import FlashFaceError
from ..softmax import ReferenceKeys, attend, join_heads, reference_pull, split_heads


class FaceProjection(nn.Module):
    """W'_k and W'_v of one layer, without bias. Untrained: copies of its self-attention's.

    width: channels C of the layer; operations: torch.nn or a comfy.ops class.
    """

    def __init__(self, width: int, operations: Any = nn, dtype=None, device=None) -> None:
        super().__init__()
        self.k = operations.Linear(width, width, bias=False, dtype=dtype, device=device)
        self.v = operations.Linear(width, width, bias=False, dtype=dtype, device=device)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (N, L, C) to keys and values of the same shape."""
        return self.k(features), self.v(features)


def face_tokens(faces: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Which tokens of the references show the face, at a layer of h x w: bool (N, h * w).

    faces: (N, H, W), above 0.5 is face. A token with any of it counts, so that a small face is
    lost at no scale.
    """
    return adaptive_max_pool2d(faces.float()[:, None], size).flatten(1) > 0.5


def fusion_change(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    references: Sequence[ReferenceKeys],
    strength: float,
    heads: int,
    copies: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the faces change in cross-attention, (B, L, C), before the output projection.

    q: (B, L, C); k, v: (B, T, C) of the text, all of them the model's own. references: of
    everyone, for these rows (the unconditional ones see none). strength: s, 0 or more; 1 is the
    formula. copies: how many times k and v repeat the text of a row, (B,); it counts once. To be
    added to the plain attention, which may have run already: through the weight of the output
    projection, without its bias, it is what they add to the block. Exactly 0 at strength 0 and
    where no person covers the query. Text keys are attended to a second time for it; they are few.
    Raises FlashFaceError for a negative strength.
    """
    if strength < 0:
        raise FlashFaceError(f"Face Fusion's strength is {strength:g}; it must be 0 or more.")
    if strength == 0 or not references:
        return torch.zeros_like(q)
    q, k, v = (split_heads(tensor, heads) for tensor in (q, k, v))
    text, text_lse = attend(q, k, v)
    if copies is not None:
        text_lse = text_lse - copies.to(text_lse).log()[:, None, None]
    weighed = [entry._replace(weight=entry.weight * strength) for entry in references]
    return join_heads(reference_pull(q, text, text_lse, weighed, q.new_ones(1, 1, 1)))


def fuse_rows(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    face_keys: torch.Tensor,
    face_values: torch.Tensor,
    faces: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """The form for training: every row has references of its own, at strength 1.

    One softmax as it stands, by kernels with a gradient. face_keys, face_values: (B, M, C).
    faces: bool (B, M), the tokens that show the face; none in a row is a row without a face.
    """
    seen = torch.cat([faces.new_ones(len(faces), k.shape[1]), faces], 1)[:, None, None]
    k, v = torch.cat([k, face_keys], 1), torch.cat([v, face_values], 1)
    q, k, v = (split_heads(tensor, heads) for tensor in (q, k, v))
    return join_heads(scaled_dot_product_attention(q, k, v, attn_mask=seen))
