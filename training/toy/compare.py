"""All systems on the same people, prompts, noise and sampler: one table.

    python -m training.toy.compare --people 20 --seed 1 --json FILE --out FOLDER

Every row of the table is the shipped tiny model of one system, run through what its nodes call;
"copied expression": of the pictures made from a single photo, in a text that asks for another
expression than that of the photo, how many show the photo's. FaceStudio and Face Fusion have no
place for the face, so nobody's place is given.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from flashface_core.checkpoint_file import read_state_dict
from training.comfyui import find_comfyui
from training.pictures import save_grid

log = logging.getLogger("flashface.training")

PLACEHOLDER = "f l"
WORDS = ("face2diffusion/mapping_tiny.safetensors", "face2diffusion/msid_tiny.safetensors")
FLASHFACE = "flashface_tiny.safetensors"
STUDIO, FUSION = (
    "facestudio/facestudio_tiny.safetensors",
    "face_fusion/face_fusion_tiny.safetensors",
)
SHOWN = 6  # people in the grid
COLUMNS = (
    "similarity",
    "identification",
    "text_accuracy",
    "background",
    "expression",
    "child_age",
    "child_identification",
    "elder_age",
    "elder_identification",
    "mark_recovery",
    "copied_expression",
    "seconds_per_picture",
    "trained_parameters",
)


class Conditioned(NamedTuple):
    """What a system gives the sampler for some captions of one person."""

    model: Any
    positive: list
    negative: list


class System(NamedTuple):
    """condition: of an identity, the numbers of pictures of the cast, and FlashFace's guidance.

    parameters: that were trained for it, beside the UNet that all share.
    """

    condition: Callable[[Any, list[int], Any], Conditioned]
    parameters: int


def draw(evaluation, system: System, references: int, rows: Callable[[int], list[int]]) -> Tensor:
    """Of every person, the pictures of the cast that `rows` names."""
    from training.sampling import sample

    pictures, each = [], len(evaluation.labels)
    for person in tqdm(range(evaluation.people), desc="Sampling", unit="person"):
        identity = evaluation.identity(person, references)
        wanted = groupby(
            rows(person), lambda n: evaluation.settings_of(evaluation.settings, n % each)
        )
        for settings, numbers in wanted:
            same = list(numbers)
            given = system.condition(identity, same, settings.guidance)
            seed = evaluation.seed * 10**6 + same[0]
            vae, size = evaluation.models.vae, evaluation.size
            pictures.append(sample(*given[:1], vae, *given[1:], len(same), seed, settings, size))
    return torch.cat(pictures)


def measure(evaluation, system: System) -> tuple[dict[str, float], Tensor]:
    """The row of one system, and its pictures of the cast."""
    each = len(evaluation.labels)
    start = time.monotonic()
    pictures = draw(
        evaluation, system, 4, lambda person: [*range(person * each, (person + 1) * each)]
    )
    seconds = (time.monotonic() - start) / len(pictures)
    found = evaluation.measure(pictures)
    found["copied_expression"] = copied_expression(evaluation, system)
    found |= {"seconds_per_picture": seconds, "trained_parameters": system.parameters}
    # With one person there may be no mark to recover.
    return {name: found[name] for name in COLUMNS if found[name] == found[name]}, pictures


def copied_expression(evaluation, system: System) -> float:
    """From one photo each, of the adults whose text asks for another expression than it has."""
    cast, yardsticks, each = evaluation.cast, evaluation.yardsticks, len(evaluation.labels)
    adults = [i for i, age in enumerate(evaluation.labels) if age == "adult"]
    pictures = draw(evaluation, system, 1, lambda person: [person * each + i for i in adults])
    rows = torch.tensor([n * each + i for n in range(evaluation.people) for i in adults])
    with torch.no_grad():
        _, values = yardsticks.read(pictures, yardsticks.find(pictures))
        _, photos = yardsticks.look(cast.crops[:, 0])
    photo = photos["expression"].argmax(1).repeat_interleave(len(adults))
    differ = photo != cast.truth["expression"][rows]
    return (values["expression"] == photo)[differ].float().mean().item()


def make_systems(evaluation, folder: Path) -> dict[str, System]:
    """folder: of the tiny models, with a folder for each system."""
    from flashface_core.comfy_adapter.apply import apply_features
    from flashface_core.comfy_adapter.face2diffusion import encode_text, load_face2diffusion
    from flashface_core.comfy_adapter.face_fusion import (
        FaceFusion,
        collect_photos,
        load_face_fusion,
    )
    from flashface_core.comfy_adapter.face_fusion_apply import apply_fusion
    from flashface_core.comfy_adapter.facestudio import load_facestudio
    from flashface_core.comfy_adapter.facestudio_apply import apply_facestudio
    from flashface_core.comfy_adapter.from_model import reference_net_from_model
    from flashface_core.comfy_adapter.tiny import load_tiny_clip

    models, cast = evaluation.models, evaluation.cast
    negative = [[models.encode_text([""]), {}]]
    words, clip = load_face2diffusion(*(folder / name for name in WORDS)), load_tiny_clip()
    studio = load_facestudio(folder / STUDIO)
    studio_model = apply_facestudio(models.model, studio)

    def told(numbers: list[int]) -> list:
        return [[models.encode_text([cast.captions[n] for n in numbers]), {}]]

    def nobody(identity, numbers, guidance):
        return Conditioned(models.model, told(numbers), negative)

    def features(net):
        def condition(identity, numbers, guidance):
            seen = net.encode(identity, models.vae, negative)
            model = apply_features(models.model, seen, guidance)
            return Conditioned(model, told(numbers), negative)

        return condition

    def face2diffusion(identity, numbers, guidance):
        prompts = [with_person(cast.captions[n]) for n in numbers]
        given = [encode_text(clip, words, identity, prompt, PLACEHOLDER) for prompt in prompts]
        return Conditioned(models.model, [[torch.cat([g[0][0] for g in given]), {}]], negative)

    def facestudio(alpha: float):
        def condition(identity, numbers, guidance):
            given = []
            for n in numbers:  # the style image: another person in the scene that is asked for
                style = style_image(cast, n) if alpha else None
                given.append(studio.encode(identity, alpha, False, style, told([n])))
            positive, null = (torch.cat([one[which][0][0] for one in given]) for which in (0, 1))
            return Conditioned(studio_model, [[positive, {}]], [[null[:1], {}]])

        return condition

    def fusion(weights):
        def condition(identity, numbers, guidance):
            photos = collect_photos(weights, identity, models.vae, negative)
            return Conditioned(apply_fusion(models.model, photos), told(numbers), negative)

        return condition

    of_studio = trained_parameters(folder / STUDIO, ("linear.", "unet."))
    return {
        "FlashFace": System(features(models.net), trained_parameters(folder / FLASHFACE)),
        "Face2Diffusion": System(face2diffusion, trained_parameters(folder / WORDS[0])),
        "FaceStudio, text": System(facestudio(0.0), of_studio),
        "FaceStudio, style image": System(facestudio(1.0), of_studio),
        "Face Fusion": System(
            fusion(load_face_fusion(folder / FUSION)), trained_parameters(folder / FUSION)
        ),
        "Face Fusion, training-free": System(fusion(FaceFusion()), 0),
        "training-free reference": System(features(reference_net_from_model(models.model)), 0),
        "no reference": System(nobody, 0),
    }


def trained_parameters(path: Path, prefixes: tuple[str, ...] = ("",)) -> int:
    """Values in the tensors of a file whose names begin so."""
    state, _ = read_state_dict(path)
    return sum(value.numel() for key, value in state.items() if key.startswith(prefixes))


def with_person(caption: str) -> str:
    """The same with Face2Diffusion's placeholder."""
    return caption.replace("a portrait of ", f"a portrait of {PLACEHOLDER}, ", 1)


