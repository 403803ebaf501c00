"""What draw_workflows.py makes workflows of: models, photos, prompts, FlashFace, pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

from canvas import Canvas, Node, Output

HUGGING_FACE = "https://huggingface.co"
PHOTO = "example.png"  # comes with ComfyUI, so that nothing is missing before photos are chosen
SD15, SDXL = "v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"
CHECKPOINTS = {
    SD15: f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}",
    SDXL: f"{HUGGING_FACE}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{SDXL}",
}
SIZE, STEPS, CFG = 768, 25, 7.5
QUALITY = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"
NEGATIVE = (
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of frame, "
    "extra limbs, disfigured, deformed, body out of frame, bad anatomy, watermark, signature, cut "
    "off, low contrast, underexposed, overexposed, bad art, beginner, amateur, distorted face"
)


class Models(NamedTuple):
    nodes: list[Node]
    model: Output
    net: Output
    clip: Output
    vae: Output


def flashface_loader(canvas: Canvas) -> Node:
    return canvas.add(
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


def checkpoint(canvas: Canvas, name: str, title: str | None = None) -> Models:
    """Of another model; it has no REFERENCE_NET."""
    url = CHECKPOINTS.get(name)
    given = [{"name": name, "url": url, "directory": "checkpoints"}] if url else []
    loader = canvas.add("CheckpointLoaderSimple", title, models=given, ckpt_name=name)
    model = loader["MODEL"]
    return Models([loader], model, model, loader["CLIP"], loader["VAE"])


def models(canvas: Canvas) -> Models:
    loader = flashface_loader(canvas)
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


def appended(canvas: Canvas, photos: list[Node], faces: Node) -> list[Node]:
    """One person of several photos; the last node has them all."""
    people: list[Node] = []
    for one in photos:
        before: dict[str, Any] = {"append_to": people[-1]["FACE_IDENTITY"]} if people else {}
        people.append(person(canvas, one, faces, **before))
    return people


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
    guidance: Node | None = None,
) -> Applied:
    """place: None where the identity has one already. guidance: one that others use too."""
    placed = None
    if place is not None:
        placed = canvas.add("FlashFaceIdentityPlace", identity=identity, **place)
        identity = placed["FACE_IDENTITY"]
    encode = canvas.add(
        "FlashFaceEncode", identity=identity, reference_net=of.net, vae=of.vae, negative=negative
    )
    guidance = guidance or canvas.add("FlashFaceGuidance", preset=preset)
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


def scale(canvas: Canvas, loaded: Node) -> Node:
    """A picture cut and resized to the size that is drawn."""
    return canvas.add(
        "ImageScale",
        image=loaded["IMAGE"],
        upscale_method="lanczos",
        width=SIZE,
        height=SIZE,
        crop="center",
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
    seed: int = 1,
) -> Node:
    return canvas.add(
        "KSampler",
        title,
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler="simple",
        denoise=denoise,
    )


def decode(canvas: Canvas, drawn: Node, of: Models) -> Node:
    return canvas.add("VAEDecode", samples=drawn["LATENT"], vae=of.vae)


def save(
    canvas: Canvas,
    pictures: Node | Output,
    title: str | None = None,
    box: tuple[int, int] | None = None,
    prefix: str = "FlashFace",
) -> Node:
    images = pictures if isinstance(pictures, Output) else pictures["IMAGE"]
    return canvas.add("SaveImage", title, box, images=images, filename_prefix=prefix)


def show(canvas: Canvas, images: Output, title: str, **given) -> Node:
    return canvas.add("PreviewImage", title, images=images, **given)


class Picture(NamedTuple):
    steps: list[Node]
    saved: Node

    @property
    def columns(self) -> list[list[Node]]:
        return [self.steps, [self.saved]]


def picture(canvas: Canvas, of: Models, words: Prompts, face: Applied, latent: Output) -> Picture:
    """From a latent to a saved picture, with the settings of the authors."""
    drawn = sampler(canvas, face.model, words.positive, words.negative, latent)
    decoded = decode(canvas, drawn, of)
    return Picture([drawn, decoded], save(canvas, decoded))


def pair(canvas: Canvas, faces: Node) -> tuple[list[Node], list[Node]]:
    """Photos of A and B, and the two people."""
    photos = [photo(canvas, f"Photo of {name}") for name in "AB"]
    people = [person(canvas, one, faces, name=name) for one, name in zip(photos, "AB", strict=True)]
    return photos, people
