"""What workflows_toys.py makes workflows of: the tiny models, drawn people, enlarged pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from canvas import Canvas, Node, Output
from workflow_parts import Models, Prompts, decode, sampler, save, show, text

SIDE, STEPS, CFG = 128, 20, 5.0
HEAD: dict[str, Any] = dict(x=0.19, y=0.2, width=0.62, height=0.62)
SMILING = (
    "a portrait of an adult, smiling, wearing a red sweater, in a forest, flat colours, "
    "soft light, upright"
)
WATERCOLOUR = (
    "a portrait of an adult, smiling, wearing a blue hoodie, by the sea, watercolour, "
    "evening sun, upright"
)
PLACE = (300, 240)  # as high as "Nodes 2.0" draws it
LARGE, WIDE = (420, 450), (780, 490)  # nodes that show a picture of 384 x 384, or 768 x 384


class Someone(NamedTuple):
    photos: Node
    who: Node
    identity: Output


def tiny_models(canvas: Canvas) -> Models:
    tiny = canvas.add("FlashFaceTinyModels")
    return Models([tiny], *(tiny[name] for name in ("MODEL", "REFERENCE_NET", "CLIP", "VAE")))


def someone(canvas: Canvas, person: int, title: str = "Photos", name: str = "") -> Someone:
    photos = canvas.add("FlashFaceTinyPhotos", title, person=person)
    who = canvas.add("FlashFaceIdentity", image=photos["photos"], name=name)
    return Someone(photos, who, who["FACE_IDENTITY"])


def pair(canvas: Canvas, a: int = 0, b: int = 2) -> tuple[list[Someone], list[list[Node]]]:
    """A and B, and the columns of their nodes. a, b: which people of FlashFaceTinyPhotos."""
    people = [someone(canvas, n, f"Photos of {name}", name) for n, name in ((a, "A"), (b, "B"))]
    return people, [[one.photos for one in people], [one.who for one in people]]


class Placed(NamedTuple):
    columns: list[list[Node]]
    identity: Output


def placed(canvas: Canvas, people: Sequence[Someone], boxes: Sequence[dict[str, Any]]) -> Placed:
    places = [
        canvas.add(
            "FlashFaceIdentityPlace",
            f"Place of {name}",
            PLACE,
            identity=one.identity,
            attention="inside the region",
            **box,
        )
        for name, one, box in zip("AB", people, boxes, strict=True)
    ]
    both = canvas.add(
        "FlashFaceIdentityGroup",
        identity_1=places[0]["FACE_IDENTITY"],
        identity_2=places[1]["FACE_IDENTITY"],
    )
    return Placed([places, [both]], both["FACE_IDENTITY"])


def prompts(canvas: Canvas, words: str, of: Models, title: str = "Positive prompt") -> Prompts:
    positive = text(canvas, words, of.clip, title)
    negative = text(canvas, "", of.clip, "Negative prompt")
    return Prompts([positive, negative], positive["CONDITIONING"], negative["CONDITIONING"])


class Drawn(NamedTuple):
    nodes: list[Node]
    pictures: Output


def draw(
    canvas: Canvas,
    of: Models,
    model: Output,
    positive: Output,
    negative: Output,
    latent: Node,
    seed: int,
    title: str | None = None,
    cfg: float = CFG,
) -> Drawn:
    given = model, positive, negative, latent["LATENT"]
    draws = sampler(canvas, *given, title, cfg, steps=STEPS, sampler="euler", seed=seed)
    decoded = decode(canvas, draws, of)
    return Drawn([draws, decoded], decoded["IMAGE"])


def enlarged(canvas: Canvas, pictures: Output) -> Node:
    return canvas.add(
        "ImageScaleBy",
        "Larger, to look at",
        image=pictures,
        upscale_method="lanczos",
        scale_by=3.0,
    )


def shown(canvas: Canvas, pictures: Output, title: str, box: tuple[int, int] = LARGE) -> list[Node]:
    larger = enlarged(canvas, pictures)
    return [larger, show(canvas, larger["IMAGE"], title, box=box)]


def saved(canvas: Canvas, pictures: Output, title: str | None = None, **given: Any) -> list[Node]:
    larger = enlarged(canvas, pictures)
    return [larger, save(canvas, larger, title, **given)]
