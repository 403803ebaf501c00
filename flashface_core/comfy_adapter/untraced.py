"""What the patches do inside of the UNet, kept out of the graphs that torch.compile makes of it.

Core's compile node drops every guard on transformer_options, so whatever a patch reads there while
the UNet is traced (numbers, who sees what, whether there is anything at all) stays in the graph for
other people, strengths and steps; and a graph break bakes in which block it is. So a patch hands
its tensors to one operator, into which the tracer does not look, and which finds the data of the
UNet call that it runs in when it runs.
"""

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

# Tensors and the extra_options of one place in the UNet to a tensor like the first one.
Action = Callable[[Sequence[torch.Tensor], dict[str, Any]], torch.Tensor]

OWN_FORWARDS = {"forward", "_forward"}  # of one module, where another pack has put it
ACTIONS = "flashface_actions"  # in transformer_options: Action by name

_running = threading.local()  # .options: transformer_options of this thread's UNet call
_operator: Any = None  # made by the first run
_library: Any = None  # an operator lives as long as its library


def run_action(
    name: str, action: Action, tensors: Sequence[torch.Tensor], extra_options: dict[str, Any]
) -> torch.Tensor:
    """action(tensors, extra_options); while torch.compile traces, as an operator of the graph that
    looks up `name` in the call's ACTIONS."""
    if not torch.compiler.is_compiling():
        return action(tensors, extra_options)
    part, index = extra_options["block"]
    numbers = [
        index,
        extra_options.get("block_index", 0),
        extra_options.get("n_heads", 0),
        extra_options.get("dim_head", 0),
        *extra_options.get("activations_shape", ()),
    ]
    return _operator(list(tensors), name, part, numbers)


@contextmanager
def _running_with(options: dict[str, Any]):
    """The transformer_options of the UNet call inside."""
    outer = getattr(_running, "options", None)
    _running.options = options
    try:
        yield
    finally:
        _running.options = outer


def with_actions(options: dict[str, Any], actions: Mapping[str, Action]) -> dict[str, Any]:
    return {**options, ACTIONS: {**options.get(ACTIONS, {}), **actions}}


def make_announcement(actions: Mapping[str, Action]):
    """APPLY_MODEL wrapper for actions of patches that are always there."""

    def announce(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        options = with_actions(transformer_options, actions)
        return call_unet(executor, x, t, c_concat, c_crossattn, control, options, **kwargs)

    return announce


def call_unet(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    """What an APPLY_MODEL wrapper of ours ends with, so that actions find transformer_options."""
    options = transformer_options
    marks = _graph_marks(executor.class_obj, options)
    with _running_with(options):
        return executor(x, t, c_concat, c_crossattn, control, options, **(kwargs | marks))


def _graph_marks(model: "BaseModel", options: dict[str, Any]) -> dict[str, bool]:
    """Arguments of the UNet that keep graphs for other patches from fitting this call.

    {} where no graphs are made. The UNet takes and ignores them.
    """
    _define_operator()  # also for packs that compile single blocks
    if not _is_compiled(model, options):
        return {}
    return {f"{name}_in_graph": True for name in options.get(ACTIONS, {})}


def _is_compiled(model: "BaseModel", options: dict[str, Any]) -> bool:
    """Whether torch.compile has the whole UNet, by core's node or by another pack's."""
    by_core = COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    unet = plain_unet(model)
    return by_core or unet is not model.diffusion_model or _has_compiled_forward(unet)


def _has_compiled_forward(module: torch.nn.Module) -> bool:
    forwards = (vars(module).get(name) for name in OWN_FORWARDS)
    return any(hasattr(forward, "_torchdynamo_orig_callable") for forward in forwards)


@contextmanager
def uncompiled(unet: torch.nn.Module):
    """A UNet of which another pack has compiled forwards runs without them, for a pass of our own:
    there operators would find no transformer_options."""
    if any(_has_compiled_forward(module) for module in unet.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def plain_unet(model: "BaseModel") -> Any:
    """The UNet of a BaseModel, without what torch.compile may have put around it."""
    return getattr(model.diffusion_model, "_orig_mod", model.diffusion_model)


def _run(tensors: list[torch.Tensor], name: str, part: str, numbers: list[int]) -> torch.Tensor:
    options = _running.options
    index, depth, heads, width, *shape = numbers
    place = {
        "block": (part, index),
        "block_index": depth,
        "n_heads": heads,
        "dim_head": width,
        "activations_shape": shape,
    }
    out = options[ACTIONS][name](tensors, {**options, **place})
    out = out.to(tensors[0].dtype).contiguous()
    # An operator's result is never one of its arguments.
    return out.clone() if any(out.data_ptr() == t.data_ptr() for t in tensors) else out


def _like_the_first(tensors, name, part, numbers):
    return torch.empty_like(tensors[0], memory_format=torch.contiguous_format)


def _define_operator() -> None:
    global _operator, _library
    if _operator is not None:
        return
    # A name of this module's own: a second copy of the pack has another _running.
    namespace = f"flashface_{zlib.crc32(__name__.encode())}"
    _library = torch.library.Library(namespace, "FRAGMENT")
    unsafe = getattr(torch.Tag, "cudagraph_unsafe", None)  # what it reads changes between calls
    signature = "run(Tensor[] tensors, str name, str part, SymInt[] numbers) -> Tensor"
    _library.define(signature, tags=() if unsafe is None else (unsafe,))
    _library.impl("run", _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{namespace}::run", _like_the_first, lib=_library)
    _operator = getattr(torch.ops, namespace).run.default
