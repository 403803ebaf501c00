"""What each of the other systems claims for itself, measured on people nobody trained on.

    python -m training.toy.claims --people 20 --seed 1 --json FILE [--without-cgdr FILE]

Face2Diffusion: whether an expression photo decides the expression, and without one the text; with
--without-cgdr, a mapping network of the same recipe without class-guided denoising, what that
changes. FaceStudio: whether a style image keeps the style and the face the identity, and two people
in two regions.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from training.comfyui import find_comfyui

from .compare import PLACEHOLDER, STUDIO, WORDS, Conditioned, System, draw, style_image, with_person
from .together import NEIGHBOURS

log = logging.getLogger("flashface.training")


def adults(evaluation):
    """The numbers of a person's pictures as an adult."""
    each = len(evaluation.labels)
    kept = [i for i, age in enumerate(evaluation.labels) if age == "adult"]
    return lambda person: [person * each + i for i in kept]


def read(evaluation, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cosines (N, G) to the gallery, and attributes."""
    with torch.no_grad():
        found = evaluation.yardsticks.find(pictures)
        embedding, values = evaluation.yardsticks.read(pictures, found)
    return embedding @ evaluation.cast.gallery[:NEIGHBOURS].T, values


def expressions(evaluation, words) -> dict[str, float]:
    """Prompts that tell everything but the expression, and photos of others that show one."""
    from flashface_core.comfy_adapter.face2diffusion import encode_text
    from flashface_core.comfy_adapter.tiny import load_tiny_clip
    from training.sampling import identity_of

    from .scenes import PARTS, Scenes, captions

    cast, models, clip = evaluation.cast, evaluation.models, load_tiny_clip()
    negative = [[models.encode_text([""]), {}]]
    silent = captions(cast.scenes, [part for part in PARTS if part != "expression"])
    kinds = len(Scenes.names("expression"))
    rows = [n for person in range(evaluation.people) for n in adults(evaluation)(person)]
    with torch.no_grad():
        _, shown = evaluation.yardsticks.look(cast.crops.flatten(0, 1))
    shown = shown["expression"].argmax(1)
    wanted = torch.tensor([n % kinds for n in rows])

    def photo_of(number: int):
        """Of anybody else, with the expression that this picture shall have."""
        own = number // len(evaluation.labels)
        owner = torch.arange(len(shown)) // cast.crops.shape[1]
        fits = ((shown == number % kinds) & (owner != own)).nonzero()[:, 0]
        return identity_of(cast.crops.flatten(0, 1)[fits[number % len(fits)]][None])

    def condition(told, has_photo):
        def conditioned(identity, numbers, guidance):
            given = [
                encode_text(
                    clip,
                    words,
                    identity,
                    with_person(told[n]),
                    PLACEHOLDER,
                    words.expression(photo_of(n)) if has_photo else None,
                )
                for n in numbers
            ]
            return Conditioned(models.model, [[torch.cat([g[0][0] for g in given]), {}]], negative)

        return conditioned

    result = {}
    for name, told, has_photo in (
        ("expression_of_photo", silent, True),
        ("expression_of_photo_not_given", silent, False),
        ("expression_of_text", cast.captions, False),
        ("expression_of_photo_against_text", cast.captions, True),
    ):
        pictures = draw(evaluation, System(condition(told, has_photo), 0), 4, adults(evaluation))
        _, values = read(evaluation, pictures)
        truth = cast.truth["expression"][torch.tensor(rows)] if name.endswith("_text") else wanted
        if name.endswith("against_text"):
            truth = wanted
        result[name] = (values["expression"] == truth).float().mean().item()
    return result


def styles(evaluation, studio) -> dict[str, float]:
    """Style images of strangers in the scene that is asked for, with the person's face or none."""
    from flashface_core.comfy_adapter.facestudio_apply import apply_facestudio

    models, cast = evaluation.models, evaluation.cast
    model = apply_facestudio(models.model, studio)
    owner = torch.arange(evaluation.people).repeat_interleave(4)
    rows = torch.tensor([n for p in range(evaluation.people) for n in adults(evaluation)(p)])
    result = {}
    for name, has_face in (("style_and_face", True), ("style_alone", False)):

        def condition(identity, numbers, guidance, has_face=has_face):
            person = identity if has_face else without_weights(identity)
            given = [
                studio.encode(person, style_image=style_image(cast, number)) for number in numbers
            ]
            positive, null = (torch.cat([one[i][0][0] for one in given]) for i in (0, 1))
            return Conditioned(model, [[positive, {}]], [[null[:1], {}]])

        pictures = draw(evaluation, System(condition, 0), 4, adults(evaluation))
        cosines, values = read(evaluation, pictures)
        result[f"{name}_similarity"] = cosines[torch.arange(len(owner)), owner].mean().item()
        result[f"{name}_identification"] = (cosines.argmax(1) == owner).float().mean().item()
        for what in ("background", "clothes", "style"):
            right = values[what] == cast.truth[what][rows]
            result[f"{name}_{what}"] = right.float().mean().item()
    return result


def without_weights(identity):
    """The same with no photo that counts: a style without a face."""
    from dataclasses import replace

    return replace(identity, references=tuple(replace(r, weight=0) for r in identity.references))


def two_people(evaluation, studio) -> dict[str, float]:
    """Two people in two regions of one picture, by text alone."""
    from flashface_core.comfy_adapter.facestudio_apply import apply_facestudio
    from flashface_core.identity import join_people
    from flashface_core.place import Place
    from training.sampling import sample

    models, size = evaluation.models, evaluation.size
    model, pictures = apply_facestudio(models.model, studio), []
    halves = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0))
    for pair in range(evaluation.people // 2):
        group = join_people(
            [
                evaluation.identity(person, 4).with_place(Place(half, inside_region=True))
                for person, half in zip((2 * pair, 2 * pair + 1), halves, strict=True)
            ]
        )
        told = [[models.encode_text(evaluation.prompts(2 * pair)[:1]), {}]]
        positive, negative = studio.encode(group, 0.0, text=told)
        seed = evaluation.seed * 10**6 + pair
        given = (model, models.vae, positive, negative, 1, seed, evaluation.settings)
        pictures.append(sample(*given, (size, 2 * size)))
    both = torch.cat(pictures)
    squares = torch.stack([both[..., :size], both[..., size:]], 1).flatten(0, 1)
    nearest = read(evaluation, squares)[0].argmax(1)
    own = torch.arange(len(squares))
    return {
        "two_people_own": (nearest == own).float().mean().item(),
        "two_people_confused": (nearest == (own ^ 1)).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder of tiny models; default: the shipped")
    parser.add_argument("--without-cgdr", type=Path, help="a mapping network to compare with")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.face2diffusion import load_face2diffusion
    from flashface_core.comfy_adapter.facestudio import load_facestudio
    from flashface_core.comfy_adapter.tiny import FOLDER

    from .evaluation import ToyEvaluation

    evaluation, folder = ToyEvaluation(options.people, options.seed, options.models), options.models
    folder = folder or FOLDER
    words = load_face2diffusion(*(folder / name for name in WORDS))
    studio = load_facestudio(folder / STUDIO)
    result = {**expressions(evaluation, words), **styles(evaluation, studio)}
    result |= two_people(evaluation, studio)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in result.items():
        log.info("%32s  %.3f", name, value)


if __name__ == "__main__":
    main()
