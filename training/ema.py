"""The average of what is trained, which is what is saved."""

import torch

from .networks import Networks


class Ema:
    """Exponential moving average of the trainable tensors; short runs warm up. With decay 0, where
    it would be the tensors themselves, it takes no memory."""

    def __init__(self, networks: Networks, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average = {
            name: parameter.detach().clone()
            for name, parameter in networks.named_parameters()
            if parameter.requires_grad and decay > 0
        }

    @torch.no_grad()
    def update(self, networks: Networks) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = dict(networks.named_parameters())
        for name, average in self.average.items():
            average.lerp_(current[name], 1 - decay)

    @torch.no_grad()
    def exchange(self, networks: Networks) -> None:
        """Swap the averages and the networks' own values; a second call swaps them back."""
        current = dict(networks.named_parameters())
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(current[name])
            current[name].copy_(kept)

    def state_dict(self) -> dict:
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        for name, average in self.average.items():
            average.copy_(state["average"][name])
