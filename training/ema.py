"""The average of what is trained, which is what is saved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from .networks import Networks
from .sharded import like, reshard, whole


class Ema:
    """Exponential moving average of the trainable tensors; short runs warm up. With decay 0, where
    it would be the tensors themselves, it takes no memory. Divided among processes as they are."""

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

    @contextmanager
    def in_place(self, networks: Networks) -> Iterator[None]:
        """Inside, the networks hold the averages; afterwards their own values again."""
        self.exchange(networks)
        yield
        reshard(networks)
        self.exchange(networks)

    @torch.no_grad()
    def exchange(self, networks: Networks) -> None:
        """Swap the averages and the networks' own values; a second call swaps them back."""
        current = dict(networks.named_parameters())
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(current[name])
            current[name].copy_(kept)

    def state_dict(self) -> dict:
        """Whole, and on the main process alone, which writes it; every process must call it."""
        gathered = ((name, whole(average)) for name, average in self.average.items())
        is_main = PartialState().is_main_process
        average = {name: value.cpu() for name, value in gathered if is_main}
        return {"steps": self.steps, "average": average}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        for name, average in self.average.items():
            average.copy_(like(state["average"][name], average))
