"""A checkpoint file to a core MODEL and a REFERENCE_NET."""

import hashlib
from pathlib import Path
from typing import Any, cast

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..checkpoint import Checkpoint, read_checkpoint, site_levels, some
from ..checkpoint_file import read_state_dict
from ..errors import FlashFaceError
from ..reference_net import ReferenceNetwork, site_name
from .attach import attach_reference_net
from .reference import ReferenceNet

WEIGHT_DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
SUPPORTED_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
# Official GroupNorms (FLASHFACE.md 1.5); core's residual blocks use 1e-5.
GROUP_NORM_EPS = 1e-6


def load_flashface(path: str | Path, weight_dtype: str = "default"):
    """The complete fine-tuned MODEL (with RA on the picture itself) and its REFERENCE_NET.

    Raises FlashFaceError naming the file for anything that is not a whole FlashFace checkpoint.
    """
    state, metadata = read_state_dict(path)
    return build_flashface(read_checkpoint(Path(path).name, state, metadata), weight_dtype)


def build_flashface(checkpoint: Checkpoint, weight_dtype: str = "default"):
    load_device = comfy.model_management.get_torch_device()
    dtype = WEIGHT_DTYPES[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(checkpoint.target),
        supported_dtypes=SUPPORTED_DTYPES,
        weight_dtype=comfy.utils.weight_dtype(checkpoint.target),
    )
    compute = comfy.model_management.unet_manual_cast(dtype, load_device, SUPPORTED_DTYPES)
    operations = comfy.ops.pick_operations(dtype, compute)
    try:
        model_config = _model_config(checkpoint)
        model_config.set_inference_dtype(dtype, compute)
        target = model_config.get_model(checkpoint.target)
        reference = UNetModel(**model_config.unet_config, operations=cast(Any, operations))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # Core stumbles in several ways over a UNet of which whole blocks are missing.
        raise FlashFaceError(
            f"{checkpoint.name} is incomplete: blocks are missing, its tensors make no whole UNet "
            f"({type(error).__name__}: {error}). Download it again, or convert it again."
        ) from error
    for unet in (target.diffusion_model, reference):
        _set_group_norm_eps(unet)
    model = make_patcher(target)
    _load_strictly(target.diffusion_model, checkpoint.target, checkpoint.name, model)
    network = _reference_network(checkpoint, reference, operations, dtype)
    net = ReferenceNet(
        name=checkpoint.name,
        patcher=network,
        levels=site_levels(checkpoint),
        compute_dtype=compute or dtype,
        context_width=model_config.unet_config["context_dim"],
        reference_size=checkpoint.reference_size,
        picture_size=checkpoint.picture_size,
        fingerprint=_fingerprint(checkpoint),
    )
    return attach_reference_net(model, net), net


def _model_config(checkpoint: Checkpoint):
    """Both UNets have one topology, which core infers from keys and shapes."""
    config, other = (
        comfy.model_detection.detect_unet_config(state, "")
        for state in (checkpoint.target, checkpoint.reference)
    )
    if config != other:
        different = [key for key in config if config[key] != other.get(key)]
        raise FlashFaceError(
            f"{checkpoint.name} is incomplete: target and ReferenceNet differ in "
            f"{some(different)}. Download it again, or convert it again."
        )
    model_config = comfy.supported_models.SD15(config)
    model_config.unet_config["num_heads"] = checkpoint.heads
    return model_config


def _reference_network(checkpoint: Checkpoint, unet: UNetModel, operations, dtype):
    """The ModelPatcher of ReferenceNet, RA and position channel."""
    assert checkpoint.position is not None
    state = {f"unet.{key}": value for key, value in checkpoint.reference.items()}
    state["position.weight"] = checkpoint.position
    widths = {}
    for site in site_levels(checkpoint):
        parts = checkpoint.reference_attention[site]
        if "q.weight" not in parts:
            raise FlashFaceError(f"{checkpoint.name}: reference attention at {site} has no q.")
        widths[site] = parts["q.weight"].shape[0]
        state |= {f"attention.{site_name(site)}.{key}": value for key, value in parts.items()}
    network = ReferenceNetwork(
        unet, widths, checkpoint.heads, checkpoint.position.shape[0], operations, dtype
    ).eval()
    patcher = make_patcher(network)
    _load_strictly(network, state, checkpoint.name, patcher)
    return patcher


def make_patcher(module: torch.nn.Module):
    """Newer cores bind CoreModelPatcher at start-up, to their dynamic class."""
    patcher_class = getattr(
        comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher
    )
    return patcher_class(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def _load_strictly(module: torch.nn.Module, state: dict, name: str, patcher) -> None:
    expected = module.state_dict()
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise FlashFaceError(
            f"{name} is not a whole FlashFace checkpoint: missing {some(missing)}; "
            f"unexpected {some(unexpected)}. Download it again, or convert it again."
        )
    wrong = [key for key in expected if expected[key].shape != state[key].shape]
    if wrong:
        key = sorted(wrong)[0]
        raise FlashFaceError(
            f"{name}: {key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)} "
            f"({len(wrong)} tensors differ in shape)."
        )
    is_dynamic = getattr(patcher, "is_dynamic", bool)()
    module.load_state_dict(state, assign=is_dynamic)


def _set_group_norm_eps(unet: torch.nn.Module) -> None:
    for module in unet.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = GROUP_NORM_EPS


def _fingerprint(checkpoint: Checkpoint) -> str:
    """What tells two checkpoints apart, whatever their file names: RA's query weights."""
    digest = hashlib.sha256()
    for site in sorted(checkpoint.reference_attention):
        weight = checkpoint.reference_attention[site]["q.weight"]
        digest.update(f"{site}{tuple(weight.shape)}".encode())
        digest.update(weight.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
