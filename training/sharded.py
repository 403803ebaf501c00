"""FSDP: networks whose tensors lie in parts on the processes (accelerate's FSDP2).

Whatever needs whole tensors asks `whole` for them, on every process and in the same order. Where
nothing is divided, that is the tensor itself. torch's own classes are imported where there is FSDP,
for older versions of torch do not have them.
"""

import os
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from torch import nn


def make_accelerator(precision: str, folder: Path) -> Accelerator:
    """With FSDP where `accelerate launch` says so. Raises ValueError for its first version."""
    plugin = None
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # Autocast chooses the precision, as without FSDP, so a recipe gives the same numbers.
        plugin = FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())
        if plugin.fsdp_version != 2:
            raise ValueError(
                "This trainer needs the second version of FSDP; set fsdp_version: 2, as in "
                "training/fsdp.yaml."
            )
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with="tensorboard",
        project_dir=folder,
        fsdp_plugin=plugin,
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate (1.15) has FSDP on GPUs alone and would go on without a word; torch can do it.
        accelerator.state.fsdp_plugin = plugin
        for state in (accelerator.state, PartialState()):
            state.distributed_type = DistributedType.FSDP
    return accelerator


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gathered from all processes, without a gradient; the tensor itself where it is whole."""
    tensor = tensor.detach()
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every process has, divided as another one is."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    other = cast(DTensor, other)
    given = (other.device_mesh, other.placements)
    return distribute_tensor(tensor.to(other.device), *given, src_data_rank=None)


def reshard(networks: nn.Module) -> None:
    """Let go of what a pass without a backward pass has gathered, which would go stale."""
    for module in networks.modules():
        if hasattr(module, "reshard"):
            cast(Any, module).reshard()
