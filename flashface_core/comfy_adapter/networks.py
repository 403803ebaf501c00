"""Small frozen networks beside the MODEL, under ComfyUI's memory management."""

from typing import Generic, TypeVar

import comfy.model_management
import comfy.model_patcher
from torch import nn

_Networks = TypeVar("_Networks", bound=nn.Module)


class ManagedNetworks(Generic[_Networks]):
    """The networks of one system in one module, so that ComfyUI moves and unloads them as one.

    Not by load.make_patcher: these are plain torch modules, which newer cores' dynamic patcher
    cannot bring in piece by piece while they run. So they are loaded whole.
    """

    def __init__(self, networks: _Networks) -> None:
        self._networks = networks.eval()
        self.patcher = comfy.model_patcher.ModelPatcher(
            networks,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def _loaded(self) -> _Networks:
        """The networks, on `patcher.load_device`."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self._networks
