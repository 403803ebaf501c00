"""A FlashFace checkpoint: key names to parts, parts to topology. No tensor is computed here.

The published layout is the state dict of the official RefStableUNet (FLASHFACE.md section 1).
Depth, width and attention sites follow from the keys; nothing of SD1.5's shape is typed in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import FlashFaceError
from ..sites import Site, levels_of, site_depths
from ..weights_file import shorten

ALIASES = {"encoder": "ori_encoder", "middle": "ori_middle", "decoder": "ori_decoder"}
# ref_middle was never run (FLASHFACE.md D1): the ReferenceNet uses the target's middle.
NEVER_RUN = "ref_middle"
SHARED = ("time_embedding", "head")
TARGET = ("ori_encoder", "ori_middle", "ori_decoder")
REFERENCE = ("ref_encoder", "ref_decoder")

RESIDUAL = {
    "layer1.0": "in_layers.0",
    "layer1.2": "in_layers.2",
    "embedding.1": "emb_layers.1",
    "layer2.0": "out_layers.0",
    "layer2.3": "out_layers.3",
    "shortcut": "skip_connection",
}
TRANSFORMER_SITE = {"norm1": "norm", "conv1": "proj_in", "conv2": "proj_out"}
TRANSFORMER_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "ffn.0.proj": "ff.net.0.proj",
    "ffn.2": "ff.net.2",
    **{f"self_attn.{p}": f"attn1.to_{p}" for p in "qkv"},
    **{f"cross_attn.{p}": f"attn2.to_{p}" for p in "qkv"},
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
}
_OFFICIAL_LAYER = {ours: name for name, ours in (RESIDUAL | TRANSFORMER_SITE).items()}
_OFFICIAL_BLOCK = {ours: name for name, ours in TRANSFORMER_BLOCK.items()}
BLOCKS = {"encoder": "input_blocks", "middle": "middle_block", "decoder": "output_blocks"}
REFERENCE_ATTENTION = "self_attn.self_attn_first."


@dataclass
class Checkpoint:
    """The parts of one file, under the names of the modules that load them.

    target, reference: ComfyUI UNet keys, both with four input channels; reference_attention:
    per site q/k/v/o; position: (C, 1, 3, 3), the fifth input channel of the target.
    heads: of every attention; reference_size, picture_size: pixels the network was trained on.
    """

    name: str
    target: dict[str, torch.Tensor] = field(default_factory=dict)
    reference: dict[str, torch.Tensor] = field(default_factory=dict)
    reference_attention: dict[Site, dict[str, torch.Tensor]] = field(default_factory=dict)
    position: torch.Tensor | None = None
    heads: int = 8
    reference_size: int = 224
    picture_size: int = 768


def read_checkpoint(
    name: str, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> Checkpoint:
    """Sort the tensors of a published or converted file into the parts of a Checkpoint.

    Raises FlashFaceError naming the file and what is missing or unexpected.
    """
    _check_kind(name, state)
    checkpoint = Checkpoint(
        name,
        heads=_number(metadata, "num_heads", 8),
        reference_size=_number(metadata, "reference_size", 224),
        picture_size=_number(metadata, "picture_size", 768),
    )
    unexpected = []
    for key, group, rest in used_keys(state):
        tensor = state[key]
        if group == "ori_encoder" and rest == "0.weight":
            checkpoint.position = tensor[:, 4:5]
            tensor = tensor[:, :4]
        if REFERENCE_ATTENTION in rest:
            site, part = _reference_attention_key(group, rest)
            checkpoint.reference_attention.setdefault(site, {})[part] = tensor
            continue
        renamed = unet_key(group, rest)
        if renamed is None:
            unexpected.append(key)
            continue
        if group in (*SHARED, *TARGET):
            checkpoint.target[renamed] = tensor
        # The ReferenceNet's middle is the target's own.
        if group in (*SHARED, *REFERENCE, "ori_middle"):
            checkpoint.reference[renamed] = tensor
    if unexpected:
        raise FlashFaceError(f"{name} has keys that FlashFace does not: {shorten(unexpected)}.")
    _check_sites(checkpoint)
    return checkpoint


def _check_sites(checkpoint: Checkpoint) -> None:
    """Every attention site of middle and decoder is whole in both networks, and has RA."""
    pattern = re.compile(
        r"((?:middle_block|output_blocks)\..+)\.(?:proj_in|transformer_blocks)\..+"
    )
    with_attention = {
        match[1]
        for part in (checkpoint.target, checkpoint.reference)
        for key in part
        if (match := pattern.fullmatch(key))
    }
    reference_attention = {
        "middle_block.1" if site[0] == "middle" else f"output_blocks.{site[1]}.1"
        for site in checkpoint.reference_attention
    }
    missing = with_attention ^ reference_attention
    for part in (checkpoint.target, checkpoint.reference):
        whole = {key.partition(".transformer_blocks.")[0] for key in part if ".attn1.to_q" in key}
        missing |= with_attention - whole
    if missing:
        raise FlashFaceError(
            f"{checkpoint.name} is incomplete: attention is missing in parts at "
            f"{shorten(missing)}. Download it again, or convert it again."
        )


def used_keys(state: Mapping[str, torch.Tensor]):
    """(key in the file, group, rest) of every tensor that is used, without aliases."""
    has_originals = any(key.startswith("ori_") for key in state)
    for key in state:
        group, _, rest = key.partition(".")
        if group == NEVER_RUN or (group in ALIASES and has_originals):
            continue
        yield key, ALIASES.get(group, group), rest


def unet_key(group: str, rest: str) -> str | None:
    """One official key as ComfyUI's UNetModel names it; None for an unknown key."""
    path, _, tensor = rest.rpartition(".")
    if group == "time_embedding":
        return f"time_embed.{rest}"
    if group == "head":
        return f"out.{rest}"
    part = group.rpartition("_")[2]
    if part not in BLOCKS or tensor not in ("weight", "bias"):
        return None
    if part == "middle":
        index, _, inner = path.partition(".")
        return _inner_key(f"middle_block.{index}", inner, tensor)
    block, _, inner = path.partition(".")
    prefix = f"{BLOCKS[part]}.{block}"
    if not inner:  # the input convolution, or a downsampling one
        return f"{prefix}.0.{tensor}" if block == "0" else f"{prefix}.0.op.{tensor}"
    index, _, inner = inner.partition(".")
    if inner == "1" and part == "decoder":  # an upsampling convolution
        return f"{prefix}.{index}.conv.{tensor}"
    return _inner_key(f"{prefix}.{index}", inner, tensor)


