"""Folders of ComfyUI's models/ that this pack adds, and the combos over their files."""

import os
from collections.abc import Iterable

import folder_paths

CHECKPOINTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")
NOTHING = "none"  # what the combo of an empty folder shows


def register(folder: str, extensions: Iterable[str]) -> None:
    """models/<folder>, beside whatever extra_model_paths.yaml declares for the same name."""
    folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
    # A new name starts without extensions, which would list every file.
    folder_paths.folder_names_and_paths[folder][1].update(extensions)


def files(folder: str) -> list[str]:
    """The values of a combo."""
    return folder_paths.get_filename_list(folder) or [NOTHING]


def check(folder: str, names: Iterable[str | None], what: str, advice: str) -> bool | str:
    """For validate_inputs: core's own "value not in list" gives way to a sentence that helps.

    names: None comes over a link and is known when it runs. what: a file is, "saved identity".
    """
    found = folder_paths.get_filename_list(folder)
    missing = [name for name in names if name is not None and name not in found]
    if not missing:
        return True
    places = " or ".join(folder_paths.get_folder_paths(folder))
    listed = ", ".join(found) or "nothing"
    return f"there is no {what} {missing[0]!r} among {listed} in {places}: {advice}"
