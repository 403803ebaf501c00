"""Folders of ComfyUI's models/ that this pack adds, and the combos over their files."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import folder_paths

SAFETENSORS = (".safetensors", ".sft")  # for files that only this pack's training makes
CHECKPOINTS = (*SAFETENSORS, ".ckpt", ".pt", ".pth", ".bin")
NOTHING = "none"  # what the combo of an empty folder shows
SHIPPED = Path(__file__).resolve().parent.parent / "tiny_models"


def register(folder: str, extensions: Iterable[str]) -> None:
    """models/<folder>, which then exists, beside whatever extra_model_paths.yaml declares for it.

    Last comes what the pack itself ships for it, tiny_models/<folder>, where there is such.
    """
    own_folder = os.path.join(folder_paths.models_dir, folder)
    with contextlib.suppress(OSError):  # where models/ is read-only, files come from elsewhere
        os.makedirs(own_folder, exist_ok=True)
    folder_paths.add_model_folder_path(folder, own_folder)
    if (place := SHIPPED / folder).is_dir():
        folder_paths.add_model_folder_path(folder, str(place))
    # A new name starts without extensions, which would list every file.
    folder_paths.folder_names_and_paths[folder][1].update(extensions)


def files(folder: str) -> list[str]:
    """The values of a combo: the user's files, then those that came with the pack."""
    return [*own(folder), *shipped(folder)] or [NOTHING]


def own(folder: str) -> list[str]:
    """The files that the user has put into models/<folder>, or another place for it."""
    names = folder_paths.get_filename_list(folder)
    return [name for name in names if not _is_shipped(folder, name)]


def shipped(folder: str) -> list[str]:
    """Those of the pack's tiny_models/<folder>, without any whose name a user's file has."""
    return [name for name in folder_paths.get_filename_list(folder) if _is_shipped(folder, name)]


def check(folder: str, names: Iterable[str | None], what: str, advice: str) -> bool | str:
    """For validate_inputs: core's own "value not in list" gives way to a sentence that helps.

    names: None comes over a link and is known when it runs. what: a file is, "saved identity".
    """
    found = folder_paths.get_filename_list(folder)
    missing = [name for name in names if name is not None and name not in found]
    if not missing:
        return True
    pack = str(SHIPPED / folder)  # no place for users' files
    places = " or ".join(path for path in folder_paths.get_folder_paths(folder) if path != pack)
    listed = ", ".join(found) or "nothing"
    return f"there is no {what} {missing[0]!r} among {listed} in {places}: {advice}"


def _is_shipped(folder: str, name: str) -> bool:
    path = folder_paths.get_full_path(folder, name)
    return path is not None and Path(path).is_relative_to(SHIPPED / folder)
