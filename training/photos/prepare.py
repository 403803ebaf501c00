"""Photographs to webdataset shards for training: faces found, identities checked, copies dropped.

    python -m training.photos.prepare SOURCE --out FOLDER [--model-pack models/.../buffalo_l]

SOURCE is a folder with a folder per person, a flat folder (faces are then clustered, which needs
an InsightFace model pack), webdataset shards (jpg, png or webp; txt; json with "person"), or
MultiID-2M as it is published, of which any of ref, train_cp and train_rec may be there. A .txt
beside a picture is its caption. A run that was killed goes on where it stopped; another run with
other limits looks at no photograph twice. FOLDER/report.json counts what was dropped,
FOLDER/report.csv lists it.
"""

import argparse
import csv
import hashlib
import io
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from flashface_core.errors import FlashFaceError
from flashface_core.faces.detect import DETECTORS, load_detector
from flashface_core.faces.face import Detector
from training.command_line import folder_to_write, goes_on

from .dataset import INDEX, LATENTS, SEEN
from .frame import Shape, frame, nearest_shape
from .look import PhotoScan, look_at_all
from .select import BROKEN_SHARD, DEFAULT_LIMITS, REASONS, Dropped, Limits, Selection, select
from .shards import write_shard
from .sources import Photo, open_source

log = logging.getLogger("flashface.photos")

PHOTOS, PLAN, REPORT_JSON, REPORT_CSV = "photos-*.tar", "plan.json", "report.json", "report.csv"
DERIVED = (PHOTOS, LATENTS, SEEN, "*.part", INDEX, PLAN, REPORT_JSON)
JPEG = dict(format="JPEG", quality=95, subsampling=0)


def prepare(
    source: Path,
    out: Path,
    detector: Detector,
    limits: Limits = DEFAULT_LIMITS,
    size: int = 768,
    face_size: int = 224,
    per_shard: int = 1000,
    aspects: bool = False,
) -> dict:
    """The whole pipeline; the numbers of report.json.

    size, face_size: pixels of the stored square pictures and faces. aspects: pictures keep about
    their form, at the size of the square. Raises FlashFaceError for a
    source without photographs, and for photographs of nobody that cannot be clustered.
    """
    photos, broken = open_source(source)
    out.mkdir(parents=True, exist_ok=True)
    progress = out / f"faces-{detector.name.replace(' ', '-')}.jsonl"
    bar = tqdm(photos, desc="Finding faces", unit="photo")
    looks = list(look_at_all(bar, detector, progress))
    selection = select(looks, [photo.person for photo in photos], limits)
    selection.dropped.extend(Dropped(name, "", BROKEN_SHARD, why) for name, why in broken)
    by_name = {photo.name: photo for photo in photos}
    samples = [
        (person, by_name[look.name], look)
        for person, looks in selection.people.items()
        for look in looks
    ]
    shards = [samples[i : i + per_shard] for i in range(0, len(samples), per_shard)]
    shapes = [
        nearest_shape(look.width, look.height, size) if aspects else (size, size)
        for _, _, look in samples
    ]
    _keep_shards_of_this_plan(out, samples, (size, face_size, per_shard), aspects)
    for number, rows in enumerate(tqdm(shards, desc="Writing shards", unit="shard")):
        path = out / PHOTOS.replace("*", f"{number:05d}")
        if not path.exists():
            first = number * per_shard
            of_these = shapes[first : first + len(rows)]
            write_shard(path, _entries(rows, first, of_these, face_size))
    report = summary(photos, selection, limits) | {
        "detector": detector.name,
        "picture_size": size,
        "face_size": face_size,
        "shards": len(shards),
    }
    if aspects:
        counts = Counter(f"{width}x{height}" for width, height in shapes)
        report["picture_shapes"] = dict(sorted(counts.items()))
    _write_reports(out, report, selection.dropped)
    return report


