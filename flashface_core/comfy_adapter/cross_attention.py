"""Cross-attention between the patches that see its inputs and those that see what comes out."""

import torch

from ..errors import FlashFaceError


def check_attention(
    node: str, rows: int, n: torch.Tensor, context: torch.Tensor, out: torch.Tensor
) -> None:
    """Raises FlashFaceError where another node has changed the rows or the picture's tokens.

    node: that cannot follow. rows: B of the UNet call. n: (B, L, C) and context: (B, K, D), as an
    attn2_patch was given them; out: (B, L, C), as an attn2_output_patch was. Attention couple
    gives every row once per region and joins them afterwards, so one of the two sees more of them.
    """
    what = "rows"
    expected, got = (rows, rows, rows), (len(n), len(context), len(out))
    if got == expected:
        what, expected, got = "picture tokens", (n.shape[1],), (out.shape[1],)
    for wanted, found in zip(expected, got, strict=True):
        if found != wanted:
            raise FlashFaceError(
                f"Another node (such as attention couple) changes the {what} in cross-attention "
                f"from {wanted} to {found}, which {node} cannot follow; remove one of the two."
            )
