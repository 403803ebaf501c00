"""Reference attention (RA): the second self-attention, over own tokens and reference tokens.

    x <- x + SA(y) + s * RA(y, [y; ref]) + (1 - s) * RA(y, y)          (FLASHFACE.md section 3)

The own part of softmax.py serves both terms. Pure torch: ComfyUI's ops are handed in.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..softmax import (
    Attention,
    ReferenceKeys,
    _attention,
    attend,
    join_heads,
    reference_pull,
    split_heads,
)


class ReferenceAttention(nn.Module):
    """RA of one site: q, k, v without bias, o with bias, no norm and no position code of its own.

    width: channels C of the site; operations: torch.nn or a comfy.ops class.
    """

    def __init__(
        self, width: int, heads: int, operations: Any = nn, dtype=None, device=None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.q = operations.Linear(width, width, bias=False, dtype=dtype, device=device)
        self.k = operations.Linear(width, width, bias=False, dtype=dtype, device=device)
        self.v = operations.Linear(width, width, bias=False, dtype=dtype, device=device)
        self.o = operations.Linear(width, width, bias=True, dtype=dtype, device=device)

    def project(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Feature maps (N, L, C) to keys and values of the same shape."""
        return self.k(features), self.v(features)

    def forward(
        self,
        y: torch.Tensor,
        references: Sequence[ReferenceKeys] = (),
        strength: torch.Tensor | None = None,
        rows: Sequence[int] | torch.Tensor | None = None,
        attention: Attention | None = None,
    ) -> torch.Tensor:
        """What RA adds to the block, (B, L, C).

        y: norm1 output (B, L, C). references: empty for attention over the own tokens alone.
        strength: s of every picture token of the given rows, (R, L, 1) or (R, 1, 1). None: 1 for
        all, as in training: then one softmax over [own; references], by kernels with a gradient.
        rows: the R rows that see the references (None: all), numbers or a tensor of them on the
        device of y; the others never compute with them.
        attention: core's attention(q, k, v, heads) for the case without references.
        """
        q, k, v = self.q(y), self.k(y), self.v(y)
        if not references:
            own = (attention or _attention)(q, k, v, self.heads)
            return self.o(own)
        if strength is None:
            return self.o(self._joint(q, k, v, references, rows))
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
        own, own_lse = attend(q, k, v)
        if rows is None or len(rows) == len(y):
            own = own + reference_pull(q, own, own_lse, references, strength)
        else:
            index = torch.as_tensor(rows, device=y.device)
            pull = reference_pull(q[index], own[index], own_lse[index], references, strength)
            own = own.index_add(0, index, pull)
        return self.o(join_heads(own))

    def _joint(self, q, k, v, references, rows) -> torch.Tensor:
        """Attention over [own; references] for the rows, over own tokens for the others."""
        if rows is not None and not len(rows):
            # They have a gradient all the same, of zeros: who trains the same networks as others
            # takes the same way back.
            nothing = sum(part.keys.sum() + part.values.sum() for part in references)
            return _attention(q, k, v, self.heads) + 0 * nothing
        if rows is not None and len(rows) < len(q):
            rest = [row for row in range(len(q)) if row not in rows]
            seeing, alone = (torch.as_tensor(r, device=q.device) for r in (rows, rest))
            joint = self._joint(q[seeing], k[seeing], v[seeing], references, None)
            own = _attention(q[alone], k[alone], v[alone], self.heads)
            return torch.cat([joint, own])[torch.cat([seeing, alone]).argsort()]
        keys = [reference.keys.to(q).expand(len(q), -1, -1) for reference in references]
        values = [reference.values.to(q).expand(len(q), -1, -1) for reference in references]
        return _attention(q, torch.cat([k, *keys], 1), torch.cat([v, *values], 1), self.heads)


class SelfAttention(NamedTuple):
    """The parts of a network's own self-attention: q, k, v without bias, o with or without."""

    q: Callable[[torch.Tensor], torch.Tensor]
    k: Callable[[torch.Tensor], torch.Tensor]
    v: Callable[[torch.Tensor], torch.Tensor]
    o: Callable[[torch.Tensor], torch.Tensor]
    heads: int


def add_extra_keys(
    attention: SelfAttention,
    y: torch.Tensor,
    references: Sequence[ReferenceKeys],
    strength: torch.Tensor,
) -> torch.Tensor:
    """s (SA(y, [y; references]) - SA(y, y)): what references as extra keys change, (R, L, C).

    y: norm1 output (R, L, C) of the rows that see the references. strength: s of every picture
    token, (R, L, 1) or (R, 1, 1). Added to x + SA(y, y), it makes FlashFace's rule with the
    network's own attention in RA's place ("reference only").
    """
    q, k, v = (
        split_heads(part(y), attention.heads) for part in (attention.q, attention.k, attention.v)
    )
    own, own_lse = attend(q, k, v)
    pull = join_heads(reference_pull(q, own, own_lse, references, strength))
    # The bias of o is in SA(y, y) already.
    return attention.o(pull) - attention.o(torch.zeros_like(pull[:1, :1]))
