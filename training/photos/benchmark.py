"""A benchmark's cases: drawn by a system, kept as files, and measured.

A folder for each subset, and in it one for each case: `out.png`, the picture, beside
the benchmark's own ori.jpg, ref_1.jpg.. and meta.json, which is how the evaluation of MultiID-Bench
wants them. What is there is not drawn again, and settings.json says by which settings it was.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from tqdm import tqdm

from flashface_core.errors import FlashFaceError
from flashface_core.faces.face import Detector
from flashface_core.faces.select import face_reference
from flashface_core.people.identity import Identity, IdentityGroup
from training.clip import ClipScore
from training.identity_measures import copy_paste
from training.pictures import to_image
from training.sampling import sample

from .cases import Case
from .groups import GroupMeasures, face_vectors, group_of, measure_group
from .look import pixels_of
from .systems import System

log = logging.getLogger("flashface.training")

PICTURE, SETTINGS = "out.png", "settings.json"
NAN = float("nan")


class Score(NamedTuple):
    """Of one picture by one recognition model; NaN where there is nothing to measure.

    face: whether the picture shows one, of which the largest counts. sim_gt, sim_ref: its cosines
    to the true picture and to the benchmark's reference. clip: to the prompt; the same for all
    models. people: who should be there; faces: that are. Of several people all count, as
    GroupMeasures has them.
    """

    case: str
    person: str
    recognition: str
    face: bool
    sim_gt: float
    sim_ref: float
    copy_paste: float
    clip: float
    people: int = 1
    faces: int = 0
    blending_gt: float = NAN
    blending_ref: float = NAN


def write_cases(folder: Path, cases: Sequence[Case], settings: dict) -> None:
    """Everything but the pictures. Raises FlashFaceError for a folder of other settings, and for a
    case that would be written elsewhere or over another one."""
    _check_names([case.name for case in cases])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    if path.is_file():
        _check_same(path, settings)
    for case in cases:
        own = folder / case.name
        own.mkdir(exist_ok=True)
        files = {f"ref_{n}.jpg": photo for n, photo in enumerate((*case.photos, *case.group), 1)}
        files["meta.json"] = json.dumps({"prompt": case.plain_prompt}).encode()
        if case.truth is not None:
            files["ori.jpg"] = case.truth
        for name, data in files.items():
            if not (own / name).is_file():
                (own / name).write_bytes(data)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise FlashFaceError(
                f"A case is called {name!r}, which is not the name of a folder; rename that "
                "person or picture in the benchmark."
            )
        if count > 1:
            raise FlashFaceError(
                f"{count} cases are called {name!r}; rename those people or pictures in the "
                "benchmark, so that every case has a folder of its own."
            )


def _check_same(path: Path, settings: dict) -> None:
    before = json.loads(path.read_text())
    for name in {**before, **settings}:
        if before.get(name) != settings.get(name):
            raise FlashFaceError(
                f"The pictures in {path.parent} were made with {name} {before.get(name)}, and now "
                f"it is {settings.get(name)}; give another folder as --out, or what it was."
            )


def draw_cases(
    folder: Path, cases: Sequence[Case], system: System, vae, detector: Detector, seed: int
) -> None:
    """Those whose picture is missing. A case whose reference shows no face is left out and logged;
    the noise is by the seed and the case's name."""
    for case in tqdm(cases, desc="Drawing", unit="picture"):
        path = folder / case.name / PICTURE
        if path.is_file():
            continue
        identity = identity_of(case, detector)
        if identity is None:
            log.info("%s is left out: %s finds no face in a reference.", case.name, detector.name)
            continue
        given = system.condition(identity, case)
        place = (given.model, vae, given.positive, given.negative, 1)
        noise = seed * 10**6 + crc32(case.name_bytes) % 10**6
        with torch.no_grad():
            (picture,) = sample(*place, noise, system.settings, system.size)
        unfinished = path.with_suffix(".unfinished")
        to_image(picture).save(unfinished, "PNG")
        os.replace(unfinished, path)


def identity_of(case: Case, detector: Detector) -> Identity | IdentityGroup | None:
    """The largest face of every photograph; None where one of them shows no face."""
    if case.group:
        return group_of(case, detector)
    references = []
    for data in case.photos:
        photo = pixels_of(data)
        if not (faces := detector.find(photo)):
            return None
        references.append(face_reference(photo, faces[0]))
    return Identity(tuple(references), case.person)


def missing_pictures(folder: Path, cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases if not (folder / case.name / PICTURE).is_file()]


def score_cases(
    folder: Path, cases: Sequence[Case], detectors: Sequence[Detector], clip: ClipScore | None
) -> Iterator[Score]:
    """Of every picture that is there, by every recognition model."""
    for case in tqdm(cases, desc="Measuring", unit="picture"):
        path = folder / case.name / PICTURE
        if not path.is_file():
            continue
        picture = pixels_of(path.read_bytes())
        agreement = NAN
        if clip is not None:
            shown = picture.movedim(-1, 0)[None] / 255
            agreement = clip(shown, [case.plain_prompt]).item()
        photos = [pixels_of(data) for data in case.group or case.photos[:1]]
        truth = None if case.truth is None else pixels_of(case.truth)
        for detector in detectors:
            drawn = face_vectors(picture, detector)
            known = [_largest(photo, detector) for photo in photos]
            if case.group:
                found = _of_group(drawn, known, truth, detector)
            else:
                largest = drawn[0] if len(drawn) else None
                found = _measures(largest, known[0], _largest(truth, detector))
            similar, blending = found[:3], found[3:]
            who = (case.name, case.person, detector.recognition, len(drawn) > 0)
            yield Score(*who, *similar, agreement, case.people, len(drawn), *blending)


def _of_group(
    drawn: Tensor, known: Sequence[Tensor | None], truth: Tensor | None, detector: Detector
) -> GroupMeasures:
    """Nothing is told of the references where one of them shows no face."""
    nobody = drawn[:0]
    faces = [vector for vector in known if vector is not None]
    references = torch.stack(faces) if len(faces) == len(known) else nobody
    true = nobody if truth is None else face_vectors(truth, detector)
    return measure_group(drawn, references, true)


def _measures(
    drawn: Tensor | None, photo: Tensor | None, truth: Tensor | None
) -> tuple[float, float, float]:
    """sim_gt, sim_ref and copy_paste of unit vectors (D,)."""
    to_truth, to_photo, between = (
        None if a is None or b is None else a @ b
        for a, b in ((drawn, truth), (drawn, photo), (truth, photo))
    )
    copied = None
    if to_truth is not None and to_photo is not None and between is not None:
        copied = copy_paste(to_truth, to_photo, between)
    gt, ref, cp = (NAN if one is None else one.item() for one in (to_truth, to_photo, copied))
    return gt, ref, cp


def _largest(photo: Tensor | None, detector: Detector) -> Tensor | None:
    """The unit vector (D,) of the largest face; None without one."""
    if photo is None or not (faces := detector.find(photo)):
        return None
    return torch.from_numpy(detector.embed(photo, faces[0])).double()
