"""A ControlNet and a LoRA with random weights, in the layouts of published files."""

import math

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import torch


def seeded_like(
    state: dict[str, torch.Tensor], seed: int, norms: float = 1.0
) -> dict[str, torch.Tensor]:
    """Random values of the same shapes: matrices 1/sqrt(fan_in), vectors small.

    norms: what the weights of norms are near to; near 0 a deep network of random matrices is tame,
    so that its rounding does not grow.
    """
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for key, tensor in state.items():
        # By name and shape alone: core's modules do not set the memory that they start with.
        value = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            value = value / math.sqrt(math.prod(tensor.shape[1:]))
        else:
            value = value * 0.02
            if key.endswith("weight"):  # of a norm
                value = value + norms
        values[key] = value
    return values


def random_controlnet(model, seed: int = 5):
    """CONTROL_NET for MODEL's topology, through core's loader."""
    return comfy.controlnet.load_controlnet_state_dict(controlnet_state(model, seed))


def controlnet_state(model, seed: int = 5) -> dict[str, torch.Tensor]:
    config = dict(model.model.model_config.unet_config)
    config.pop("out_channels")
    config["operations"] = comfy.ops.manual_cast
    network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3)
    return seeded_like(network.state_dict(), seed, norms=0.0)


def lora_state(model, part: str, seed: int = 6, rank: int = 4) -> dict[str, torch.Tensor]:
    """A LoRA file for every attention matrix of the target whose name contains `part`."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, weight in model.model.diffusion_model.state_dict().items():
        if part not in key or "transformer_blocks" not in key or weight.ndim != 2:
            continue
        name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        state[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], rank, generator=generator)
        down = torch.randn(rank, weight.shape[1], generator=generator)
        state[f"{name}.lora_down.weight"] = down / math.sqrt(weight.shape[1])
    return state