def _entries(
    rows: list[tuple[str, Photo, PhotoScan]], first: int, shapes: list[Shape], face_size: int
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for number, (row, shape) in enumerate(zip(rows, shapes, strict=True), first):
        person, photo, look = row
        framed = frame(photo, look, shape, face_size)
        about = {
            "person": person,
            "source": photo.name,
            "box": framed.box,
            "points": framed.points,
            "score": look.score,
        }
        yield (
            f"{number:09d}",
            {
                "jpg": _bytes(framed.picture, **JPEG),
                "face.png": _bytes(Image.fromarray(framed.face.numpy()), format="PNG"),
                "txt": photo.caption().encode(),
                "json": json.dumps(about).encode(),
            },
        )


def _bytes(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def _keep_shards_of_this_plan(
    out: Path, samples: list, sizes: tuple[int, ...], aspects: bool
) -> None:
    """Shards of another selection, size or captions are removed, with what was encoded from
    them."""
    rows = [
        [person, photo.name, look.size, look.box, look.points] for person, photo, look in samples
    ]
    what = [sizes, rows, *(["aspects"] if aspects else [])]
    captions = [photo.caption() for _, photo, _ in samples]
    plan = {
        name: hashlib.sha256(json.dumps(part).encode()).hexdigest()
        for name, part in (("sha256", what), ("captions", captions))
    }
    path = out / PLAN
    before = json.loads(path.read_text()) if path.exists() else {}
    # Plans of earlier versions say nothing of captions.
    if {**plan, **before} == plan and "sha256" in before:
        path.write_text(json.dumps(plan) + "\n", newline="\n")
        return
    stale = sorted(file for pattern in DERIVED for file in out.glob(pattern))
    if stale:
        log.info(
            "The selection or a caption has changed; %d files in %s are made anew.", len(stale), out
        )
    for file in stale:
        file.unlink()
    path.write_text(json.dumps(plan) + "\n", newline="\n")


def summary(photos: list[Photo], selection: Selection, limits: Limits) -> dict:
    """dropped counts photographs by reason, and among them broken shards as one each."""
    dropped = Counter(one.reason for one in selection.dropped)
    kept = {look.name for looks in selection.people.values() for look in looks}
    return {
        "photographs": len(photos),
        "kept": len(kept),
        "people": len(selection.people),
        "kept_without_caption": sum(
            photo.name in kept and (photo.text is None or not photo.text.size) for photo in photos
        ),
        "dropped": {reason: dropped[reason] for reason in REASONS},
        "limits": limits._asdict(),
    }


def _write_reports(out: Path, report: dict, dropped: list[Dropped]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Dropped._fields)
    writer.writerows(dropped)
    # report.json is the last file of a finished run.
    for name, text in ((REPORT_CSV, table.getvalue()), (REPORT_JSON, json.dumps(report, indent=2))):
        unfinished = out / f"{name}.part"
        # Names of files may be no UTF-8; they are written as the bytes that they are.
        unfinished.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
        unfinished.replace(out / name)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detector", choices=DETECTORS, default="auto")
    parser.add_argument("--model-pack", type=Path, help="folder of an InsightFace model pack")


@goes_on
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=folder_to_write, required=True)
    add_detector_options(parser)
    for name, default in DEFAULT_LIMITS._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default)
    parser.add_argument("--size", type=int, default=768, help="pixels of the pictures")
    told = "pictures keep about their form: buckets of --size x --size pixels in all"
    parser.add_argument("--aspects", action="store_true", help=told)
    parser.add_argument("--face-size", type=int, default=224, help="pixels of the face crops")
    parser.add_argument("--per-shard", type=int, default=1000, help="photographs in a shard")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("size", "face_size"):
        if getattr(options, name) <= 0 or getattr(options, name) % 8:
            sys.exit(f"--{name.replace('_', '-')} must be a multiple of 8, as a latent pixel is.")
    if options.per_shard < 1:
        sys.exit(f"--per-shard is {options.per_shard}; it must be 1 or more.")
    limits = Limits(*(getattr(options, name) for name in Limits._fields))
    try:
        detector = load_detector(options.detector, options.model_pack)
        report = prepare(
            options.source,
            options.out,
            detector,
            limits,
            options.size,
            options.face_size,
            options.per_shard,
            options.aspects,
        )
    except FlashFaceError as error:
        sys.exit(str(error))
    log.info(json.dumps(report, indent=2))
    if not report["kept"]:
        sys.exit(f"No person has two usable photographs; {options.out / REPORT_CSV} says why.")
    if not detector.can_embed:
        log.info(
            "%s cannot compare faces, so folders were taken as they are: strangers in them were "
            "not removed. An InsightFace model pack (--model-pack) can.",
            detector.name,
        )


if __name__ == "__main__":
    main()
