"""One softmax over the tokens of a picture and those of references, in parts.

Softmax over [own; references] is the sum of both softmaxes weighted by their log-sum-exp, so the
own part is computed once, reference weights are added to a log-sum-exp instead of to every key,
and a region is a log-sum-exp of minus infinity.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]

# Scores that the plain fallback holds at a time: 64 MB in fp32, three times that with what is
# computed of them.
PLAIN_SCORES = 2**24


class ReferenceKeys(NamedTuple):
    """Keys and values of references that share a weight, for one attention site.

    keys, values: (1, L, C) for all rows or (R, L, C), already projected.
    weight: > 0; its logarithm is added to the logits.
    covered: bool (R, Lq), the picture tokens that may attend to them; None: all.
    tokens: indexes of those that any row covers; only they are computed. None: all.
    """

    keys: torch.Tensor
    values: torch.Tensor
    weight: float
    covered: torch.Tensor | None = None
    tokens: torch.Tensor | None = None


def reference_pull(
    q: torch.Tensor,
    own: torch.Tensor,
    own_lse: torch.Tensor,
    references: Sequence[ReferenceKeys],
    strength: torch.Tensor,
) -> torch.Tensor:
    """s * (attention over [own; references] - attention over own), (B, H, L, D).

    q: (B, H, L, D). own, own_lse: what `attend` gave for the own keys. strength: s, (B, L, 1) or
    broadcastable to it. Exactly 0 at tokens that see no reference.
    """
    parts, lses = [], [own_lse]
    for keys, values, weight, covered, tokens in references:
        # torch's kernel on the CPU ends the process for no keys at all.
        if not keys.shape[1] or (tokens is not None and not len(tokens)):
            continue
        k, v = (split_heads(t.to(q), q.shape[1]).expand(len(q), -1, -1, -1) for t in (keys, values))
        out, lse = attend(_at_tokens(q, tokens), k, v)
        lse = lse + math.log(weight)
        if covered is not None:
            lse = lse.masked_fill(~_at_tokens(covered[:, None], tokens), -torch.inf)
        parts.append((out, lse, tokens))
        if tokens is not None:
            lse = torch.full_like(own_lse, -torch.inf, dtype=lse.dtype).index_copy(2, tokens, lse)
        lses.append(lse)
    total = torch.stack(lses).logsumexp(0)
    pull = torch.zeros_like(own, dtype=total.dtype)
    for out, lse, tokens in parts:
        share = (lse - _at_tokens(total, tokens)).exp()[..., None]
        difference = share * (out - _at_tokens(own, tokens))
        pull = (
            pull + difference if tokens is None else pull.index_add(2, tokens, difference.to(pull))
        )
    return (pull * strength[:, None].to(pull)).to(own)


def _at_tokens(tensor: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
    """Of (B, H, L, ...)."""
    return tensor if tokens is None else tensor.index_select(2, tokens)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the log-sum-exp of its logits: (B, H, L, D) in, (B, H, L, D), (B, H, L) out.

    Uses the kernels that torch's scaled_dot_product_attention is made of where they return the
    log-sum-exp; they have no gradient for it, so training takes the plain path.
    """
    if not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)):
        if q.device.type == "cpu":
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[:2]
        if q.device.type == "cuda" and torch.version.hip is None and q.shape[-1] % 8 == 0:
            out = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
            return out[0], out[1][..., : q.shape[2]]  # rows are padded to a multiple of 32
    return _attend_plain(q, k, v)


def _attend_plain(q, k, v):
    step = max(1, PLAIN_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    outs, lses = [], []
    for part in q.split(step, dim=2):
        scores = (part.float() @ k.float().transpose(-1, -2)) / math.sqrt(q.shape[-1])
        lse = scores.logsumexp(-1, keepdim=True)
        outs.append(((scores - lse).exp() @ v.float()).to(q))
        lses.append(lse[..., 0])
    return torch.cat(outs, 2), torch.cat(lses, 2)


def _attention(q, k, v, heads):
    q, k, v = (split_heads(t, heads) for t in (q, k, v))
    return join_heads(nn.functional.scaled_dot_product_attention(q, k, v))


def split_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, L, C) -> (B, H, L, D)"""
    return rearrange(tensor, "b l (h d) -> b h l d", h=heads)


def join_heads(tensor: torch.Tensor) -> torch.Tensor:
    """(B, H, L, D) -> (B, L, C)"""
    return rearrange(tensor, "b h l d -> b l (h d)")
