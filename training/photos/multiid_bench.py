"""MultiID-Bench as its authors publish it: who is to be drawn, by which prompt, and the truth.

A folder in one of three layouts (arXiv 2510.14975, and the code of WithAnyone):

- data/train-*.parquet, as it is downloaded: rows with GT, input_images (one of each person),
  prompt, bboxes (JSON) and subset (p1: one person, p2: two, p3: three and four). Needs pyarrow.
- p1.json and p1/untar/, as the authors' script lays it out, and the same of p2 and p3: entries with
  prompt, image_paths and ori_img_path; bboxes in a JSON file beside the true picture. That script
  also knows the subsets as v200_single, v202 and v200_m.
- a folder per case with ori.jpg, ref_1.jpg to ref_4.jpg and meta.json, whose `prompt` counts; this
  is what their evaluation reads.

Rows say who is in them by no name that is the same for two pictures, so every case counts as a
person. The benchmark has one reference for each of them; further ones are the user's (see
add_photos). The columns are those of the dataset's card and of that script: the table itself was
never opened here.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from flashface_core.errors import FlashFaceError

from .cases import Case, Subset
from .look import damage
from .sources import PICTURES, Box

log = logging.getLogger("flashface.training")

COLUMNS, BOXES = ["GT", "input_images", "prompt"], "bboxes"
# People by subset, whose index and folder have one of these names.
SUBSETS = {(1,): ("p1", "v200_single"), (2,): ("p2", "v202"), (3, 4): ("p3", "v200_m")}
MOST = 4
FOUR = 4  # photographs of one person


def read_multiid_bench(folder: Path) -> list[Case]:
    """Cases of one to four people. Raises FlashFaceError for a folder in no such layout."""
    tables = sorted([*folder.glob("data/[!.]*.parquet"), *folder.glob("[!.]*.parquet")])
    metas = sorted(folder.glob("*/meta.json"))
    indexes = {path: names for names in SUBSETS.values() if (path := _index(folder, names))}
    if tables:
        found = _in_tables(tables)
    elif indexes:
        found = (case for index in indexes.items() for case in _in_index(*index))
    elif metas:
        found = (_in_folder(meta.parent) for meta in metas)
    else:
        raise FlashFaceError(
            f"{folder} is not MultiID-Bench: expected data/train-*.parquet as it is downloaded, "
            "p1.json (or p2, p3) beside p1/untar, or a folder per case with ori.jpg, ref_1.jpg and "
            "meta.json; give the folder that holds one of them."
        )
    all_of_them = list(found)
    cases = [case for case in all_of_them if case is not None]
    if left_out := len(all_of_them) - len(cases):
        log.info("%d cases are left out, which lack a picture or have over four people.", left_out)
    if not cases:
        raise FlashFaceError(
            f"{folder} has {left_out} cases and none with one to four references and a true "
            "picture; copy the whole benchmark again."
        )
    return cases


def _in_tables(tables: list[Path]) -> Iterator[Case | None]:
    """Numbered over all tables from 1, as the authors' script names the files."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise FlashFaceError(
            f"{tables[0].name} is read by pyarrow, which cannot be imported ({error}); install it "
            "with ComfyUI's Python."
        ) from error
    number = 0
    for table in tables:
        try:
            batches = parquet.ParquetFile(table).iter_batches(16, columns=[*COLUMNS, BOXES])
            for batch in batches:
                missing = set(COLUMNS).difference(batch.schema.names)
                if missing:
                    raise FlashFaceError(
                        f"{table.name} has no column {', '.join(sorted(missing))}; give "
                        "MultiID-Bench's own files."
                    )
                for row in batch.to_pylist():
                    number += 1
                    yield _of_row(f"{number:04d}", row)
        except (ArrowException, OSError) as error:
            raise FlashFaceError(f"{table} cannot be read ({error}); download it again.") from error


def _of_row(name: str, row: dict) -> Case | None:
    photos = [(photo or {}).get("bytes") for photo in row["input_images"] or ()]
    return _case(name, row["prompt"], photos, (row["GT"] or {}).get("bytes"), row.get(BOXES))


def _case(
    name: str, prompt: str | None, photos: Sequence[bytes | None], truth: bytes | None, boxes
) -> Case | None:
    """photos: one of each person. boxes: as they were read. None where a picture is missing."""
    known = [photo for photo in photos if photo]
    if not isinstance(prompt, str) or not truth:
        return None
    if not 1 <= len(known) == len(photos) <= MOST:
        return None
    if trouble := next(filter(None, map(damage, (truth, *known))), ""):
        log.info("%s is left out: a picture of it cannot be read (%s).", name, trouble)
        return None
    if len(known) == 1:
        return Case(name, name, prompt, (known[0],), truth)
    return Case(name, name, prompt, (), truth, tuple(known), _read_boxes(boxes))


