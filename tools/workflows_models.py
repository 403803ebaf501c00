"""Workflows with other models: LoRA, ControlNet, Face2Diffusion, other bases, SDXL."""

from __future__ import annotations

from canvas import Canvas, Group
from workflow_parts import (
    HUGGING_FACE,
    PHOTO,
    SD15,
    SDXL,
    Models,
    applied,
    checkpoint,
    decode,
    detector,
    flashface_loader,
    models,
    person,
    photo,
    picture,
    prompts,
    sampler,
    save,
    scale,
    show,
    size,
    text,
)


def lora_and_controlnet(canvas: Canvas) -> None:
    of, faces = models(canvas), detector(canvas)
    one = photo(canvas, "Photo of the person")
    who = person(canvas, one, faces)
    lora = canvas.add(
        "LoraLoader",
        "Any SD1.5 LoRA",
        model=of.model,
        clip=of.clip,
        lora_name="your_style.safetensors",
        strength_model=0.7,
        strength_clip=0.7,
    )
    words = prompts(
        canvas, "A portrait photo of a young woman, 30 years old, in a city", lora["CLIP"]
    )
    face = applied(
        canvas, who["FACE_IDENTITY"], of._replace(model=lora["MODEL"]), words.negative, place={}
    )
    pose = canvas.add("LoadImage", "Picture whose lines count", image=PHOTO)
    scaled = scale(canvas, pose)
    lines = canvas.add("Canny", image=scaled["IMAGE"])
    name = "control_v11p_sd15_canny_fp16.safetensors"
    url = f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{name}"
    net = canvas.add(
        "ControlNetLoader",
        control_net_name=name,
        models=[{"name": name, "url": url, "directory": "controlnet"}],
    )
    control = canvas.add(
        "ControlNetApplyAdvanced",
        positive=words.positive,
        negative=words.negative,
        control_net=net["CONTROL_NET"],
        image=lines["IMAGE"],
        strength=0.6,
        end_percent=0.7,
    )
    shown = show(canvas, lines["IMAGE"], "Lines")
    latent = size(canvas)
    given = face.model, control["positive"], control["negative"], latent["LATENT"]
    drawn = sampler(canvas, *given)
    decoded = decode(canvas, drawn, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [of.nodes, [lora]]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
            Group("4. FlashFace", face.columns),
        ],
        [
            Group("5. ControlNet", [[pose], [scaled, lines, net], [shown, control]]),
            Group("6. Picture", [[latent, drawn, decoded], [saved]]),
        ],
    )


def face2diffusion(canvas: Canvas) -> None:
    of, faces = checkpoint(canvas, SD15), detector(canvas)
    f2d = canvas.add(
        "Face2DiffusionLoader",
        mapping_name="mapping.pt",
        encoder_name="msid.pt",
    )
    one = photo(canvas)
    who = person(canvas, one, faces)
    positive = canvas.add(
        "Face2DiffusionTextEncode",
        "Positive prompt",
        (360, 240),
        clip=of.clip,
        face2diffusion=f2d["FACE2DIFFUSION"],
        identity=who["FACE_IDENTITY"],
        text="A photo of f l in a forest, reading a book",
    )
    negative = text(canvas, "", of.clip, "Negative prompt")
    latent = size(canvas, 512, 512)
    given = of.model, positive["CONDITIONING"], negative["CONDITIONING"], latent["LATENT"]
    drawn = sampler(canvas, *given, steps=30)
    decoded = decode(canvas, drawn, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, f2d]]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [[positive, negative]]),
            Group("4. Picture", [[latent, drawn, decoded], [saved]]),
        ]
    )


def other_base(canvas: Canvas) -> None:
    flashface, faces = flashface_loader(canvas), detector(canvas)
    sd15 = checkpoint(canvas, SD15, "Plain SD1.5")
    base = checkpoint(canvas, "your_base.safetensors", "The other SD1.5 model")
    difference = canvas.add(
        "ModelMergeSubtract",
        "FlashFace - SD1.5",
        model1=flashface["MODEL"],
        model2=sd15.model,
        multiplier=1.0,
    )
    merged = canvas.add(
        "ModelMergeAdd", "that, on the base", model1=difference["MODEL"], model2=base.model
    )
    of = Models([flashface], merged["MODEL"], flashface["REFERENCE_NET"], base.clip, base.vae)
    one = photo(canvas)
    who = person(canvas, one, faces)
    words = prompts(canvas, "A portrait of a young woman, 30 years old, in a small street", of.clip)
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, place={})
    latent = size(canvas)
    drawn = picture(canvas, of, words, face, latent["LATENT"])
    canvas.lay(
        [
            Group(
                "1. Models and merge",
                [[flashface, *sd15.nodes, *base.nodes], [difference, merged]],
            ),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, *drawn.steps], [drawn.saved]]),
        ],
    )


def training_free(canvas: Canvas) -> None:
    of, faces = checkpoint(canvas, SDXL), detector(canvas)
    net = canvas.add("ReferenceNetFromModel", model=of.model)
    of = of._replace(net=net["REFERENCE_NET"])
    one = photo(canvas)
    who = person(canvas, one, faces, crop_margin=0.3)
    words = prompts(
        canvas, "A portrait photo of a young woman, 30 years old, in an autumn park", of.clip
    )
    face = applied(canvas, who["FACE_IDENTITY"], of, words.negative, "custom")
    latent = size(canvas, 1024, 1024)
    given = face.model, words.positive, words.negative, latent["LATENT"]
    drawn = sampler(canvas, *given, cfg=6.0)
    decoded = decode(canvas, drawn, of)
    saved = save(canvas, decoded)
    canvas.lay(
        [
            Group("1. Models", [[*of.nodes, net]]),
            Group("2. Who", [[faces, one], [who]]),
            Group("3. Prompts", [words.nodes]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, decoded], [saved]]),
        ],
    )
