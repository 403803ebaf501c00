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
from typing import Any, NamedTuple

from canvas import Canvas, Group, Node, Output
from comfy_server import REPO, ComfyServer
from environment import PRIVATE

HUGGING_FACE = "https://huggingface.co"
PHOTO = "example.png"  # comes with ComfyUI, so that nothing is missing before photos are chosen
SIZE, STEPS, CFG = 768, 25, 7.5
QUALITY = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"
NEGATIVE = (
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of frame, "
    "extra limbs, disfigured, deformed, body out of frame, bad anatomy, watermark, signature, cut "
    "off, low contrast, underexposed, overexposed, bad art, beginner, amateur, distorted face"
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


class Models(NamedTuple):
    nodes: list[Node]
    model: Output
    net: Output
    clip: Output
    vae: Output


def models(canvas: Canvas) -> Models:
    loader = canvas.add(
        "FlashFaceLoader",
        model_name="flashface.ckpt",
        models=[
            {
                "name": "flashface.ckpt",
                "url": f"{HUGGING_FACE}/shilongz/FlashFace-SD1.5/resolve/main/flashface.ckpt",
                "directory": "flashface",
            }
        ],
    )
    clip = canvas.add(
        "CLIPLoader",
        clip_name="clip_l.safetensors",
        type="stable_diffusion",
        device="default",
        models=[
            {
                "name": "clip_l.safetensors",
                "url": f"{HUGGING_FACE}/comfyanonymous/flux_text_encoders/resolve/main/"
                "clip_l.safetensors",
                "directory": "text_encoders",
            }
        ],
    )
    name = "vae-ft-mse-840000-ema-pruned.safetensors"
    url = f"{HUGGING_FACE}/stabilityai/sd-vae-ft-mse-original/resolve/main/{name}"
    vae = canvas.add(
        "VAELoader", vae_name=name, models=[{"name": name, "url": url, "directory": "vae"}]
    )
    return Models(
        [loader, clip, vae], loader["MODEL"], loader["REFERENCE_NET"], clip["CLIP"], vae["VAE"]
    )


def detector(canvas: Canvas) -> Node:
    return canvas.add("FlashFaceDetectorLoader", detector="auto", model_pack="none")


def photo(canvas: Canvas, title: str = "Photo") -> Node:
    return canvas.add("LoadImage", title, image=PHOTO)


def person(
    canvas: Canvas, picture: Node, faces: Node, title: str | None = None, **given: Any
) -> Node:
    return canvas.add(
        "FlashFaceIdentity", title, image=picture["IMAGE"], detector=faces["FACE_DETECTOR"], **given
    )


def text(canvas: Canvas, words: str, clip: Output, title: str = "Positive prompt") -> Node:
    return canvas.add("CLIPTextEncode", title, (360, 170), text=words, clip=clip)


class Prompts(NamedTuple):
    nodes: list[Node]
    positive: Output
    negative: Output


def prompts(canvas: Canvas, words: str, clip: Output) -> Prompts:
    positive = text(canvas, f"{words}, {QUALITY}", clip)
    negative = text(canvas, NEGATIVE, clip, "Negative prompt")
    return Prompts([positive, negative], positive["CONDITIONING"], negative["CONDITIONING"])


class Applied(NamedTuple):
    place: Node | None
    encode: Node
    guidance: Node
    apply: Node
    model: Output

    @property
    def columns(self) -> list[list[Node]]:
        """Guidance beside Apply."""
        first = [self.encode] if self.place is None else [self.place, self.encode]
        return [first, [self.guidance, self.apply]]


def applied(
    canvas: Canvas,
    identity: Output,
    of: Models,
    negative: Output,
    preset: str = "stable identity",
    place: dict[str, Any] | None = None,
) -> Applied:
    """place: None where the identity has one already."""
    placed = None
    if place is not None:
        placed = canvas.add("FlashFaceIdentityPlace", identity=identity, **place)
        identity = placed["FACE_IDENTITY"]
    encode = canvas.add(
        "FlashFaceEncode", identity=identity, reference_net=of.net, vae=of.vae, negative=negative
    )
    guidance = canvas.add("FlashFaceGuidance", preset=preset)
    apply = canvas.add(
        "FlashFaceApply",
        model=of.model,
        features=encode["FACE_FEATURES"],
        guidance=guidance["FACE_GUIDANCE"],
    )
    return Applied(placed, encode, guidance, apply, apply["MODEL"])


def size(canvas: Canvas, width: int = SIZE, height: int = SIZE, pictures: int = 1) -> Node:
    return canvas.add(
        "EmptyLatentImage", "Picture size", width=width, height=height, batch_size=pictures
    )


def sampler(
    canvas: Canvas,
    model: Output,
    positive: Output,
    negative: Output,
    latent: Output,
    title: str | None = None,
    cfg: float = CFG,
    denoise: float = 1.0,
    steps: int = STEPS,
    sampler: str = "ddim",
) -> Node:
    return canvas.add(
        "KSampler",
        title,
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=1,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler="simple",
        denoise=denoise,
    )


def decode(canvas: Canvas, drawn: Node, of: Models) -> Node:
    return canvas.add("VAEDecode", samples=drawn["LATENT"], vae=of.vae)


def save(canvas: Canvas, pictures: Node | Output, title: str | None = None) -> Node:
    images = pictures if isinstance(pictures, Output) else pictures["IMAGE"]
    return canvas.add("SaveImage", title, images=images, filename_prefix="FlashFace")


def show(canvas: Canvas, images: Output, title: str, **given) -> Node:
    return canvas.add("PreviewImage", title, images=images, **given)


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
    picture = decode(canvas, drawn, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [[tiny]]),
            Group("2. Who", [[photos], [who]]),
            Group("3. Prompts", [[positive, negative]]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, picture], [saved]]),
        ],
    )


