"""Every node of core that patches a MODEL: the settings with which it is tried here on SD1.5, or
the reason why it is not."""

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import comfy.sd
import comfy_extras.nodes_post_processing  # noqa: F401  (newer cores' nodes_latent needs it first)
import torch
from comfy_extras.nodes_latent import LatentOperationSharpen

import nodes

from .control import lora_state
from .models import community_model
from .sampling import prompt


@dataclass(frozen=True)
class Core:
    """settings: those that differ from the defaults. run: options of `Graph.sample` where one step
    does not show what the node does. takes_batches: whether core itself can do three pictures.
    side: latent pixels; larger for nodes that cut, filter or shrink what they are given."""

    settings: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] | None = None
    takes_batches: bool = True
    side: int = 8


def sharpen():
    return LatentOperationSharpen.execute(2, 1.0, 0.5).args[0]


def painted() -> torch.Tensor:
    """A mask of grey steps, for the latent."""
    return torch.linspace(0, 1, 16).expand(1, 16, 16).clone()


LONG = dict(steps=6)
CACHED = Core(dict(reuse_threshold=1000.0, start_percent=0.1), LONG)
TRIED = {
    "APG": Core(dict(eta=0.5, momentum=-0.5)),
    "CFGNorm": Core(),
    "CFGOverride": Core(dict(cfg=3.0)),
    "CFGZeroStar": Core(),
    "ContextWindowsManual": Core(
        dict(
            context_length=12,
            context_overlap=4,
            context_schedule="standard_static",
            fuse_method="pyramid",
            dim=2,
            causal_window_fix=False,
        ),
        takes_batches=False,
        side=16,
    ),
    "DifferentialDiffusion": Core(run=dict(mask=painted), side=16),
    "EasyCache": CACHED,
    "Epsilon Scaling": Core(dict(scaling_factor=1.05)),
    "FreSca": Core(dict(freq_cutoff=5), side=16),
    "FreeU": Core(side=16),
    "FreeU_V2": Core(side=16),
    "HyperTile": Core(dict(tile_size=64), side=16),
    "LatentApplyOperationCFG": Core(dict(operation=sharpen), side=16),
    "LazyCache": CACHED,
    "Mahiro": Core(),
    "ModelMergeSimple": Core(dict(ratio=0.5)),
    "ModelSamplingDiscrete": Core(dict(sampling="v_prediction", zsnr=True)),
    "NAGuidance": Core(),
    "PatchModelAddDownscale": Core(dict(block_number=2, end_percent=1.0), side=16),
    "PerpNeg": Core(dict(empty_conditioning=lambda: prompt(3))),
    "PerturbedAttentionGuidance": Core(),
    "RescaleCFG": Core(),
    "SelfAttentionGuidance": Core(side=16),
    "TCFG": Core(),
    "TemporalScoreRescaling": Core(dict(tsr_k=0.5), takes_batches=False),
    "TomePatchModel": Core(dict(ratio=0.5), side=16),
    "UNetCrossAttentionMultiply": Core(dict(q=1.2, out=0.8)),
    "UNetSelfAttentionMultiply": Core(dict(q=1.2, out=0.8)),
    "UNetTemporalAttentionMultiply": Core(dict(self_structural=1.3, cross_structural=0.8)),
    "VideoLinearCFGGuidance": Core(),
    "VideoTriangleCFGGuidance": Core(),
}
WEIGHTS = "changes weights; test_model_patches.py and test_other_models.py"
ANOTHER_SAMPLING = "a sampling without SD's timesteps, which Apply refuses; test_samplings.py"
DEVICES = "which device or type is used for computing"
OTHER_FAMILY = "for another family of models"
NOT_TRIED = {
    **dict.fromkeys(
        (
            "LoraLoader",
            "LoraLoaderModelOnly",
            "LoraLoaderBypass",
            "LoraLoaderBypassModelOnly",
            "LoraModelLoader",
            "TrainLoraNode",
        ),
        WEIGHTS,
    ),
    **dict.fromkeys(
        (
            "ModelSamplingAuraFlow",
            "ModelSamplingContinuousEDM",
            "ModelSamplingContinuousV",
            "ModelSamplingFlux",
            "ModelSamplingLTXV",
            "ModelSamplingSD3",
            "ModelSamplingStableCascade",
            "ModelNoiseScale",
            "MiniMaxH3SigmaShift",
        ),
        ANOTHER_SAMPLING,
    ),
    **dict.fromkeys(
        ("ModelAttentionBackend", "ModelComputeDtype", "MultiGPU_WorkUnits", "SelectModelDevice"),
        DEVICES,
    ),
    **dict.fromkeys(
        (
            "ARVideoI2V",
            "AnimaLLLiteApply",
            "ChromaRadianceOptions",
            "FluxKVCache",
            "HiDreamO1PatchSeamSmoothing",
            "LTXVContextWindows",
            "LTXVModalityGuidance",
            "LTXVReferenceAudio",
            "LTXVSpatioTemporalGuidance",
            "QwenImageDiffsynthControlnet",
            "RenormCFG",
            "SUPIRApply",
            "ScaleROPE",
            "SkipLayerGuidanceDiT",
            "SkipLayerGuidanceDiTSimple",
            "SkipLayerGuidanceSD3",
            "TripoSplatSamplingPreview",
            "USOStyleReference",
            "WanAnimate2Cache",
            "WanContextWindowsManual",
            "WanInfiniteTalkToVideo",
            "WanUni3CControlnetApply",
            "ZImageFunControlnet",
            "wanBlockSwap",
        ),
        OTHER_FAMILY,
    ),
    "HypernetworkLoader": "needs a file; its patch of keys and values looks at no row",
    "TorchCompileModel": "test_compiled.py",
}


