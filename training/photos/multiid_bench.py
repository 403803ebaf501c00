"""MultiID-Bench as its authors publish it: who is to be drawn, by which prompt, and the truth.

A folder in one of three layouts (arXiv 2510.14975, and the code of WithAnyone):

- data/train-*.parquet, as it is downloaded: rows with GT, input_images, prompt, subset (p1: one
  person, p2: two, p3: three and four) and num_persons. Needs pyarrow.
- p1.json and p1/untar/, as the authors' script lays it out: entries with prompt, image_paths and
  ori_img_path.
- a folder per case with ori.jpg, ref_1.jpg and meta.json, whose `prompt` counts; this is what their
  evaluation reads.

Cases of one person alone are taken, for which the paper has a table of its own. Rows say who is in
them by no name that is the same for two pictures, so every case counts as a person. The benchmark
has one reference for each of them; further ones are the user's (see add_photos). The columns are
those of the dataset's card and of that script: the table itself was never opened here.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from flashface_core.errors import FlashFaceError

from .cases import Case
from .sources import PICTURES

log = logging.getLogger("flashface.training")

COLUMNS = ["GT", "input_images", "prompt"]
INDEX, PHOTOS = "p1.json", ("p1/untar", "p1", "")
FOUR = 4


def read_multiid_bench(folder: Path) -> list[Case]:
    """Cases of one person, by name. Raises FlashFaceError for a folder in no such layout."""
    tables = sorted([*folder.glob("data/*.parquet"), *folder.glob("*.parquet")])
    metas = sorted(folder.glob("*/meta.json"))
    if tables:
        found = _in_tables(tables)
    elif (folder / INDEX).is_file():
        found = _in_index(folder)
    elif metas:
        found = (_in_folder(meta.parent) for meta in metas)
    else:
        raise FlashFaceError(
            f"{folder} is not MultiID-Bench: expected data/train-*.parquet as it is downloaded, "
            "p1.json beside p1/untar, or a folder per case with ori.jpg, ref_1.jpg and meta.json; "
            "give the folder that holds one of them."
        )
    all_of_them = list(found)
    cases = [case for case in all_of_them if case is not None]
    if left_out := len(all_of_them) - len(cases):
        log.info("%d cases are left out, which show several people or lack a picture.", left_out)
    if not cases:
        raise FlashFaceError(
            f"{folder} has {left_out} cases and none with one person, one reference and a true "
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
            batches = parquet.ParquetFile(table).iter_batches(16, columns=COLUMNS)
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
    photos = [photo["bytes"] for photo in row["input_images"] or () if photo and photo["bytes"]]
    truth = (row["GT"] or {}).get("bytes")
    if len(photos) != 1 or not truth:
        return None
    return Case(name, name, row["prompt"], (photos[0],), truth)


def _in_index(folder: Path) -> Iterator[Case | None]:
    for entry in _json(folder / INDEX, list):
        try:
            prompt, names, truth = entry["prompt"], entry["image_paths"], entry["ori_img_path"]
        except (KeyError, TypeError) as error:
            raise FlashFaceError(
                f"{INDEX} has an entry without prompt, image_paths or ori_img_path; lay the "
                "benchmark out again by its own script."
            ) from error
        paths = [_photo(folder, name) for name in (*names, truth)]
        name = Path(truth).with_suffix("").as_posix().replace("/", "_")
        if len(names) != 1 or None in paths:
            yield None
        else:
            photo, true = (path.read_bytes() for path in paths if path is not None)
            yield Case(name, name, prompt, (photo,), true)


def _photo(folder: Path, name: str) -> Path | None:
    """None for one that is not there, or lies outside of the benchmark."""
    paths = ((folder / place / name).resolve() for place in PHOTOS)
    inside = (path for path in paths if path.is_relative_to(folder.resolve()))
    return next((path for path in inside if path.is_file()), None)


def _in_folder(folder: Path) -> Case | None:
    prompt = _json(folder / "meta.json", dict).get("prompt")
    photos, truth = pictures_in(folder, "ref_*"), pictures_in(folder, "ori")
    if not isinstance(prompt, str) or len(photos) != 1 or len(truth) != 1:
        return None
    name = folder.name
    return Case(name, name, prompt, (photos[0].read_bytes(),), truth[0].read_bytes())


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
        if path.suffix.lower().lstrip(".") in PICTURES and path.is_file()
    )


def add_photos(cases: list[Case], folder: Path) -> list[Case]:
    """The cases that have three further photographs in `folder`/name, with them: four in all.

    Raises FlashFaceError where none has.
    """
    found = []
    for case in cases:
        more = pictures_in(folder / case.name)[: FOUR - 1]
        if len(more) == FOUR - 1:
            photos = (*case.photos[:1], *(path.read_bytes() for path in more))
            found.append(case._replace(photos=photos))
    if not found:
        raise FlashFaceError(
            f"{folder} has three photographs for none of the {len(cases)} cases; give a folder "
            f"per case, such as {cases[0].name}, with photographs of that person."
        )
    return found
