"""The golden files: numbers from the official implementation (tests/golden/README.md)."""

import os
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent / "golden"
FOLDER = Path(os.environ.get("FLASHFACE_GOLDEN_DIR") or ROOT)
SYSTEM = "flashface"


class GoldenFile(NamedTuple):
    path: Path
    metadata: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def is_full_width(self) -> bool:
        return self.metadata.get("topology") == "sd15" and self.metadata.get("weights") == "rule"

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path)


def golden_files(system: str = SYSTEM) -> list[GoldenFile]:
    """Every file of a system, wherever it lies in the folder."""
    files = []
    for path in sorted(FOLDER.rglob("*.safetensors")):
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("system") == system:
            files.append(GoldenFile(path, metadata))
    return files
