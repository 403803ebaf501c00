"""Folders of ComfyUI's models/ that this pack adds, and the combos over their files."""

import os
from collections.abc import Iterable
from pathlib import Path

import folder_paths

CHECKPOINTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")
NOTHING = "none"  # what the combo of an empty folder shows
SHIPPED = Path(__file__).resolve().parent.parent / "tiny_models"


def register(folder: str, extensions: Iterable[str]) -> None:
    """models/<folder>, beside whatever extra_model_paths.yaml declares for the same name.

    Last comes what the pack itself ships for it, tiny_models/<folder>, where there is such.
    """
    folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
    if _shipped(folder).is_dir():
        folder_paths.add_model_folder_path(folder, str(_shipped(folder)))
    # A new name starts without extensions, which would list every file.
    folder_paths.folder_names_and_paths[folder][1].update(extensions)


def files(folder: str) -> list[str]:
    """The values of a combo: the user's files, then those that came with the pack."""
    names = folder_paths.get_filename_list(folder)
    return sorted(names, key=lambda name: _is_shipped(folder, name)) or [NOTHING]


def check(folder: str, names: Iterable[str | None], what: str, advice: str) -> bool | str:
    """For validate_inputs: core's own "value not in list" gives way to a sentence that helps.

    names: None comes over a link and is known when it runs. what: a file is, "saved identity".
    """
    found = folder_paths.get_filename_list(folder)
    missing = [name for name in names if name is not None and name not in found]
    if not missing:
        return True
    own = str(_shipped(folder))  # no place for users' files
    places = " or ".join(path for path in folder_paths.get_folder_paths(folder) if path != own)
    listed = ", ".join(found) or "nothing"
    return f"there is no {what} {missing[0]!r} among {listed} in {places}: {advice}"


def _shipped(folder: str) -> Path:
    return SHIPPED / folder


def _is_shipped(folder: str, name: str) -> bool:
    path = folder_paths.get_full_path(folder, name)
    return path is not None and Path(path).is_relative_to(_shipped(folder))
