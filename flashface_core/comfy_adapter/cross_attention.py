"""Cross-attention between the patches that see its inputs and those that see what comes out."""

import torch

from ..errors import FlashFaceError
from .unet import PatchSet
from .untraced import Action, run_action


def make_cross_attention_patches(name: str, key: str, action: Action) -> PatchSet:
    """Patches that call action([out, n, context, value], extra_options) behind cross-attention.

    out: (B, L, C), what comes out of it; the others: what goes into it, kept under `key`.
    """

    def keep_inputs(n, context, value, extra_options):
        extra_options[key] = n, context, value  # a dictionary of this one block call
        return n, context, value

    def act(out, extra_options):
        inputs = extra_options.pop(key, None)
        return out if inputs is None else run_action(name, action, [out, *inputs], extra_options)

    return PatchSet({"attn2_patch": keep_inputs, "attn2_output_patch": act}, {name: action})


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
