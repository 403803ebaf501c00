"""Muon (Jordan and others, 2024), which has a tiny UNet learn in fewer steps."""

from collections.abc import Callable
from typing import Any

import torch

# A matrix's rate, of AdamW's.
FASTER = 2.0
MOMENTUM = 0.95
# Of the Newton-Schulz iteration, as published.
A, B, C, ITERATIONS = 3.4445, -4.7750, 2.0315, 5


class Muon(torch.optim.AdamW):
    """AdamW, but weights that are matrices move along the nearest orthogonal matrix of their mean
    gradient, so that no direction is left behind. A kernel is a matrix of its outputs' rows.

    Steps are as long as AdamW's usually are (0.2 in root mean square, Liu and others 2025), times
    `FASTER`. Tensors with few inputs or outputs, such as the first and last layer, stay AdamW's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and is_matrix(parameter):
                    self._turn(parameter, group["lr"] * FASTER, group["weight_decay"])
                    parameter.grad = None  # what AdamW leaves alone
        return super().step(closure)

    def _turn(self, parameter: torch.nn.Parameter, rate: float, weight_decay: float) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:  # under AdamW's names, which its state_dict knows
            state["step"], state["exp_avg"] = torch.zeros(()), torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["exp_avg"], MOMENTUM).flatten(1)
        length = 0.2 * max(ahead.shape) ** 0.5
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-rate * length)


def is_matrix(parameter: torch.Tensor) -> bool:
    return parameter.dim() >= 2 and min(parameter.shape[:2]) > 4


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Its singular values brought near 1, (M, N); computed in bfloat16."""
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = A * x + (B * square + C * square @ square) @ x
    return (x.T if is_tall else x).to(matrix)
