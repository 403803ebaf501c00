"""One person as one safetensors file: everything that a FACE_IDENTITY holds, and nothing else."""

import datetime
import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..errors import FlashFaceError
from ..weights_file import read_state_dict, save_whole
from .identity import FaceReference, Identity
from .place import Place

FORMAT, VERSION = "flashface identity", 1
EXTENSION = ".safetensors"
MASK = "place.mask"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def save_identity(
    identity: Identity, folder: Path, filename: str, places: Sequence[Path] = ()
) -> Path:
    """Write under `filename` (its name if empty) and return where; nothing is overwritten.

    A file of the same identity is left as it is; where the name belongs to another one, a number is
    added. filename: may lie in a folder below `folder`. places: all folders that are read, in this
    order; where `folder` cannot be written, the first of them that can takes the file. Raises
    FlashFaceError for a name that leads out of the folder or is not a name, and for an identity
    without photos.
    """
    if not identity.references:
        raise FlashFaceError("The identity has no photo left (0 references); nothing was saved.")
    wanted = _name(folder, filename.strip() or identity.name.strip())
    tensors, metadata = identity_tensors(identity)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    name, number = wanted, 1
    while True:
        # The first place that has a name hides it in the others.
        if found := _first(places or [folder], name):
            if _holds(found, tensors, metadata):
                return found
            number += 1
            name = wanted.with_name(f"{wanted.stem}_{number}{EXTENSION}")
            continue
        with suppress(FileExistsError):  # another server was faster
            return _write([folder, *places], name, tensors, {**metadata, "saved": now})


