"""Real photographs for the tests: scikit-image's astronaut and cameraman, and what goes wrong."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def astronaut() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut())


def cameraman() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.camera()).convert("RGB").crop((100, 50, 400, 350))


def lit_from_the_left(picture: Image.Image) -> Image.Image:
    light = np.linspace(1.6, 0.1, picture.width)[None, :, None]
    return Image.fromarray((np.asarray(picture) * light).clip(0, 255).astype(np.uint8))


def sheared(picture: Image.Image, by: float) -> Image.Image:
    matrix = (1, by, -by * picture.height / 3, 0, 1, 0)
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def smaller(picture: Image.Image, share: float) -> Image.Image:
    return picture.resize([round(side * share) for side in picture.size], Image.Resampling.BICUBIC)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def far_away(picture: Image.Image) -> Image.Image:
    """The face is below 1/7 of the picture."""
    wide = Image.new("RGB", (768, 768), (90, 110, 130))
    wide.paste(smaller(picture, 0.45), (250, 300))
    return wide


def different(picture: Image.Image) -> dict[str, Image.Image]:
    """Photographs of the same person that are no copies of each other."""
    return {
        "a": picture,
        "b": ImageOps.mirror(picture),
        "c": lit_from_the_left(sheared(picture, 0.25)),
    }


def encoded(picture: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def add(folder: Path, name: str, data: bytes, caption: str | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def make_source(folder: Path) -> dict[str, str]:
    """A folder per person with everything that can be wrong; the reason by name of what is."""
    for person, picture in (("anna", astronaut()), ("carl", cameraman())):
        for name, variant in different(picture).items():
            add(folder, f"{person}/{name}.jpg", encoded(variant, quality=92), f"{person} as {name}")
    anna = astronaut()
    add(folder, "anna/a small copy.png", encoded(smaller(anna, 0.7), "PNG"))
    add(folder, "anna/bad copy.webp", encoded(anna, "WEBP", quality=30))
    add(folder, "anna/crowd.jpg", encoded(beside(anna, anna)))
    add(folder, "anna/far.jpg", encoded(far_away(anna)))
    add(folder, "anna/cut.jpg", encoded(anna)[:9000])
    add(folder, "anna/empty.jpg", b"")
    add(folder, "anna/text.png", b"no picture at all")
    add(folder, "anna/grey.png", encoded(Image.new("L", (300, 200), 120), "PNG"))
    add(folder, "anna/tiny.png", encoded(Image.new("RGB", (3, 2)), "PNG"))
    add(folder, "lena/only.jpg", encoded(anna), "alone")
    add(folder, "anna/.hidden.jpg", encoded(anna))
    return {
        "anna/a small copy.png": "near duplicate",
        "anna/bad copy.webp": "near duplicate",
        "anna/crowd.jpg": "several faces",
        "anna/far.jpg": "face too small",
        "anna/cut.jpg": "unreadable file",
        "anna/empty.jpg": "unreadable file",
        "anna/text.png": "unreadable file",
        "anna/grey.png": "no face",
        "anna/tiny.png": "no face",
        "lena/only.jpg": "one-picture person",
    }


def make_shard(path: Path, people: dict[str, dict[str, Image.Image]], cut: int = 0) -> None:
    """A webdataset shard as others write it; `cut`: bytes missing at its end."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for person, pictures in people.items():
            for name, picture in pictures.items():
                parts = {
                    "jpg": encoded(picture),
                    "json": json.dumps({"person": person}).encode(),
                    "txt": f"{person} as {name}".encode(),
                }
                for extension, data in parts.items():
                    member = tarfile.TarInfo(f"{person}-{name}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    data = file.getvalue()
    path.write_bytes(data[: len(data) - cut])


def group() -> Image.Image:
    """Three faces: cameraman, astronaut, and a small astronaut who looks the other way. By size:
    the middle one, left, right."""
    picture = Image.new("RGB", (1100, 520), (90, 110, 130))
    picture.paste(cameraman(), (0, 100))
    picture.paste(astronaut(), (300, 0))
    picture.paste(smaller(ImageOps.mirror(astronaut()), 0.55), (812, 150))
    return picture
