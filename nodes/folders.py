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
    missing = [name for name in names if name is not None and _listed(folder, name) is None]
    if not missing:
        return True
    places = " or ".join(map(str, users_places(folder)))
    listed = ", ".join(found) or "nothing"
    return f"there is no {what} {missing[0]!r} among {listed} in {places}: {advice}"


def path(folder: str, name: str) -> str:
    """Of a file that `check` has found; raises as core does for one that is gone."""
    return folder_paths.get_full_path_or_raise(folder, _listed(folder, name) or name)


def users_places(folder: str) -> list[Path]:
    """Where users' files lie, in the order in which they are found: not in the pack itself."""
    places = map(Path, folder_paths.get_folder_paths(folder))
    return [place for place in places if place != SHIPPED / folder]


def _listed(folder: str, name: str) -> str | None:
    """As this system writes it: a workflow from Windows has another separator in it."""
    found = folder_paths.get_filename_list(folder)
    if name in found or not isinstance(name, str):
        return name if name in found else None
    plain = name.replace("\\", "/")
    return next((one for one in found if one.replace("\\", "/") == plain), None)


def _is_shipped(folder: str, name: str) -> bool:
    path = folder_paths.get_full_path(folder, name)
    return path is not None and Path(path).is_relative_to(SHIPPED / folder)
