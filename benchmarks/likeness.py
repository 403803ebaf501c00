"""How well faces of one person are told from those of strangers: SFace beside the offline measure.

    python tools/comfy.py benchmark likeness --zoo FOLDER [--people FOLDER] [--json FILE]

Where no second photograph of a person is at hand a photograph is compared with changed copies of
itself, which is easier than with another one. Strangers are compared with the same changes.
"""

import argparse
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from flashface_core.errors import FlashFaceError
from flashface_core.faces.face import Face
from flashface_core.faces.zoo import ZooDetector
from flashface_core.likeness.embedders import EdgesAndColours, Embedder, Recognition
from training.photos.look import read_picture

FALSE_MATCHES = 0.01
LFW = 100  # the first of scikit-image's lfw_subset are faces of as many people
LFW_SIDE = 100  # pixels that its 25 are enlarged to

Photos = dict[str, list[Image.Image]]  # by person


def darker(photo: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(photo).enhance(0.5)


def saved_badly(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=20)
    return Image.open(file).convert("RGB")


def half_size(photo: Image.Image) -> Image.Image:
    return photo.resize([max(1, side // 2) for side in photo.size], Image.Resampling.BICUBIC)


def lit_from_the_left(photo: Image.Image) -> Image.Image:
    light = np.linspace(1.5, 0.3, photo.width)[None, :, None]
    return Image.fromarray((np.asarray(photo) * light).clip(0, 255).astype(np.uint8))


def narrower(photo: Image.Image) -> Image.Image:
    return photo.resize((round(0.8 * photo.width), photo.height), Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "darker": darker,
    "grey": lambda photo: photo.convert("L").convert("RGB"),
    "saved badly": saved_badly,
    "half size": half_size,
    "blurred": lambda photo: photo.filter(ImageFilter.GaussianBlur(photo.height / 80)),
    "lit from the left": lit_from_the_left,
    "narrower": narrower,
    "turned": lambda photo: photo.rotate(10, Image.Resampling.BICUBIC),
}


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    detector = ZooDetector(options.zoo, look_again=True)
    embedders: list[Embedder] = [Recognition(detector), EdgesAndColours()]
    sets = {"100 strangers of Labeled Faces in the Wild, 25 pixels wide, grey": lfw()}
    if options.people is not None:
        people = read_people(options.people)
        pictures = sum(map(len, people.values()))
        sets[f"{pictures} photographs of {len(people)} people in {options.people.name}"] = people
    report = []
    for title, people in sets.items():
        print(f"\n{title}")
        report += measure(people, detector, embedders, title)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/comfy.py benchmark likeness", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--zoo", type=Path, required=True, help="the folder of OpenCV Zoo's files")
    parser.add_argument("--people", type=Path, help="a folder with a folder of photos per person")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def lfw() -> Photos:
    from skimage import data

    pixels = (data.lfw_subset()[:LFW] * 255).astype(np.uint8)
    sides = (LFW_SIDE, LFW_SIDE)
    faces = [Image.fromarray(one).resize(sides, Image.Resampling.BICUBIC) for one in pixels]
    return {str(number): [face.convert("RGB")] for number, face in enumerate(faces)}


def read_people(folder: Path) -> Photos:
    people = {}
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        paths = sorted(path for path in person.iterdir() if path.is_file())
        people[person.name] = [read_picture(io.BytesIO(path.read_bytes())) for path in paths]
    return people


def measure(
    people: Photos, detector: ZooDetector, embedders: Iterable[Embedder], title: str
) -> list[dict]:
    """A line per kind of pair and embedder."""
    owners = [name for name, photos in people.items() for _ in photos]
    whole = [to_pixels(photo) for all_of_one in people.values() for photo in all_of_one]
    photos = [around_face(photo, find(photo, detector)) for photo in whole]
    changed = {
        name: [to_pixels(change(Image.fromarray(photo.numpy()))) for photo in photos]
        for name, change in CHANGES.items()
    }
    faces = [find(photo, detector) for photo in photos]
    found = {name: [find(photo, detector) for photo in some] for name, some in changed.items()}
    missed = sum(face is None for some in (faces, *found.values()) for face in some)
    print(f"{missed} of {len(photos) * (1 + len(changed))} faces are not found and left out")
    lines = []
    for embedder in embedders:
        own = embed(photos, faces, embedder)
        copies = {name: embed(changed[name], found[name], embedder) for name in changed}
        same, strangers = [], []
        for some in copies.values():
            for (i, a), (j, b) in itertools.product(enumerate(own), enumerate(some)):
                if a is None or b is None:
                    continue
                if i == j:
                    same.append(float(a @ b))
                elif owners[i] != owners[j]:
                    strangers.append(float(a @ b))
        lines.append(line("changed copies", embedder, same, strangers))
        pairs = [
            (owners[i] == owners[j], float(own[i] @ own[j]))
            for i, j in itertools.combinations(range(len(own)), 2)
            if own[i] is not None and own[j] is not None
        ]
        same = [score for is_same, score in pairs if is_same]
        if same:
            others = [score for is_same, score in pairs if not is_same]
            lines.append(line("other photographs", embedder, same, others))
    return [{"photographs": title, **one} for one in lines]


def find(photo: torch.Tensor, detector: ZooDetector) -> Face | None:
    return next(iter(detector.find(photo)), None)


def around_face(photo: torch.Tensor, face: Face | None) -> torch.Tensor:
    """Half a face more on every side, so that a change is of the same size for all photographs."""
    if face is None:
        return photo
    x1, y1, x2, y2 = face.box
    dx, dy = (x2 - x1) / 2, (y2 - y1) / 2
    left, top = max(0, round(x1 - dx)), max(0, round(y1 - dy))
    return photo[top : round(y2 + dy), left : round(x2 + dx)].contiguous()


def embed(photos, faces, embedder: Embedder) -> list[np.ndarray | None]:
    return [
        None if face is None else embedder.face(photo, face)
        for photo, face in zip(photos, faces, strict=True)
    ]


def line(kind: str, embedder: Embedder, same: list[float], strangers: list[float]) -> dict:
    found = {
        "pairs": kind,
        "measure": embedder.name,
        "same": len(same),
        "strangers": len(strangers),
        "auc": round(auc(same, strangers), 4),
        "missed": round(missed_at(same, strangers, FALSE_MATCHES), 4),
        "same_percentiles": np.percentile(same, (5, 50)).round(3).tolist(),
        "stranger_percentiles": np.percentile(strangers, (50, 99)).round(3).tolist(),
    }
    print(
        f"{embedder.name}, {kind}: AUC {found['auc']:.4f}, at {FALSE_MATCHES:.0%} false matches "
        f"{found['missed']:.1%} of {len(same)} pairs are missed; same 5 % {same_text(found)}"
    )
    return found


def same_text(found: dict) -> str:
    (low, middle), (usual, high) = found["same_percentiles"], found["stranger_percentiles"]
    return f"{low:.2f}, median {middle:.2f}; strangers median {usual:.2f}, 99 % {high:.2f}"


def to_pixels(photo: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(photo))


def auc(same: list[float], strangers: list[float]) -> float:
    """How often a pair of one person scores above a pair of strangers; equal ones count half."""
    ordered = np.sort(strangers)
    below = np.searchsorted(ordered, same, "left") + np.searchsorted(ordered, same, "right")
    return float(below.mean() / 2 / len(ordered))


def missed_at(same: list[float], strangers: list[float], share: float) -> float:
    """Of the pairs of one person, how many score no higher than this share of strangers' pairs."""
    return float((np.asarray(same) <= np.quantile(strangers, 1 - share)).mean())


if __name__ == "__main__":
    try:
        main()
    except FlashFaceError as error:
        sys.exit(str(error))
