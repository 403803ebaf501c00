"""The first workflow, and those for photographs: for the canvas, and in API form.

    .comfy/venv/bin/python tools/draw_workflows.py

Writes workflows/NAME.json and workflows/api/NAME.json of every graph below; what their notes say
stands in tools/workflow_notes/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canvas import Canvas, Group, Node
from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from workflow_parts import (
    NEGATIVE,
    PHOTO,
    QUALITY,
    SIZE,
    Models,
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

NOTES = Path(__file__).parent / "workflow_notes"


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        info = server.get("/object_info")
    for name, draw in GRAPHS.items():
        canvas = Canvas(name, info)
        draw(canvas)
        note = (NOTES / f"{name}.md").read_text(encoding="utf-8").strip()
        canvas.note(note.replace("{FILES}", (NOTES / "files.md").read_text(encoding="utf-8")))
        for path, form in (
            (REPO / "workflows" / f"{name}.json", canvas.for_canvas()),
            (REPO / "workflows" / "api" / f"{name}.json", canvas.for_api()),
        ):
            text = json.dumps(form, indent=2, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")
            print(path)


def start_here(canvas: Canvas) -> None:
    """On the tiny models, with nothing to download or to choose."""
    tiny = canvas.add("FlashFaceTinyModels")
    of = Models([tiny], *(tiny[name] for name in ("MODEL", "REFERENCE_NET", "CLIP", "VAE")))
    photos = canvas.add("FlashFaceTinyPhotos", "Photos", person=0)
    who = canvas.add("FlashFaceIdentity", image=photos["photos"])
    positive = text(
        canvas,
        "a portrait of a child, smiling, wearing a yellow raincoat, by the sea, flat colours, "
        "morning sun, upright",
        of.clip,
    )
    negative = text(canvas, "", of.clip, "Negative prompt")
    prompt, no_words = positive["CONDITIONING"], negative["CONDITIONING"]
    head = dict(x=0.19, y=0.2, width=0.62, height=0.62)
    face = applied(canvas, who["FACE_IDENTITY"], of, no_words, "custom", place=head)
    latent = size(canvas, 128, 128)
    drawn = sampler(
        canvas, face.model, prompt, no_words, latent["LATENT"], steps=20, cfg=5.0, sampler="euler"
    )
    decoded = decode(canvas, drawn, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [[tiny]]),
            Group("2. Who", [[photos], [who]]),
            Group("3. Prompts", [[positive, negative]]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, decoded], [saved]]),
        ],
    )


def portrait(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos = [photo(canvas, f"Photo {n}") for n in range(1, 5)]
    people: list[Node] = []
    for one in photos:
        before: dict[str, Any] = {"append_to": people[-1]["FACE_IDENTITY"]} if people else {}
        people.append(person(canvas, one, faces, **before))
    words = prompts(
        canvas,
        "A portrait photo of a young woman, 30 years old, in a knitted sweater, in an autumn park",
        of.clip,
    )
    crops = show(canvas, people[-1]["faces"], "Face crops of the last photo")
    face = applied(canvas, people[-1]["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ],
        [
            Group(
                "2. Who", [*([one, who] for one, who in zip(photos, people, strict=True)), [crops]]
            ),
        ],
    )


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


def into_picture(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    scene = canvas.add("LoadImage", "The picture, with a painted mask", image=PHOTO)
    one = photo(canvas, "Photo of the person")
    who = person(canvas, one, faces)
    words = prompts(canvas, "A portrait photo of a young woman, 30 years old", of.clip)
    grown = canvas.add("GrowMask", mask=scene["MASK"], expand=8, tapered_corners=True)
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={"mask": grown["MASK"]})
    encoded = canvas.add("VAEEncode", pixels=scene["IMAGE"], vae=of.vae)
    masked = canvas.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=grown["MASK"])
    given = face.model, words.positive, words.negative, masked["LATENT"]
    drawn = sampler(canvas, *given, denoise=0.9)
    decoded = decode(canvas, drawn, of)
    pasted = canvas.add(
        "ImageCompositeMasked",
        "Everything outside of the mask as it was",
        destination=scene["IMAGE"],
        source=decoded["IMAGE"],
        mask=grown["MASK"],
        x=0,
        y=0,
        resize_source=True,  # by a few pixels, where no multiple of 8 was loaded
    )
    saved = save(canvas, pasted)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Picture and mask", [[scene, grown], [encoded, masked]]),
            Group("4. Prompts", [words.nodes]),
        ],
        [
            Group("5. FlashFace", face.columns),
            Group("6. Picture", [[drawn, decoded, pasted], [saved]]),
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
    latent = size(canvas, 1024, 640)
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ],
        [Group("2. Who", [[photos[0]], [people[0]], [photos[1]], [people[1]], [*places], [group]])],
    )


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
    latent = size(canvas)
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ],
        [Group("2. Who", [[photos[0]], [people[0]], [photos[1]], [people[1]], [mix]])],
    )


def hires_fix(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    one = photo(canvas)
    who = person(canvas, one, faces)
    words = prompts(
        canvas, "A photo of a young woman, 30 years old, upper body, in an autumn park", of.clip
    )
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    given = face.model, words.positive, words.negative
    first = sampler(canvas, *given, latent["LATENT"], "First pass")
    larger = canvas.add(
        "LatentUpscaleBy", samples=first["LATENT"], upscale_method="bicubic", scale_by=1.5
    )
    second = sampler(canvas, *given, larger["LATENT"], "Second pass, larger", denoise=0.5)
    decoded = decode(canvas, second, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
        ],
        [Group("5. Picture", [[latent, first], [larger, second], [decoded], [saved]])],
    )


def image_to_person(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    drawing = canvas.add("LoadImage", "Drawing or picture", image=PHOTO)
    scaled = canvas.add(
        "ImageScale",
        image=drawing["IMAGE"],
        upscale_method="lanczos",
        width=SIZE,
        height=SIZE,
        crop="center",
    )
    encoded = canvas.add("VAEEncode", pixels=scaled["IMAGE"], vae=of.vae)
    one = photo(canvas, "Photo of the person")
    who = person(canvas, one, faces)
    words = prompts(canvas, "A portrait photo of a young woman, 30 years old", of.clip)
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={})
    given = face.model, words.positive, words.negative, encoded["LATENT"]
    drawn = sampler(canvas, *given, denoise=0.7)
    decoded = decode(canvas, drawn, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. From", [[drawing], [scaled, encoded]]),
            Group("4. Prompts", [words.nodes]),
        ],
        [
            Group("5. FlashFace", face.columns),
            Group("6. Picture", [[drawn, decoded], [saved]]),
        ],
    )


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
    every = show(canvas, decoded["IMAGE"], "All four", size=(420, 450))
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


GRAPHS: dict[str, Callable[[Canvas], None]] = {
    "01_start_here": start_here,
    "02_portrait_from_photos": portrait,
    "03_child_and_elder": change_age,
    "04_face_into_picture": into_picture,
    "05_two_people": two_people,
    "06_mixing": mixing,
    "07_hires_fix": hires_fix,
    "08_drawing_to_person": image_to_person,
    "09_best_of_four": best_of_n,
}

if __name__ == "__main__":
    main()