def _read_boxes(found) -> tuple[Box, ...]:
    """x1, y1, x2, y2 in pixels, of a list or of JSON; () where it is anything else."""
    try:
        boxes = json.loads(found) if isinstance(found, str) else found
        read = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in boxes)
    except (OverflowError, TypeError, ValueError):
        return ()
    is_good = all(isfinite(sum(box)) and box[0] < box[2] and box[1] < box[3] for box in read)
    return read if is_good else ()


def _index(folder: Path, names: tuple[str, ...]) -> Path | None:
    paths = (folder / f"{name}.json" for name in names)
    return next((path for path in paths if path.is_file()), None)


def _in_index(index: Path, names: tuple[str, ...]) -> Iterator[Case | None]:
    """names: of the folders in which the pictures may be, beside the index."""
    folder = index.parent

    def file(name: str) -> Path | None:
        """None for one that is not there, or lies outside of the benchmark."""
        places = [place for own in names for place in (f"{own}/untar", own)]
        paths = ((folder / place / name).resolve() for place in (*places, ""))
        inside = (path for path in paths if path.is_relative_to(folder.resolve()))
        return next((path for path in inside if path.is_file()), None)

    for entry in _json(index, list):
        try:
            prompt, photos, truth = entry["prompt"], entry["image_paths"], entry["ori_img_path"]
            photos, truth = [Path(photo).as_posix() for photo in photos], Path(truth).as_posix()
        except (KeyError, TypeError) as error:
            raise FlashFaceError(
                f"{index.name} has an entry without prompt, image_paths or ori_img_path; lay the "
                "benchmark out again by its own script."
            ) from error
        paths = map(file, (*photos, truth))
        *data, true = (path.read_bytes() if path else None for path in paths)
        name = Path(truth).with_suffix("").as_posix().replace("/", "_")
        about = file(Path(truth).with_suffix(".json").as_posix())
        boxes = _json(about, dict).get(BOXES) if about and len(data) > 1 else None
        yield _case(name, prompt, data, true, boxes)


def _in_folder(folder: Path) -> Case | None:
    about = _json(folder / "meta.json", dict)
    photos, truth = pictures_in(folder, "ref_*"), pictures_in(folder, "ori")
    if not isinstance(about.get("prompt"), str) or len(truth) != 1:
        return None
    data = [path.read_bytes() for path in photos]
    return _case(folder.name, about["prompt"], data, truth[0].read_bytes(), about.get(BOXES))


def _json(path: Path, kind: type):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FlashFaceError(f"{path} is no JSON ({error}); copy it again.") from error
    if not isinstance(found, kind):
        raise FlashFaceError(f"{path} holds a {type(found).__name__}, expected a {kind.__name__}.")
    return found


def pictures_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Picture files by name."""
    return sorted(
        path
        for path in folder.glob(f"{pattern}.*")
        if path.suffix.lower().lstrip(".") in PICTURES
        and not path.name.startswith(".")  # hidden, like macOS's ._ files
        and path.is_file()
    )


def add_photos(cases: list[Case], folder: Path) -> list[Case]:
    """The cases that have three further photographs in `folder`/name, with them: four in all.

    Raises FlashFaceError where none has.
    """
    found = []
    for case in cases:
        more: list[bytes] = []
        for path in pictures_in(folder / case.name):
            data = path.read_bytes()
            if trouble := damage(data):
                log.info("%s is left out: it cannot be read (%s).", path, trouble)
            else:
                more.append(data)
        if len(more) >= FOUR - 1:
            photos = (*case.photos[:1], *more[: FOUR - 1])
            found.append(case._replace(photos=photos))
    if not found:
        raise FlashFaceError(
            f"{folder} has three photographs for none of the {len(cases)} cases; give a folder "
            f"per case, such as {cases[0].name}, with photographs of that person."
        )
    return found


def subsets_of(cases: list[Case], most: int) -> dict[Subset, list[Case]]:
    """As the paper tells of them; those of more than `most` people are left out."""
    found = {}
    for people in SUBSETS:
        people = tuple(number for number in people if number <= most)
        if own := [case for case in cases if case.people in people]:
            found[Subset(people)] = own
    return found