def _write(
    places: Sequence[Path], name: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> Path:
    """Where it could be written. Raises FileExistsError where the name is taken."""
    refusals = []
    for place in dict.fromkeys(places):
        try:
            _make_folder((place / name).parent)
            save_whole(tensors, place / name, metadata, replace=False)
            return place / name
        except FileExistsError:
            raise
        except OSError as error:
            refusals.append(error)
            if error.errno not in UNWRITABLE:
                raise FlashFaceError(
                    f"{place / name} cannot be written ({error}); use another filename, or make "
                    "room there."
                ) from error
    raise FlashFaceError(
        f"{places[0] / name} cannot be written ({refusals[0]}); make its folder writable, or name "
        "another folder for identities in extra_model_paths.yaml."
    ) from refusals[0]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which is kept for the name of the file itself
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _first(places: Sequence[Path], name: Path) -> Path | None:
    return next((place / name for place in places if os.path.exists(place / name)), None)


def load_identity(path: str | Path) -> Identity:
    """Raises FlashFaceError for a file that is damaged, of a later version, or something else."""
    path = Path(path)
    tensors, metadata = read_state_dict(path)
    if metadata.get("format") != FORMAT:
        raise FlashFaceError(
            f"{path.name} is not a saved identity (format {metadata.get('format', 'unknown')!r}, "
            f"expected {FORMAT!r}); choose a file that FlashFace Identity Save wrote."
        )
    version = metadata.get("version", "")
    if version != str(VERSION):
        raise FlashFaceError(
            f"{path.name} is a saved identity of version {version or 'unknown'}, this pack reads "
            f"version {VERSION}; update the pack, or save the identity again with this one."
        )
    try:
        return _identity(tensors, json.loads(metadata["identity"]))
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise FlashFaceError(
            f"{path.name} is a damaged identity ({type(error).__name__}: {error}); copy it again, "
            "or make it again from the photos."
        ) from error


def identity_tensors(identity: Identity) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What is written: crops, boxes, key points and aligned faces as tensors; weights, hashes, name
    and place as JSON in the metadata."""
    tensors: dict[str, torch.Tensor] = {}
    photos = []
    for number, reference in enumerate(identity.references):
        tensors[f"photo.{number}.crop"] = reference.crop
        for part in ("points", "aligned"):
            if (tensor := getattr(reference, part)) is not None:
                tensors[f"photo.{number}.{part}"] = torch.as_tensor(tensor).contiguous()
        box = None if reference.box is None else [float(value) for value in reference.box]
        photos.append({"weight": reference.weight, "content": reference.content, "box": box})
    described: dict[str, Any] = {
        "name": identity.name,
        "as_four_photos": identity.as_four_photos,
        "photos": photos,
    }
    if (place := identity.place) is not None:
        described["place"] = {
            "box": list(place.box),
            "strength": place.strength,
            "inside_region": place.inside_region,
            "has_mask": place.mask is not None,
        }
        if place.mask is not None:
            tensors[MASK] = place.mask.contiguous()
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "saved_by": "FlashFace for ComfyUI, FlashFaceIdentitySave",
        "identity": json.dumps(described),
    }
    # One photo may be in it twice, as after mixing a person with a mix of the same.
    return {name: tensor.clone() for name, tensor in tensors.items()}, metadata


def _identity(tensors: Mapping[str, torch.Tensor], described: dict[str, Any]) -> Identity:
    references = []
    for number, photo in enumerate(described["photos"]):
        crop = _tensor(tensors, f"photo.{number}.crop", torch.uint8, (None, None, 3))
        found: dict[str, Any] = {"box": None if photo["box"] is None else tuple(photo["box"])}
        if f"photo.{number}.points" in tensors:
            found["points"] = _tensor(tensors, f"photo.{number}.points", None, (5, 2))
        if f"photo.{number}.aligned" in tensors:
            name = f"photo.{number}.aligned"
            found["aligned"] = _tensor(tensors, name, torch.uint8, (112, 112, 3))
        reference = FaceReference.from_crop(crop, float(photo["weight"]), **found)
        if reference.content != photo["content"]:
            raise ValueError(f"the pixels of photo {number} are not those that were saved")
        references.append(reference)
    if not references:
        raise ValueError("it holds no photo")
    place = _place(tensors, described["place"]) if "place" in described else None
    name, as_four_photos = str(described["name"]), bool(described["as_four_photos"])
    return Identity(tuple(references), name, as_four_photos, place)


def _place(tensors: Mapping[str, torch.Tensor], described: dict[str, Any]) -> Place:
    mask = None
    if described["has_mask"]:
        mask = _tensor(tensors, MASK, torch.bool, (None, None, None))
    x, y, width, height = (float(value) for value in described["box"])
    strength, inside = float(described["strength"]), bool(described["inside_region"])
    return Place((x, y, width, height), mask, strength, inside)


def _tensor(tensors, name: str, dtype, shape: tuple[int | None, ...]) -> torch.Tensor:
    tensor = tensors[name]
    fits = len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
    )
    if not fits or (dtype is not None and tensor.dtype != dtype) or not tensor.numel():
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")
    return tensor.clone()  # not mapped to the file, which may change


def _holds(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bool:
    try:
        present, described = read_state_dict(path)
    except FlashFaceError:
        return False
    same_text = all(described.get(key) == value for key, value in metadata.items())
    return same_text and (
        present.keys() == tensors.keys()
        and all(torch.equal(present[name], tensors[name]) for name in tensors)
    )


def _name(folder: Path, filename: str) -> Path:
    """Below the folder, on every system."""
    filename = filename.removesuffix(EXTENSION).replace("\\", "/")
    parts = filename.split("/")
    forbidden = set('<>:"|?*') | {chr(code) for code in range(32)}
    forbidden |= {letter for letter in filename if "\ud800" <= letter <= "\udfff"}  # half an emoji
    if not all(part.strip(" .") == part and part and not forbidden & set(part) for part in parts):
        raise FlashFaceError(
            f"{filename!r} is not a name for a file in {folder}; use letters, digits, spaces, - "
            "and _, and / for a folder inside it (when empty, the identity's own name is used)."
        )
    return Path(*parts[:-1], parts[-1] + EXTENSION)
