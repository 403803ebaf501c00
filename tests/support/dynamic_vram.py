"""DynamicVRAM of newer cores; where there is no GPU, as far as it runs without one."""

from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import pytest


def has_dynamic_vram() -> str:
    """Why this core has none; empty where it has."""
    if not hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
        return "this core has no DynamicVRAM"
    from comfy_aimdo import host_buffer  # pyright: ignore[reportMissingImports]

    return "" if host_buffer.lib is not None else "comfy-aimdo does not run here"


@contextmanager
def lazy_modules():
    """Core's flag: its modules get their weights when they are loaded."""
    if reason := has_dynamic_vram():
        pytest.skip(reason)
    import comfy.memory_management as memory  # pyright: ignore[reportMissingImports]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "aimdo_enabled", True)
        yield


@contextmanager
def without_dynamic_vram():
    """Also where conftest.py has enabled it."""
    with pytest.MonkeyPatch.context() as patch:
        if not has_dynamic_vram():
            import comfy.memory_management as memory  # pyright: ignore[reportMissingImports]

            patch.setattr(memory, "aimdo_enabled", False)
            plain = comfy.model_patcher.ModelPatcher
            patch.setattr(comfy.model_patcher, "CoreModelPatcher", plain, raising=False)
        yield


@contextmanager
def dynamic_vram():
    """The flag, and the patcher that goes with it.

    That patcher gives way to the ordinary one where the device is the CPU; here it does not. It
    has no virtual memory there: weights are cast at use, and there is nothing to unload.
    """
    with lazy_modules(), pytest.MonkeyPatch.context() as patch:
        dynamic = comfy.model_patcher.ModelPatcherDynamic  # pyright: ignore
        if comfy.model_patcher.CoreModelPatcher is dynamic:  # on a GPU; see conftest.py
            yield
            return
        patch.setattr(dynamic, "__new__", lambda cls, *args, **kwargs: object.__new__(cls))
        patch.setattr(dynamic, "partially_unload", lambda self, *_: self.restore_loaded_backups())
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", dynamic)
        try:
            yield
        finally:
            comfy.model_management.unload_all_models()