def _inner_key(prefix: str, inner: str, tensor: str) -> str | None:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", inner):
        depth, inner = match.groups()
        renamed = TRANSFORMER_BLOCK.get(inner)
        return renamed and f"{prefix}.transformer_blocks.{depth}.{renamed}.{tensor}"
    renamed = RESIDUAL.get(inner) or TRANSFORMER_SITE.get(inner)
    return renamed and f"{prefix}.{renamed}.{tensor}"


def _reference_attention_key(group: str, rest: str) -> tuple[Site, str]:
    """ori_decoder, 3.1.blocks.0.self_attn.self_attn_first.q.weight -> ("output", 3, 0), q.weight"""
    path, part = rest.split(REFERENCE_ATTENTION)
    numbers = [int(n) for n in re.findall(r"\d+", path)]
    if group == "ori_middle":
        return ("middle", 0, numbers[-1]), part
    return ("output", numbers[0], numbers[-1]), part


def published_state_dict(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The parts under their official names: what read_checkpoint reads, for writing a file.

    The target's middle, time embedding and head are the ones written; the ReferenceNet's copies
    of them are left out.
    """
    state = {}
    for key, tensor in checkpoint.target.items():
        if key == "input_blocks.0.0.weight" and checkpoint.position is not None:
            tensor = torch.cat([tensor, checkpoint.position.to(tensor)], 1)
        state[_published_key(key, "ori_")] = tensor
    for key, tensor in checkpoint.reference.items():
        if key.startswith(("input_blocks.", "output_blocks.")):
            state[_published_key(key, "ref_")] = tensor
    for (part, block, depth), tensors in checkpoint.reference_attention.items():
        path = "ori_middle.1" if part == "middle" else f"ori_decoder.{block}.1"
        for key, tensor in tensors.items():
            state[f"{path}.blocks.{depth}.{REFERENCE_ATTENTION}{key}"] = tensor
    return state


def _published_key(key: str, prefix: str) -> str:
    """The inverse of unet_key."""
    path, _, tensor = key.rpartition(".")
    for ours, official in (("time_embed.", "time_embedding."), ("out.", "head.")):
        if key.startswith(ours):
            return official + key.removeprefix(ours)
    part = next(part for part, blocks in BLOCKS.items() if path.startswith(f"{blocks}."))
    path = path.removeprefix(f"{BLOCKS[part]}.")
    if path == "0.0":
        return f"{prefix}{part}.0.{tensor}"
    if path.endswith(".0.op"):
        return f"{prefix}{part}.{path.removesuffix('.0.op')}.{tensor}"
    if path.endswith(".conv"):
        return f"{prefix}{part}.{path.removesuffix('.conv')}.1.{tensor}"
    if match := re.fullmatch(r"(.+)\.transformer_blocks\.(\d+)\.(.+)", path):
        site, depth, inner = match.groups()
        return f"{prefix}{part}.{site}.blocks.{depth}.{_OFFICIAL_BLOCK[inner]}.{tensor}"
    inner = path.lstrip("0123456789.")
    return f"{prefix}{part}.{path.removesuffix(inner)}{_OFFICIAL_LAYER[inner]}.{tensor}"


def site_levels(checkpoint: Checkpoint) -> dict[Site, str]:
    """The level of every site, in the order in which a forward pass meets them."""
    return levels_of(site_depths(checkpoint.reference_attention, checkpoint.target))


def _check_kind(name: str, state: Mapping[str, torch.Tensor]) -> None:
    groups = {key.partition(".")[0] for key in state}
    if "model" in groups or "input_blocks" in groups or "down_blocks" in groups:
        raise FlashFaceError(
            f"{name} is a Stable Diffusion checkpoint without FlashFace's networks "
            f"(keys like {shorten(state)}); load it with core's checkpoint loader, and put "
            "flashface.ckpt or its converted safetensors here."
        )
    known = {*SHARED, *TARGET, *REFERENCE, *ALIASES, NEVER_RUN}
    missing = {*SHARED, *REFERENCE}.difference(groups)
    missing |= {group for alias, group in ALIASES.items() if not groups & {alias, group}}
    if missing or not groups <= known:
        raise FlashFaceError(
            f"{name} is not a whole FlashFace checkpoint: expected groups "
            f"{', '.join((*SHARED, *TARGET, *REFERENCE))}; missing {shorten(missing)}, "
            f"unexpected {shorten(groups - known)}."
        )
    first = state.get("ori_encoder.0.weight", state.get("encoder.0.weight"))
    if first is None or first.ndim != 4 or first.shape[1] != 5:
        found = "no tensor" if first is None else tuple(first.shape)
        raise FlashFaceError(
            f"{name}: the target's first convolution is {found}, expected five input channels "
            "(latent and face position)."
        )
    if not any(REFERENCE_ATTENTION in key for key in state):
        raise FlashFaceError(f"{name} has no reference attention (keys *.self_attn_first.*).")


def _number(metadata: Mapping[str, str], key: str, default: int) -> int:
    text = metadata.get(key, str(default))
    if not text.isdecimal() or int(text) == 0:
        raise FlashFaceError(f"The file's metadata says {key} = {text!r}, expected a number.")
    return int(text)
