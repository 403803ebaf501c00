"""A checkpoint file to a core MODEL and a REFERENCE_NET."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple, cast

import comfy.model_detection
import comfy.model_management
import comfy.ops
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...errors import FlashFaceError
from ...flashface.checkpoint import Checkpoint, read_checkpoint, site_levels
from ...flashface.reference_net import ReferenceNetwork
from ...sites import site_name
from ...weights_file import Difference, load_strictly, read_state_dict, shorten
from ..patcher import loaded_by, make_patcher
from ..photo_encoder import EncoderSettings, Reader
from .reference_net import ReferenceNet

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
    model, net = build_flashface(_read(path), weight_dtype)
    loaded_by(model, load_target, path, weight_dtype)
    loaded_by(net.patcher, load_network, path, weight_dtype)
    return model, net


def load_target(path: str | Path, weight_dtype: str, disable_dynamic: bool = False):
    """The MODEL alone, without RA. disable_dynamic: not by newer cores' dynamic patcher."""
    checkpoint = _read(path)
    return _build_target(checkpoint, _settings(checkpoint, weight_dtype), disable_dynamic)


def load_network(path: str | Path, weight_dtype: str, disable_dynamic: bool = False):
    """The ModelPatcher of the REFERENCE_NET alone, as `load_target`."""
    checkpoint = _read(path)
    return _build_network(checkpoint, _settings(checkpoint, weight_dtype), disable_dynamic)


def build_flashface(checkpoint: Checkpoint, weight_dtype: str = "default"):
    """As load_flashface, of a file that was read."""
    settings = _settings(checkpoint, weight_dtype)
    model = _build_target(checkpoint, settings)
    net = ReferenceNet(
        EncoderSettings(
            Reader(checkpoint.name, settings.model_config.unet_config["context_dim"]),
            site_levels(checkpoint),
            settings.compute_dtype,
            checkpoint.reference_size,
        ),
        patcher=_build_network(checkpoint, settings),
        picture_size=checkpoint.picture_size,
        fingerprint=_fingerprint(checkpoint),
    )
    return net.attach(model), net


def _read(path: str | Path) -> Checkpoint:
    state, metadata = read_state_dict(path)
    return read_checkpoint(Path(path).name, state, metadata)


class _Settings(NamedTuple):
    """dtype: of the weights. compute_dtype: of the activations."""

    model_config: Any
    dtype: torch.dtype
    compute_dtype: torch.dtype


def _settings(checkpoint: Checkpoint, weight_dtype: str) -> _Settings:
    load_device = comfy.model_management.get_torch_device()
    dtype = WEIGHT_DTYPES[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(checkpoint.target),
        supported_dtypes=SUPPORTED_DTYPES,
        weight_dtype=comfy.utils.weight_dtype(checkpoint.target),
    )
    compute = comfy.model_management.unet_manual_cast(dtype, load_device, SUPPORTED_DTYPES)
    try:
        model_config = _model_config(checkpoint)
    except _STUMBLES as error:
        raise _no_whole_unet(checkpoint, error) from error
    model_config.set_inference_dtype(dtype, compute)
    return _Settings(model_config, dtype, compute or dtype)


# Core stumbles in several ways over a UNet of which whole blocks are missing.
_STUMBLES = (AttributeError, IndexError, KeyError, TypeError)


def _no_whole_unet(checkpoint: Checkpoint, error: Exception) -> FlashFaceError:
    return FlashFaceError(
        f"{checkpoint.name} is incomplete: blocks are missing, its tensors make no whole UNet "
        f"({type(error).__name__}: {error}). Download it again, or convert it again."
    )


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
            f"{shorten(different)}. Download it again, or convert it again."
        )
    model_config = comfy.supported_models.SD15(config)
    model_config.unet_config["num_heads"] = checkpoint.heads
    return model_config


def _build_target(checkpoint: Checkpoint, settings: _Settings, disable_dynamic: bool = False):
    """The ModelPatcher of the sampled UNet, as core's loaders make it."""
    try:
        target = settings.model_config.get_model(checkpoint.target)
    except _STUMBLES as error:
        raise _no_whole_unet(checkpoint, error) from error
    _set_group_norm_eps(target.diffusion_model)
    patcher = make_patcher(target, disable_dynamic)
    _load(target.diffusion_model, checkpoint.target, checkpoint.name, patcher)
    return patcher


def _build_network(checkpoint: Checkpoint, settings: _Settings, disable_dynamic: bool = False):
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
    # RA runs inside of any MODEL, in that one's dtype, which a node may change after loading.
    operations = cast(Any, comfy.ops.manual_cast)
    try:
        unet = UNetModel(**settings.model_config.unet_config, operations=operations)
    except _STUMBLES as error:
        raise _no_whole_unet(checkpoint, error) from error
    _set_group_norm_eps(unet)
    network = ReferenceNetwork(
        unet, widths, checkpoint.heads, checkpoint.position.shape[0], operations, settings.dtype
    ).eval()
    patcher = make_patcher(network, disable_dynamic)
    _load(network, state, checkpoint.name, patcher)
    return patcher


def _load(module: torch.nn.Module, state: dict, name: str, patcher) -> None:
    def explain(difference: Difference) -> str:
        if difference.missing or difference.unexpected:
            return (
                f"{name} is not a whole FlashFace checkpoint: missing "
                f"{shorten(difference.missing)}; unexpected {shorten(difference.unexpected)}. "
                "Download it again, or convert it again."
            )
        if difference.shapes:
            key, got, wanted = min(difference.shapes)
            return (
                f"{name}: {key} is {got}, expected {wanted} ({len(difference.shapes)} tensors "
                "differ in shape)."
            )
        key, dtype = difference.whole_numbers[0]
        return (
            f"{name}: {key} holds {dtype}, expected floating point. Download it again, or convert "
            "it again."
        )

    is_dynamic = getattr(patcher, "is_dynamic", bool)()
    load_strictly(module, state, explain, assign=is_dynamic)


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
