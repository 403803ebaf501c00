"""Workflows of the tiny models: nothing to download or to choose, and pictures within seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from canvas import Canvas, Group, Node, Output
from toy_parts import (
    HEAD,
    LARGE,
    SIDE,
    SMILING,
    STEPS,
    WATERCOLOUR,
    WIDE,
    Drawn,
    draw,
    pair,
    placed,
    prompts,
    saved,
    shown,
    someone,
    tiny_models,
)
from workflow_parts import Models, applied, show, size


def portrait(
    canvas: Canvas,
    of: Models,
    who: Sequence[Sequence[Node]],
    identity: Output,
    words: str,
    seed: int,
) -> None:
    said = prompts(canvas, words, of)
    face = applied(canvas, identity, of, said.negative, "custom", HEAD)
    latent = size(canvas, SIDE, SIDE)
    drawn = draw(canvas, of, face.model, said.positive, said.negative, latent, seed)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", who),
            Group("3. Prompts", [said.nodes]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.nodes], saved(canvas, drawn.pictures)]),
        ],
    )


def start_here(canvas: Canvas) -> None:
    of, one = tiny_models(canvas), someone(canvas, 0)
    words = (
        "a portrait of a child, smiling, wearing a yellow raincoat, by the sea, flat colours, "
        "morning sun, upright"
    )
    portrait(canvas, of, [[one.photos], [one.who]], one.identity, words, seed=1)


def save_identity(canvas: Canvas) -> None:
    one = someone(canvas, 0, name="Toy person")
    kept = canvas.add("FlashFaceIdentitySave", identity=one.identity, filename="toy_person")
    faces = show(canvas, one.who["faces"], "Faces", box=LARGE)
    canvas.lay([Group("1. Who", [[one.photos], [one.who]]), Group("2. Kept", [[faces, kept]])])


def saved_identity(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    who = canvas.add("FlashFaceIdentityLoad", filename="toy_person.safetensors")
    words = (
        "a portrait of an elder, neutral, wearing a black suit, in a library, flat colours, "
        "soft light, upright"
    )
    portrait(canvas, of, [[who]], who["FACE_IDENTITY"], words, seed=2)


def compare(
    canvas: Canvas,
    of: Models,
    who: Sequence[Sequence[Node]],
    people: Mapping[str, Output],
    kept: str,
    seed: int,
    title: str = "{}",
) -> None:
    """The same words and noise for all of them, side by side.

    kept: whose picture is saved. title: of a picture, around the name.
    """
    words = prompts(canvas, SMILING, of)
    guidance = canvas.add("FlashFaceGuidance", preset="custom")
    latent = size(canvas, SIDE, SIDE)
    faces, draws, pictures = [], [], []
    for name, identity in people.items():
        place = {"title": f"Place of {name}", **HEAD}
        face = applied(canvas, identity, of, words.negative, place=place, guidance=guidance)
        called = title.format(name)
        given = face.model, words.positive, words.negative, latent, seed, f"Draws {called}"
        drawn = draw(canvas, of, *given)
        look = saved if name == kept else shown
        pictures.append(look(canvas, drawn.pictures, called[0].upper() + called[1:]))
        faces.append([face.place, face.encode, face.apply])
        draws.append(drawn.nodes)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, latent]]),
            Group("2. Who", who),
            Group("3. FlashFace", [[guidance], *faces]),
        ],
        [Group("4. Prompts", [words.nodes]), Group("5. Pictures", [*draws, *pictures])],
    )


def several_photos(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    photos = canvas.add("FlashFaceTinyPhotos", "Photos", person=0)

    def some(title: str, first: int, length: int) -> Node:
        return canvas.add(
            "ImageFromBatch", title, image=photos["photos"], batch_index=first, length=length
        )

    first = some("The first photo", 0, 1)
    grey = canvas.add("ImageToMask", "made black and white", image=first["IMAGE"], channel="green")
    picture = canvas.add("MaskToImage", mask=grey["MASK"])
    others = some("The other three", 1, 3)
    one = canvas.add("FlashFaceIdentity", "One photo", image=picture["IMAGE"], weight=0.5)
    four = canvas.add(
        "FlashFaceIdentity",
        "Four photos",
        image=others["IMAGE"],
        append_to=one["FACE_IDENTITY"],
    )
    compare(
        canvas,
        of,
        [[photos], [first, grey, picture, others], [one, four]],
        {"one photo": one["FACE_IDENTITY"], "four photos": four["FACE_IDENTITY"]},
        kept="four photos",
        seed=3,
        title="from {}",
    )


def mixing(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    (a, b), columns = pair(canvas)
    mix = canvas.add(
        "FlashFaceIdentityMix", identity_a=a.identity, identity_b=b.identity, ratio=0.5
    )
    people = {"A": a.identity, "the mix": mix["FACE_IDENTITY"], "B": b.identity}
    compare(canvas, of, [*columns, [mix]], people, kept="the mix", seed=2)


def best_of_n(canvas: Canvas) -> None:
    of, one = tiny_models(canvas), someone(canvas, 2, name="the toy person")
    said = "a portrait, wearing a red sweater, in a forest, flat colours, soft light"
    words = prompts(canvas, said, of)
    place = canvas.add("FlashFaceIdentityPlace", identity=one.identity, **HEAD)
    identity = place["FACE_IDENTITY"]
    face = applied(canvas, identity, of, words.negative, "custom")
    plot = canvas.add("FlashFaceGuidancePlot", guidance=face.guidance["FACE_GUIDANCE"], steps=STEPS)
    plotted = show(canvas, plot["IMAGE"], "What the guidance does", box=(520, 420))
    latent = size(canvas, SIDE, SIDE, pictures=8)
    drawn = draw(canvas, of, face.model, words.positive, words.negative, latent, seed=1)
    every = shown(canvas, drawn.pictures, "All eight", (640, 640))
    compared = canvas.add("FlashFaceSimilarity", image=drawn.pictures, identity=identity)
    larger, best = saved(canvas, compared["best"], "The best")
    report = canvas.add("PreviewAny", "Report", source=compared["report"])
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[one.photos], [one.who]]),
            Group(
                "3. FlashFace",
                [[place, face.encode], [face.guidance, face.apply], [plot, plotted]],
            ),
        ],
        [
            Group("4. Prompts", [words.nodes]),
            Group("5. Pictures", [[latent, *drawn.nodes], every]),
            Group("6. The best", [[compared, larger, report], [best]]),
        ],
    )


def two_people(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    people, who = pair(canvas)
    words = prompts(canvas, SMILING, of)
    box = dict(y=0.12, width=0.3, height=0.6)
    both = placed(canvas, people, [{"x": 0.1, **box}, {"x": 0.6, **box}])
    face = applied(canvas, both.identity, of, words.negative, "custom")
    latent = size(canvas, 2 * SIDE, SIDE)
    given = face.model, words.positive, words.negative, latent
    drawn = draw(canvas, of, *given, seed=3, cfg=7.5)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", who),
            Group("3. Where", both.columns),
        ],
        [
            Group("4. Prompts", [words.nodes]),
            Group("5. FlashFace", [[face.encode, face.apply], [face.guidance]]),
            Group("6. Picture", [[latent, *drawn.nodes], saved(canvas, drawn.pictures, box=WIDE)]),
        ],
    )


class Style(NamedTuple):
    columns: list[list[Node]]
    image: Output


def style_image(canvas: Canvas, of: Models, latent: Node, seed: int) -> Style:
    words = prompts(canvas, WATERCOLOUR, of, "Prompt of the style image")
    given = of.model, words.positive, words.negative, latent, seed
    drawn = draw(canvas, of, *given, "Draw the style image")
    look = shown(canvas, drawn.pictures, "Style image")
    return Style([words.nodes, [latent, *drawn.nodes], look], drawn.pictures)


class Styled(NamedTuple):
    loader: Node
    nodes: list[Node]
    drawn: Drawn


def in_style(
    canvas: Canvas, of: Models, identity: Output, style: Style, latent: Node, seed: int
) -> Styled:
    loader = canvas.add("FaceStudioLoader", model_name="facestudio_tiny.safetensors")
    facestudio = loader["FACESTUDIO"]
    encode = canvas.add(
        "FaceStudioEncode", facestudio=facestudio, identity=identity, style_image=style.image
    )
    apply = canvas.add("FaceStudioApply", model=of.model, facestudio=facestudio)
    given = apply["MODEL"], encode["positive"], encode["negative"], latent
    return Styled(loader, [encode, apply], draw(canvas, of, *given, seed=seed))


def style_portrait(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    latent = size(canvas, SIDE, SIDE)
    style = style_image(canvas, of, latent, seed=3)
    one = someone(canvas, 6, name="A")
    made = in_style(canvas, of, one.identity, style, latent, seed=6)
    picture = saved(canvas, made.drawn.pictures, prefix="FaceStudio")
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, made.loader]]),
            Group("2. Style image", style.columns),
        ],
        [
            Group("3. Who", [[one.photos], [one.who]]),
            Group("4. FaceStudio", [made.nodes]),
            Group("5. Picture", [made.drawn.nodes, picture]),
        ],
    )


def style_two_people(canvas: Canvas) -> None:
    of = tiny_models(canvas)
    small = canvas.add(
        "EmptyLatentImage", "Size of the style image", width=SIDE, height=SIDE, batch_size=1
    )
    style = style_image(canvas, of, small, seed=4)
    people, who = pair(canvas, a=6)  # long hair fills a half
    half = dict(y=0.0, width=0.5, height=1.0)
    both = placed(canvas, people, [{"x": 0.0, **half}, {"x": 0.5, **half}])
    latent = size(canvas, 2 * SIDE, SIDE)
    made = in_style(canvas, of, both.identity, style, latent, seed=8)
    picture = saved(canvas, made.drawn.pictures, box=WIDE, prefix="FaceStudio")
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, made.loader]]),
            Group("2. Style image", style.columns),
            Group("3. Who", who),
        ],
        [
            Group("4. Where", both.columns),
            Group("5. FaceStudio", [made.nodes]),
            Group("6. Picture", [[latent, *made.drawn.nodes], picture]),
        ],
    )
