"""The tests run inside the real ComfyUI, with this repository loaded as a custom node pack."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

# Before torch: or numbers follow from where in memory a tensor happens to lie, on some CPUs.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

ROOT = Path(__file__).resolve().parent.parent
PACK = "flashface_pack"


def _start_comfyui() -> None:
    """Real ComfyUI in this process, on the CPU unless FLASHFACE_TEST_DEVICE says otherwise."""
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui or not Path(comfyui, "comfy").is_dir():
        raise pytest.UsageError("COMFYUI_PATH names no ComfyUI; run: python tools/comfy.py test")
    sys.path.insert(0, comfyui)
    base = tempfile.mkdtemp(prefix="flashface-tests-")
    argv, sys.argv = sys.argv, ["main.py", "--base-directory", base]
    if os.environ.get("FLASHFACE_TEST_DEVICE", "cpu") == "cpu":
        sys.argv.append("--cpu")
    import comfy.options

    _start_dynamic_vram()
    comfy.options.enable_args_parsing()
    import comfy.model_management  # noqa: F401  (reads the arguments)
    import torch

    # What is written out in tests is compared to the last digits, which TF32 does not have.
    torch.backends.cudnn.allow_tf32 = False
    sys.argv = argv
    _enable_dynamic_vram()


def _start_dynamic_vram() -> None:
    """Newer cores' memory library, as their main.py starts it: before the modules that use it.

    Without a GPU it runs far enough for the patchers that are made of it.
    """
    if importlib.util.find_spec("comfy_aimdo") is not None:
        import comfy_aimdo.control  # pyright: ignore[reportMissingImports]

        comfy_aimdo.control.init()


def _enable_dynamic_vram() -> None:
    """What newer cores' main.py does next where there is an NVIDIA GPU."""
    import comfy.model_management as management
    import comfy.model_patcher as patchers

    dynamic = getattr(patchers, "ModelPatcherDynamic", None)
    if dynamic is None or not management.is_nvidia():
        return
    import comfy.memory_management as memory  # pyright: ignore[reportMissingImports]
    import comfy_aimdo.control  # pyright: ignore[reportMissingImports]

    indexes = [device.index for device in management.get_all_torch_devices()]
    try:
        is_working = comfy_aimdo.control.init_devices((index, 0) for index in indexes)
    except TypeError:  # before 0.4.10
        is_working = comfy_aimdo.control.init_devices(indexes)
    if is_working:
        patchers.CoreModelPatcher = dynamic
        memory.aimdo_enabled = True


def _load_pack() -> None:
    """As ComfyUI does: from its folder, under a name of its own, so that imports are relative."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


_start_comfyui()
_load_pack()
