"""Contact sheets and what is told of them; no server is needed."""

import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from automation import sheets
from automation.jobs import Job
from automation.photos import Photo
from automation.report import write
from automation.results import Results
from automation.scores import read_picture

# As a Mac writes bjorn with two dots, O'Neil with a curly apostrophe, Li Lei, Maryam.
NAMES = ("anna", "bjo\u0308rn", "O\u2019Neil Jr.", "\u674e\u96f7", "\u0645\u0631\u064a\u0645")
FILES = [
    "001_anna",
    "002_bj\xf6rn",
    "003_O_Neil_Jr",
    "004_\u674e\u96f7",
    "005_\u0645\u0631\u064a\u0645",
]


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "out")


def jobs_of(results, names=NAMES, rows=2) -> list[Job]:
    """Rows of everyone, whose pictures are there."""
    photo = results.folder.parent / "photo.png"
    Image.new("RGB", (16, 16), "red").save(photo)
    jobs = []
    for number, name in enumerate(names):
        for row in range(rows):
            job_id = f"{NAMES.index(name):016x}{row:016x}"
            jobs.append(
                Job(
                    id=job_id,
                    row=number * rows + row + 1,
                    person=name,
                    is_named=True,
                    group=name,
                    graph={},
                    known=(),
                    values={"prompt": f"{name} \u2013 caf\xe9", "seed": row},
                    photos=((Photo(photo, "0" * 64, ".png"),),),
                    uploads=(),
                )
            )
            results.path(jobs[-1]).write_bytes(photo.read_bytes())
    return jobs


def drawn(results) -> list[str]:
    return sorted(path.stem for path in (results.folder / "sheets").glob("*.jpg"))


def test_sheets_are_called_as_people_are_in_any_script(results):
    jobs = jobs_of(results)
    sheets.draw_sheets(jobs, results)
    assert drawn(results) == FILES
    text = (results.folder / "sheets" / "index.txt").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines()]
    assert lines[0] == ["file", "person", "rows"]
    rows = ["1-2", "3-4", "5-6", "7-8", "9-10"]
    assert lines[1:] == [[f"{f}.jpg", n, r] for f, n, r in zip(FILES, NAMES, rows, strict=True)]


def test_a_person_whose_rows_have_photos_of_their_own_has_one_sheet(results, monkeypatch):
    """Whom the manifest names is one, as in the scores; whom it does not name is who the photos
    are."""
    seen = []
    thumbnail = sheets._thumbnail
    monkeypatch.setattr(sheets, "_thumbnail", lambda path: seen.append(path) or thumbnail(path))
    jobs = jobs_of(results, names=("anna",), rows=3)
    other = results.folder.parent / "other.png"
    Image.new("RGB", (16, 16), "blue").save(other)
    jobs[1] = jobs[1]._replace(group="other", photos=((Photo(other, "1" * 64, ".png"),),))
    sheets.draw_sheets(jobs, results)
    assert drawn(results) == ["001_anna"]
    assert seen[:2] == [jobs[0].photos[0][0].path, other] and len(seen) == 2 + 3
    sheets.draw_sheets([job._replace(is_named=False) for job in jobs], results)
    assert drawn(results) == ["001_anna", "002_anna"]


@pytest.mark.parametrize("name", ["", "...", "../..", "\0:*?", "\U0001f600", "CON. "])
def test_no_name_of_a_sheet_is_a_path_or_empty(name):
    assert sheets.slug(name) in ("person", "CON")


def test_sheets_of_people_and_pages_that_left_are_taken_away(results, monkeypatch):
    monkeypatch.setattr(sheets, "MOST", 1)
    sheets.draw_sheets(jobs_of(results), results)
    assert len(drawn(results)) == 2 * len(NAMES)
    own = results.folder / "sheets" / "2024_best.jpg"
    own.touch()
    monkeypatch.setattr(sheets, "MOST", 2)
    sheets.draw_sheets(jobs_of(results, NAMES[1:3]), results)
    assert drawn(results) == ["001_bj\xf6rn", "002_O_Neil_Jr", "2024_best"]


def test_pictures_of_rows_that_left_are_counted(results):
    jobs = jobs_of(results)
    write(results.rows(jobs), jobs, results, None, ())
    summary = results.folder / "summary.txt"
    assert "of rows that the list has no longer" not in summary.read_text()
    less = jobs[3:]
    write(results.rows(less), less, results, None, ())
    told = (
        "7 of 7 pictures are there.\n3 more in pictures/ are of rows that the list has no longer.\n"
    )
    assert summary.read_text() == told


def test_what_the_font_lacks_is_drawn_without_accents_or_marked():
    font = sheets._font(16)
    assert sheets._drawable("O\u2019Neil bjo\u0308rn \u674e\u96f7", font) == "O\u2019Neil bjorn ??"


def test_sheets_are_drawn_by_the_fonts_of_older_pillows(results, monkeypatch):
    """Before 10.1 there was one size, and letters of Latin-1."""
    bitmap = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()
    monkeypatch.setattr(ImageFont, "load_default", lambda: bitmap)
    sheets._font.cache_clear()
    texts, text = [], ImageDraw.ImageDraw.text

    def noted(self, xy, words, *more, **named):
        texts.append(words)
        return text(self, xy, words, *more, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    try:
        sheets.draw_sheets(jobs_of(results, rows=1), results)
    finally:
        sheets._font.cache_clear()
    assert len(drawn(results)) == len(NAMES)
    assert "002  bj\xf6rn" in texts and "004  ??" in texts


def test_pictures_of_sixteen_bits_are_no_white(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("I;16", (4, 4), 257 * 100).save(path)
    assert read_picture(str(path)).unique().tolist() == [100]
    thumbnail = sheets._thumbnail(path)
    assert thumbnail is not None and thumbnail.getextrema() == ((100, 100),) * 3
