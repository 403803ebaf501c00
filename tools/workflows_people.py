"""Workflows about who is drawn: photos, ages, several people, a saved identity."""

from __future__ import annotations

from collections.abc import Sequence

from canvas import Canvas, Group, Node
from workflow_parts import (
    NEGATIVE,
    QUALITY,
    SIZE,
    Applied,
    Models,
    Prompts,
    appended,
    applied,
    decode,
    detector,
    models,
    pair,
    person,
    photo,
    picture,
    prompts,
    sampler,
    save,
    show,
    size,
    text,
)

SAVED = "my_person"
POSES = {
    "smiling": "A close-up portrait photo of a young woman, smiling, in a garden",
    "from the side": "A portrait photo of a young woman, looking to the side, in a cafe",
    "at work": "An upper body photo of a young woman in a white coat, in a laboratory",
    "in a coat": "An upper body photo of a young woman in a winter coat, in the snow",
}


def lay_above_people(
    canvas: Canvas,
    of: Models,
    faces: Node,
    words: Prompts,
    face: Applied,
    latent: Node,
    people: Sequence[Sequence[Node]],
) -> None:
    """The picture, and everything laid out; in columns below it who it is of."""
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ],
        [Group("2. Who", people)],
    )


def portrait(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos = [photo(canvas, f"Photo {n}") for n in range(1, 5)]
    people = appended(canvas, photos, faces)
    words = prompts(
        canvas,
        "A portrait photo of a young woman, 30 years old, in a knitted sweater, in an autumn park",
        of.clip,
    )
    crops = show(canvas, people[-1]["faces"], "Face crops of the last photo")
    face = applied(canvas, people[-1]["FACE_IDENTITY"], of, words.negative, place={})
    pairs = [[one, who] for one, who in zip(photos, people, strict=True)]
    lay_above_people(canvas, of, faces, words, face, size(canvas), [*pairs, [crops]])


def change_age(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    one = photo(canvas)
    who = person(canvas, one, faces)
    child = text(
        canvas,
        f"A portrait photo of a 5 years old child, in a garden, {QUALITY}",
        of.clip,
        "A child",
    )
    elder = text(
        canvas,
        f"A portrait photo of a 75 years old elder, grey hair, in a library, {QUALITY}",
        of.clip,
        "An elder",
    )
    negative = text(canvas, NEGATIVE, of.clip, "Negative prompt")
    words = negative["CONDITIONING"]
    face = applied(canvas, who["FACE_IDENTITY"], of, words, "change age", place={})
    latent = size(canvas)
    columns = []
    for title, prompt in (("The child", child), ("The elder", elder)):
        given = face.model, prompt["CONDITIONING"], words, latent["LATENT"]
        drawn = sampler(canvas, *given, cfg=8.5)
        decoded = decode(canvas, drawn, of)
        columns.append([drawn, decoded, save(canvas, decoded, title)])
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [[child, elder, negative]]),
            Group("4. FlashFace", face.columns),
        ],
        [
            Group(
                "5. Pictures",
                [[latent], *([a, b] for a, b, _ in columns), *([c] for *_, c in columns)],
            ),
        ],
    )


