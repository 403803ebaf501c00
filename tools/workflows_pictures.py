"""Workflows that begin with a picture, or go over one twice."""

from __future__ import annotations

from canvas import Canvas, Group
from workflow_parts import (
    PHOTO,
    SIZE,
    applied,
    decode,
    detector,
    models,
    person,
    photo,
    prompts,
    sampler,
    save,
    scale,
    size,
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
    scaled = scale(canvas, drawing)
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


def face_pass(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    scene = canvas.add("LoadImage", "The picture, of any model", image=PHOTO)
    one = photo(canvas, "Photo of the person")
    who = person(canvas, one, faces)
    words = prompts(canvas, "A portrait photo of a young woman, 30 years old", of.clip)
    cut = canvas.add(
        "FlashFaceCropFace", image=scene["IMAGE"], size=SIZE, detector=faces["FACE_DETECTOR"]
    )
    grown = canvas.add("GrowMask", mask=cut["face"], expand=64, tapered_corners=True)
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={"mask": cut["face"]})
    encoded = canvas.add("VAEEncode", pixels=cut["crop"], vae=of.vae)
    masked = canvas.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=grown["MASK"])
    given = face.model, words.positive, words.negative, masked["LATENT"]
    drawn = sampler(canvas, *given, denoise=0.7)
    decoded = decode(canvas, drawn, of)
    pasted = canvas.add(
        "FlashFacePasteFace",
        image=scene["IMAGE"],
        crop=decoded["IMAGE"],
        face_crop=cut["FACE_CROP"],
        mask=grown["MASK"],
    )
    saved = save(canvas, pasted)
    reports = []
    for title, seen in (("before", cut["crop"]), ("after", decoded["IMAGE"])):
        compared = canvas.add(
            "FlashFaceSimilarity",
            f"Likeness {title}",
            image=seen,
            identity=who["FACE_IDENTITY"],
            detector=faces["FACE_DETECTOR"],
        )
        shown = canvas.add("PreviewAny", f"Report {title}", (300, 160), source=compared["report"])
        reports.append([compared, shown])
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Picture and its face", [[scene, cut], [encoded, grown, masked]]),
            Group("4. Prompts", [words.nodes]),
        ],
        [
            Group("5. FlashFace", face.columns),
            Group("6. Picture", [[drawn, decoded], [pasted], [saved]]),
            Group("7. Before and after", reports),
        ],
    )
