"""Muon: matrices turn, all else is AdamW's."""

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

from training.muon import FASTER, Muon, is_matrix, orthogonal
from training.options import OPTIMIZERS
from training.trainer import OPTIMIZERS as KNOWN


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Flatten(), nn.Linear(24 * 16, 8)
    )


def learn(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(pictures()).square().sum().backward()
    optimizer.step()


def pictures() -> torch.Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def learned(optimizer_of, steps: int = 3) -> dict[str, torch.Tensor]:
    model = network()
    optimizer = optimizer_of(model.parameters(), 1e-2, weight_decay=0.1)
    for _ in range(steps):
        learn(model, optimizer)
    return dict(model.named_parameters())


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 1e-3))
    assert values.min() > 0.5 and values.max() < 1.3


def test_a_matrix_moves_in_all_directions_alike_and_loses_what_decay_takes():
    before, after = dict(network().named_parameters()), learned(Muon, steps=1)
    rate = 1e-2 * FASTER
    for name in ("1.weight", "3.weight"):
        moved = (after[name] - before[name] * (1 - rate * 0.1)).flatten(1)
        steps = torch.linalg.svdvals(moved) / (rate * 0.2 * max(moved.shape) ** 0.5)
        assert steps[: len(steps) // 2].min() > 0.4 and steps.max() < 1.3


def test_first_layers_and_biases_are_adamws():
    names = {name for name, value in network().named_parameters() if is_matrix(value)}
    assert names == {"1.weight", "3.weight"}
    muon, adamw = learned(Muon, steps=1), learned(torch.optim.AdamW, steps=1)
    for name, value in muon.items():
        assert torch.equal(value, adamw[name]) == (name not in names)


def test_its_state_goes_on_and_is_of_plain_tensors(tmp_path):
    whole = learned(Muon)
    model = network()
    optimizer = Muon(model.parameters(), 1e-2, weight_decay=0.1)
    for step in range(3):
        if step == 2:
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            optimizer = Muon(model.parameters(), 1.0)
            optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        learn(model, optimizer)
    for name, value in model.named_parameters():
        assert torch.equal(value, whole[name])


def test_recipes_may_name_every_optimizer():
    assert tuple(KNOWN) == OPTIMIZERS