def two_people(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos, people = pair(canvas, faces)
    places = [
        canvas.add(
            "FlashFaceIdentityPlace",
            f"Place of {name}",
            identity=who["FACE_IDENTITY"],
            x=x,
            y=0.15,
            width=0.25,
            height=0.4,
            attention="inside the region",
        )
        for name, who, x in zip("AB", people, (0.15, 0.6), strict=True)
    ]
    group = canvas.add(
        "FlashFaceIdentityGroup",
        identity_1=places[0]["FACE_IDENTITY"],
        identity_2=places[1]["FACE_IDENTITY"],
    )
    words = prompts(
        canvas, "A photo of a man and a woman, side by side, in an autumn park", of.clip
    )
    face = applied(canvas, group["FACE_IDENTITY"], of, words.negative)
    who = [[photos[0]], [people[0]], [photos[1]], [people[1]], [*places], [group]]
    lay_above_people(canvas, of, faces, words, face, size(canvas, 1024, 640), who)


def mixing(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos, people = pair(canvas, faces)
    mix = canvas.add(
        "FlashFaceIdentityMix",
        identity_a=people[0]["FACE_IDENTITY"],
        identity_b=people[1]["FACE_IDENTITY"],
        ratio=0.5,
    )
    words = prompts(canvas, "A portrait photo of a 25 years old person, in a city", of.clip)
    face = applied(canvas, mix["FACE_IDENTITY"], of, words.negative, place={})
    who = [[photos[0]], [people[0]], [photos[1]], [people[1]], [mix]]
    lay_above_people(canvas, of, faces, words, face, size(canvas), who)


def best_of_n(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    one = photo(canvas)
    who = person(canvas, one, faces)
    words = prompts(
        canvas, "A portrait photo of a young woman, 30 years old, in an autumn park", of.clip
    )
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas, pictures=4)
    drawn = sampler(canvas, face.model, words.positive, words.negative, latent["LATENT"])
    decoded = decode(canvas, drawn, of)
    compared = canvas.add(
        "FlashFaceSimilarity",
        image=decoded["IMAGE"],
        identity=who["FACE_IDENTITY"],
        detector=faces["FACE_DETECTOR"],
    )
    every = show(canvas, decoded["IMAGE"], "All four", box=(420, 450))
    best = save(canvas, compared["best"], "The best")
    report = canvas.add("PreviewAny", "Report", source=compared["report"])
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
        ],
        [
            Group("5. Pictures", [[latent, drawn], [decoded, compared], [every]]),
            Group("6. The best", [[best], [report]]),
        ],
    )


def character_sheet(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    one = photo(canvas)
    who = person(canvas, one, faces)
    negative = text(canvas, NEGATIVE, of.clip, "Negative prompt")
    words = negative["CONDITIONING"]
    face = applied(canvas, who["FACE_IDENTITY"], of, words, place={})
    latent = size(canvas, SIZE, SIZE)
    columns = []
    for title, said in POSES.items():
        prompt = text(canvas, f"{said}, {QUALITY}", of.clip, title)
        drawn = sampler(
            canvas, face.model, prompt["CONDITIONING"], words, latent["LATENT"], f"Draws {title}"
        )
        decoded = decode(canvas, drawn, of)
        saved = canvas.add(
            "SaveImage",
            f"Picture {title}",
            (360, 380),
            images=decoded["IMAGE"],
            filename_prefix="FlashFace",
        )
        columns.append([prompt, drawn, decoded, saved])
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. What nobody wants", [[negative, latent]]),
            Group("4. FlashFace", face.columns),
        ],
        [Group("5. Pictures", columns)],
    )


def save_identity(canvas: Canvas) -> None:
    faces = detector(canvas)
    photos = [photo(canvas, f"Photo {n}") for n in range(1, 5)]
    people = appended(canvas, photos, faces)
    kept = canvas.add("FlashFaceIdentitySave", identity=people[-1]["FACE_IDENTITY"], filename=SAVED)
    shown = show(canvas, people[-1]["preview"], "What was found in the last photo")
    pairs = [[one, who] for one, who in zip(photos, people, strict=True)]
    canvas.lay(
        [Group("1. Photos", [[faces], *pairs])],
        [Group("2. Kept", [[shown], [kept]])],
    )


def saved_identity(canvas: Canvas) -> None:
    of = models(canvas)
    who = canvas.add("FlashFaceIdentityLoad", filename=f"{SAVED}.safetensors")
    words = prompts(
        canvas, "A portrait photo of a young woman, 30 years old, in a library", of.clip
    )
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group("1. Models and who", [[*of.nodes, who]]),
            Group("2. Prompts", [words.nodes]),
            Group("3. FlashFace", face.columns),
            Group("4. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ]
    )
