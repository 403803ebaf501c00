"""Everything that a MODEL consists of, for comparing before and after."""

import dataclasses
import types
from typing import Any

import torch

PARTS = (
    "patches",
    "object_patches",
    "model_options",
    "wrappers",
    "callbacks",
    "attachments",
    "additional_models",
    "injections",
    "hook_patches",
    "weight_wrapper_patches",
)


def snapshot(model) -> dict[str, Any]:
    """Weights by value; containers by content; functions, modules and other objects by identity."""
    return {part: _plain(getattr(model, part)) for part in PARTS} | {
        "weights": {key: value.clone() for key, value in model.model_state_dict().items()},
        "patches_uuid": model.patches_uuid,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [type(value), *map(_plain, value)]
    if isinstance(value, types.FunctionType):
        cells = [_plain(cell.cell_contents) for cell in value.__closure__ or ()]
        return [id(value), cells]
    if isinstance(value, torch.Tensor):
        return [id(value), value.clone()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return [id(value), inner]
    if isinstance(value, str | int | float | bool | bytes | type(None)):
        return value
    return id(value)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a.cpu(), b.cpu())  # core moves weights between devices
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def differences(a: dict, b: dict) -> list[str]:
    """Names of the parts that differ."""
    return [part for part in a if not same(a[part], b[part])]


def containers(model) -> dict[int, str]:
    """Every dict, list and set that the MODEL holds, by identity, and where it was found."""
    found: dict[int, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict | list | set):
            found[id(value)] = path
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                walk(inner, f"{path}.{key}")

    for part in PARTS:
        walk(getattr(model, part), part)
    return found
