"""ComfyUI's modules for a training process, which no server started."""

import os
import sys
from pathlib import Path

import torch

PRIVATE = Path(__file__).resolve().parent.parent / ".comfy" / "ComfyUI"


def find_comfyui(cpu: bool = False) -> None:
    """Put ComfyUI on the path, from $COMFYUI_PATH or the private one; call before importing it.

    cpu: also where there is a GPU. Exits with a sentence when there is no ComfyUI.
    """
    folder = Path(os.environ.get("COMFYUI_PATH") or PRIVATE)
    if not (folder / "comfy").is_dir():
        sys.exit(
            f"{folder} is not a ComfyUI; set COMFYUI_PATH, or run python tools/comfy.py test once."
        )
    # First: the pack's own nodes/ would hide ComfyUI's nodes module.
    sys.path.insert(0, str(folder))
    gpus = (torch.cuda, torch.backends.mps, torch.xpu)
    is_cpu = cpu or not any(gpu.is_available() for gpu in gpus)
    arguments, sys.argv = sys.argv, [sys.argv[0], *(["--cpu"] if is_cpu else [])]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401  (reads the arguments)

    sys.argv = arguments