def style_image(cast, number: int) -> Tensor:
    """IMAGE of a person nobody asked for, in the scene and at the age of a picture of the cast."""
    from .draw import draw as draw_people
    from .people import People

    stranger = People.draw_from(0, "test", [10_000 + number])
    pictures, _ = draw_people(stranger, cast.scenes[number : number + 1])
    return pictures.movedim(1, -1)


def markdown(table: dict[str, dict[str, float]]) -> str:
    """Measures down, systems across."""
    lines = ["| measure | " + " | ".join(table) + " |", "| --- |" + " ---: |" * len(table)]
    for name in COLUMNS:
        form = "{:,}" if name == "trained_parameters" else "{:.3f}"
        told = [form.format(row[name]) if name in row else "" for row in table.values()]
        lines.append("| " + " | ".join([name.replace("_", " "), *told]) + " |")
    return "\n".join(lines) + "\n"


def save_pictures(path: Path, evaluation, drawn: dict[str, Tensor]) -> None:
    """A row per person: photos, then every system's picture of a scene, another age in each row."""
    each = len(evaluation.labels)
    people = range(min(SHOWN, evaluation.people))
    kinds = list(dict.fromkeys(evaluation.labels))
    numbers = [n * each + evaluation.labels.index(kinds[n % len(kinds)]) for n in people]
    rows = [[pictures[number] for pictures in drawn.values()] for number in numbers]
    save_grid(path, [evaluation.crops(n) for n in people], rows, list(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder of tiny models; default: the shipped")
    parser.add_argument("--systems", nargs="+", help="default: all")
    parser.add_argument("--json", type=Path, help="file for an object of numbers per system")
    parser.add_argument("--out", type=Path, help="folder for the table and a grid of pictures")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.tiny import FOLDER

    from .evaluation import ToyEvaluation

    evaluation = ToyEvaluation(options.people, options.seed, options.models)
    systems = make_systems(evaluation, options.models or FOLDER)
    table, drawn = {}, {}
    for name in options.systems or systems:
        table[name], drawn[name] = measure(evaluation, systems[name])
        told = ", ".join(f"{key} {value:.3f}" for key, value in table[name].items())
        log.info("%s: %s", name, told)
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "systems.md").write_text(markdown(table))
        save_pictures(options.out / "systems.png", evaluation, drawn)


if __name__ == "__main__":
    main()
