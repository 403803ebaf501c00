"""Calls of core whose arguments have grown from release to release, as each signature asks."""

import inspect
from collections.abc import Callable

import comfyui_version
from comfy_extras.nodes_context_windows import ContextWindowsManualNode


def known_to(function: Callable, **newer) -> dict:
    """Those of the newer arguments that this core's function takes."""
    return {name: newer[name] for name in newer if name in inspect.signature(function).parameters}


def context_windows(model, length: int, overlap: int, dim: int):
    """MODEL in windows of `length` along `dim`, and nothing of what newer cores add to them.

    causal_window_fix would put a slice of the picture before every later window.
    """
    execute = ContextWindowsManualNode.execute
    newer = known_to(execute, freenoise=False, causal_window_fix=False)
    settings = (length, overlap, "standard_static", 1, False, "pyramid", dim)
    return execute(model, *settings, **newer).args[0]


def core_version() -> tuple[int, ...]:
    return tuple(int(part) for part in comfyui_version.__version__.split(".") if part.isdigit())
