"""The mapping network: identity and expression to the word S*."""

from typing import Any

import torch
from torch import nn

from ..errors import FlashFaceError

HIDDEN, EXPRESSION, TEXT = 1536, 64, 768  # as published
DROPOUT, SLOPE = 0.1, 0.2


class MappingNetwork(nn.Module):
    """A face vector and an expression to S*, two text tokens (SYSTEMS.md section B.4).

    Expression guidance: in training `expression` tells the network how the face looks, and a
    learned vector stands in when none is given, so that the identity need not carry it. Without
    an expression the text decides; with that of another photo, the photo.

    identity_width: 1536 for MSID, or the width of any other frozen face embedding. operations:
    torch.nn or a comfy.ops class.
    """

    def __init__(
        self,
        identity_width: int,
        expression_width: int = EXPRESSION,
        hidden: int = HIDDEN,
        text_width: int = TEXT,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.identity_width, self.text_width = identity_width, text_width
        self.expression_width = expression_width
        self.null_exp = nn.Parameter(torch.zeros(expression_width))
        width = identity_width + expression_width
        self.i2t_first = TokenNetwork(width, hidden, text_width, operations)
        self.i2t_last = TokenNetwork(width, hidden, text_width, operations)

    def forward(
        self,
        identity: torch.Tensor,
        expression: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """S* (B, 2, text width).

        identity: (B, identity width). expression: (B, expression width), in the published network
        64 coefficients of a 3D face model; None: the learned vector. mask: (B,), 1 where the
        expression is given, 0 where the learned vector stands in, blended between; None: 1.
        Raises FlashFaceError for vectors of another encoder.
        """
        if identity.shape[-1] != self.identity_width:
            raise FlashFaceError(
                f"The face vectors have {identity.shape[-1]} values, but this mapping network was "
                f"trained on vectors of {self.identity_width}; use the face encoder that it was "
                "trained with."
            )
        x = torch.cat([identity, self._guided(expression, mask, len(identity))], dim=-1)
        return torch.stack([self.i2t_first(x), self.i2t_last(x)], dim=1)

    def _guided(self, expression, mask, faces: int) -> torch.Tensor:
        unconditional = self.null_exp.expand(faces, -1)
        if expression is None:
            return unconditional
        if expression.shape[-1] != self.expression_width:
            raise FlashFaceError(
                f"The expression has {expression.shape[-1]} values, but this mapping network was "
                f"trained on {self.expression_width}; give the coefficients it was trained with."
            )
        expression = expression.expand(faces, -1)
        if mask is None:
            return expression
        return expression * mask[:, None] + unconditional * (1 - mask[:, None])


class TokenNetwork(nn.Module):
    """One token of the word, named as in the published file."""

    def __init__(self, width: int, hidden: int, text_width: int, operations: Any) -> None:
        super().__init__()
        linear = operations.Linear
        self.layers = nn.ModuleList(
            nn.Sequential(linear(inputs, hidden), nn.Dropout(DROPOUT), nn.LeakyReLU(SLOPE))
            for inputs in (width, hidden)
        )
        self.fc_out = linear(hidden, text_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.fc_out(x)
