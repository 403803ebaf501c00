"""Other people's MODELs: a community SD1.5 at a checkpoint's size, a small SDXL and Flux, a VAE."""

from pathlib import Path

import comfy.ldm.flux.model
import comfy.model_detection
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import torch
from flashface_pack.flashface_core.comfy_adapter.patcher import make_patcher
from flashface_pack.flashface_core.flashface.checkpoint import published_state_dict
from flashface_pack.flashface_core.weights_file import write_safetensors

from training.initial import fresh_checkpoint

from .control import seeded_like
from .core_calls import known_to
from .tools import load_tool

# What a FlashFace needs to have beside core's ControlNet, whose heads have 64 channels, and to be
# merged: the epsilon of a group norm is seen where its groups are a single channel.
WIDE = dict(width=64, heads=8)


def community_model(model, seed: int, dtype=torch.float32, compute_dtype=None):
    """An SD1.5 MODEL of the same topology with other weights, as core's own loader makes it.

    compute_dtype: None: dtype.
    """
    like = model.model.diffusion_model.state_dict()
    weights = seeded_like(like, seed, norms=0.0)
    config = comfy.model_detection.detect_unet_config(weights, "")
    config["num_heads"] = model.model.model_config.unet_config["num_heads"]
    config = comfy.supported_models.SD15(config)
    return _patcher(config, weights, dtype, compute_dtype)


def reshaped_model(model, seed: int, **config):
    """An SD1.5 MODEL whose UNet differs in `config`, which core's loader would not tell from it."""
    config = {**model.model.model_config.unet_config, **config}
    like = _patcher(comfy.supported_models.SD15(config), {}).model.diffusion_model.state_dict()
    return _patcher(comfy.supported_models.SD15(config), seeded_like(like, seed, norms=0.0))


def wider_model(model):
    """SD1.5 with twice the channels."""
    config = dict(model.model.model_config.unet_config)
    config["model_channels"] *= 2
    return _patcher(comfy.supported_models.SD15(config), {})


def sdxl_model():
    """Context 2048 and pooled prompts, one level of attention."""
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "transformer_depth": [0, 1],
        "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1,
        "channel_mult": [1, 2],
        "use_linear_in_transformer": True,
        "use_spatial_transformer": True,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "legacy": False,
        "context_dim": 2048,
        "num_head_channels": 32,
        "num_heads": -1,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    }
    return _patcher(comfy.supported_models.SDXL(config), {})


def deeper_sdxl_model(seed: int):
    """Two levels of attention, several transformer blocks at a site, random weights."""
    config = {
        **sdxl_model().model.model_config.unet_config,
        "num_res_blocks": [1, 1, 1],
        "transformer_depth": [0, 1, 2],
        "transformer_depth_output": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": 2,
        "channel_mult": [1, 2, 2],
    }
    config = comfy.supported_models.SDXL(config)
    config.set_inference_dtype(torch.float32, None)
    like = config.get_model({}).diffusion_model.state_dict()
    return _patcher(config, seeded_like(like, seed, norms=0.0))


def inpainting_model(model):
    """SD1.5 with nine input channels."""
    config = {**model.model.model_config.unet_config, "in_channels": 9}
    return _patcher(comfy.supported_models.SD15(config), {})


def flux_model():
    """No UNet at all."""
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": 32,
        "context_in_dim": 32,
        "hidden_size": 32,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [4, 6, 6],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": True,
    } | known_to(comfy.ldm.flux.model.FluxParams, txt_ids_dims=[])
    return _patcher(comfy.supported_models.Flux(config), {})


def random_vae(latent_channels: int):
    """A VAE in TAESD's layout with random weights."""
    network = comfy.taesd.taesd.TAESD(latent_channels=latent_channels)
    return comfy.sd.VAE(sd=seeded_like(network.state_dict(), seed=8))


def _patcher(config, weights, dtype=torch.float32, compute_dtype=None):
    config.set_inference_dtype(dtype, compute_dtype)
    model = config.get_model(weights)
    if weights:
        model.diffusion_model.load_state_dict(weights)
    return make_patcher(model)


def write_flashface(path: Path, **sizes) -> Path:
    """A FlashFace with weights by rule. sizes: of `fresh_checkpoint`; by default three sizes with
    one block each, as narrow as core's group norms allow, and photos smaller than the pictures; the
    golden numbers have the official topology.
    """
    sizes = dict(width=32, multipliers=(1, 2, 2), heads=4, reference_size=64) | sizes
    checkpoint = fresh_checkpoint("small", **sizes)
    shapes = {key: tuple(t.shape) for key, t in published_state_dict(checkpoint).items()}
    rule_tensor = load_tool("rule_weights").rule_tensor
    tensors = ((key, rule_tensor(key, shape)) for key, shape in shapes.items())
    metadata = {"num_heads": str(sizes["heads"])}
    metadata |= {key: str(sizes[key]) for key in ("reference_size", "picture_size") if key in sizes}
    write_safetensors(path, shapes, tensors, torch.float32, metadata)
    return path