@cache
def classes() -> dict[str, type]:
    """Core's nodes by id that take a MODEL and return one."""
    asyncio.run(nodes.init_builtin_extra_nodes())
    return {
        name: node
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        if "MODEL" in node.RETURN_TYPES and "MODEL" in _types(node)
    }


def reason(name: str) -> str | None:
    """Why a node is not tried."""
    if name.startswith("ModelMerge") and name not in TRIED:
        return WEIGHTS
    return NOT_TRIED.get(name)


def _inputs(node) -> dict[str, tuple]:
    inputs = node.INPUT_TYPES()
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def _types(node) -> list:
    return [kind if isinstance(kind, str) else "COMBO" for kind, *_ in _inputs(node).values()]


def patch(name: str, model):
    """MODEL with a node of TRIED."""
    node, settings = classes()[name], TRIED[name].settings
    arguments = {}
    for key, (kind, *options) in _inputs(node).items():
        given = settings.get(key)
        if kind == "MODEL":
            arguments[key] = model
        elif given is not None:
            arguments[key] = given() if callable(given) else given
        else:
            default = options[0] if options else {}
            choices = default.get("options") if isinstance(kind, str) else kind
            arguments[key] = default["default"] if "default" in default else choices[0]
    if name == "ModelMergeSimple":
        arguments["model2"] = community_model(model, 31)
    with tensors_listed_once(model):
        result = getattr(node(), node.FUNCTION)(**arguments)
    return getattr(result, "args", result)[0]  # a new or an old node's output


@contextmanager
def tensors_listed_once(model):
    """Core's nodes that patch weights ask the network for the list of all of its tensors anew for
    every one of them, which takes longer than a picture does. Nothing changes them meanwhile."""
    network, listed = model.model, model.model.state_dict()
    network.state_dict = listed.copy
    try:
        yield
    finally:
        del network.state_dict


def bypass_lora(model):
    """MODEL as LoraLoaderBypass makes it: the LoRA beside the weights, not in them."""
    state = lora_state(model, "")
    return comfy.sd.load_bypass_lora_for_models(model, None, state, 0.5, 0)[0]