def portrait(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos = [photo(canvas, f"Photo {n}") for n in range(1, 5)]
    people: list[Node] = []
    for picture in photos:
        before: dict[str, Any] = {"append_to": people[-1]["FACE_IDENTITY"]} if people else {}
        people.append(person(canvas, picture, faces, **before))
    words = prompts(
        canvas,
        "A portrait photo of a young woman, 30 years old, in a knitted sweater, in an autumn park",
        of.clip,
    )
    crops = show(canvas, people[-1]["faces"], "Face crops of the last photo")
    face = applied(canvas, people[-1]["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    drawn = sampler(canvas, face.model, words.positive, words.negative, latent["LATENT"])
    picture = decode(canvas, drawn, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, picture], [saved]]),
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
        picture = decode(canvas, drawn, of)
        columns.append([drawn, picture, save(canvas, picture, title)])
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
    picture = decode(canvas, drawn, of)
    pasted = canvas.add(
        "ImageCompositeMasked",
        "Everything outside of the mask as it was",
        destination=scene["IMAGE"],
        source=picture["IMAGE"],
        mask=grown["MASK"],
        x=0,
        y=0,
        resize_source=False,
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
            Group("6. Picture", [[drawn, picture, pasted], [saved]]),
        ],
    )


def two_people(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos = [photo(canvas, f"Photo of {name}") for name in "AB"]
    people = [person(canvas, one, faces, name=name) for one, name in zip(photos, "AB", strict=True)]
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
    drawn = sampler(canvas, face.model, words.positive, words.negative, latent["LATENT"])
    picture = decode(canvas, drawn, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, picture], [saved]]),
        ],
        [Group("2. Who", [[photos[0]], [people[0]], [photos[1]], [people[1]], [*places], [group]])],
    )


def mixing(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    photos = [photo(canvas, f"Photo of {name}") for name in "AB"]
    people = [person(canvas, one, faces, name=name) for one, name in zip(photos, "AB", strict=True)]
    mix = canvas.add(
        "FlashFaceIdentityMix",
        identity_a=people[0]["FACE_IDENTITY"],
        identity_b=people[1]["FACE_IDENTITY"],
        ratio=0.5,
    )
    words = prompts(canvas, "A portrait photo of a 25 years old person, in a city", of.clip)
    face = applied(canvas, mix["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    drawn = sampler(canvas, face.model, words.positive, words.negative, latent["LATENT"])
    picture = decode(canvas, drawn, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, faces]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, picture], [saved]]),
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
    picture = decode(canvas, second, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
        ],
        [Group("5. Picture", [[latent, first], [larger, second], [picture], [saved]])],
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
    picture = decode(canvas, drawn, of)
    saved = save(canvas, picture)
    canvas.lay(
        [
            Group("1. Models", [of.nodes]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. From", [[drawing], [scaled, encoded]]),
            Group("4. Prompts", [words.nodes]),
        ],
        [
            Group("5. FlashFace", face.columns),
            Group("6. Picture", [[drawn, picture], [saved]]),
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
    picture = decode(canvas, drawn, of)
    compared = canvas.add(
        "FlashFaceSimilarity",
        image=picture["IMAGE"],
        identity=who["FACE_IDENTITY"],
        detector=faces["FACE_DETECTOR"],
    )
    every = show(canvas, picture["IMAGE"], "All four", size=(420, 450))
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
            Group("5. Pictures", [[latent, drawn], [picture, compared], [every]]),
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
