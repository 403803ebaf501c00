"""What Face2Diffusion and FaceStudio claim for themselves, measured on toy people."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flashface_core.comfy_adapter.face2diffusion import (
    Face2Diffusion,
    encode_text,
    load_face2diffusion,
)
from flashface_core.comfy_adapter.facestudio.apply import apply_facestudio
from flashface_core.comfy_adapter.facestudio.networks import FaceStudio, load_facestudio
from flashface_core.comfy_adapter.flashface.tiny import load_tiny_clip
from flashface_core.face2diffusion.word import PLACEHOLDER
from flashface_core.people.identity import Identity, join_people
from flashface_core.people.place import Place
from toy_world.draw import CROP, face_crop
from toy_world.draw import draw as draw_people
from toy_world.people import People
from toy_world.scenes import PARTS, Scenes, captions
from training.identity_measures import bootstrap_interval
from training.sampling import identity_of, region_masks, sample

from .measure import TEXT
from .pictures import draw_pictures
from .systems_under_test import (
    FACES,
    MAPPING,
    STRANGER,
    STUDIO,
    Conditioned,
    System,
    Systems,
    joined,
    style_image,
)
from .text import with_person
from .together import NEIGHBOURS

HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0))


def adults(evaluation) -> Callable[[int], list[int]]:
    """The numbers of a person's pictures as an adult."""
    each = len(evaluation.labels)
    kept = [i for i, age in enumerate(evaluation.labels) if age == "adult"]
    return lambda person: [person * each + i for i in kept]


def rows_of(evaluation) -> list[int]:
    return [n for person in range(evaluation.people) for n in adults(evaluation)(person)]


def read(evaluation, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cosines (N, 50) to the gallery, and attributes."""
    with torch.no_grad():
        found = evaluation.probes.find(pictures)
        embedding, values = evaluation.probes.read(pictures, found)
    return embedding @ evaluation.cast.gallery[:NEIGHBOURS].T, values


def _share(right: Tensor) -> float:
    return right.float().mean().item()


def class_guidance(
    evaluation, systems: Systems, trained_with: Path, without: Path
) -> dict[str, float]:
    """Pictures of adults by two mapping networks of one recipe, with CGDR and without it.

    change: mean difference to the pictures without a person's word, at the head and elsewhere:
    there the text alone decides. agreement: mean probability that the readers give to what the text
    asks for. Neither is saturated where the share of right answers is; what CGDR gains in them has
    an interval over people.
    """
    encoders = systems.folder / FACES
    files = {"with": trained_with, "without": without}
    mappings = {name: load_face2diffusion(path, encoders) for name, path in files.items()}
    result, agreements, elsewhere = {}, {}, {}
    rows = torch.tensor(rows_of(evaluation))
    owner = rows // len(evaluation.labels)
    plain = draw_pictures(evaluation, systems.makers["no reference"](), 4, adults(evaluation))
    head = region_masks(around(evaluation.probes.find(plain)), evaluation.size)[:, None]
    for name, words in mappings.items():
        pictures = draw_pictures(evaluation, systems.face2diffusion(words), 4, adults(evaluation))
        change = (pictures - plain).abs().mean(1, keepdim=True)
        result[f"{name}_cgdr_change_at_head"] = change[head].mean().item()
        result[f"{name}_cgdr_change_elsewhere"] = change[~head].mean().item()
        outside = (~head).sum((1, 2, 3)).clamp(min=1)
        elsewhere[name] = (change * ~head).sum((1, 2, 3)) / outside
        cosines, values = read(evaluation, pictures)
        result[f"{name}_cgdr_similarity"] = cosines.gather(1, owner[:, None]).mean().item()
        result[f"{name}_cgdr_identification"] = _share(cosines.argmax(1) == owner)
        for what in ("background", "clothes", "expression"):
            truth = evaluation.cast.truth[what][rows]
            result[f"{name}_cgdr_{what}"] = _share(values[what] == truth)
        agreements[name] = agreement(evaluation, pictures, rows)
        result[f"{name}_cgdr_agreement"] = agreements[name].mean().item()
    gains = {
        "agreement": agreements["with"] - agreements["without"],
        "elsewhere": elsewhere["without"] - elsewhere["with"],
    }
    for name, gain in gains.items():
        result[f"cgdr_{name}_gain"] = gain.mean().item()
        low, high = bootstrap_interval(gain, owner)
        result |= {f"cgdr_{name}_gain_low": low, f"cgdr_{name}_gain_high": high}
    return result


@torch.no_grad()
def agreement(evaluation, pictures: Tensor, rows: Tensor) -> Tensor:
    """(R,): the mean probability of background, clothes and expression that were asked for."""
    probes, truth = evaluation.probes, evaluation.cast.truth
    _, logits = probes.look(face_crop(pictures, probes.find(pictures), CROP))
    logits |= probes.look_around(pictures)
    parts = [
        logits[name].float().softmax(1).gather(1, truth[name][rows][:, None])[:, 0] for name in TEXT
    ]
    return torch.stack(parts).mean(0)


def around(boxes: Tensor) -> Tensor:
    """Face boxes (B, 4), larger by a quarter of their side at every edge: with the hair."""
    margin = (boxes[:, 2:] - boxes[:, :2]) / 4
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], 1)


def expressions(evaluation, words: Face2Diffusion) -> dict[str, float]:
    """Prompts that tell everything but the expression, with a photo of somebody that shows one."""
    cast, models, clip = evaluation.cast, evaluation.models, load_tiny_clip(layers=2)
    negative = [[models.encode_text([""]), {}]]
    silent = captions(cast.scenes, [part for part in PARTS if part != "expression"])
    kinds = len(Scenes.names("expression"))
    rows = rows_of(evaluation)

    def photo_for(number: int) -> Identity:
        """Of a stranger, with the expression that this picture shall have."""
        scene = Scenes.draw_from(0, "test", [STRANGER + number])
        scene = scene.with_values(age="adult", expression=number % kinds)
        person = People.draw_from(0, "test", [STRANGER + number])
        return identity_of(face_crop(*draw_people(person, scene), CROP))

    def system(told: list[str], has_photo: bool) -> System:
        def condition(identity, numbers, guidance):
            photo = [words.expression(photo_for(n)) if has_photo else None for n in numbers]
            given = [
                encode_text(clip, words, identity, with_person(told[n]), PLACEHOLDER, one)
                for n, one in zip(numbers, photo, strict=True)
            ]
            return Conditioned(models.model, joined(given), negative)

        return System(condition, 0)

    wanted = torch.tensor([n % kinds for n in rows])
    in_text = cast.truth["expression"][torch.tensor(rows)]
    result = {}
    for name, told, has_photo, truth in (
        ("expression_of_photo", silent, True, wanted),
        ("expression_of_photo_not_given", silent, False, wanted),
        ("expression_of_text", cast.captions, False, in_text),
        ("expression_of_photo_against_text", cast.captions, True, wanted),
    ):
        pictures = draw_pictures(evaluation, system(told, has_photo), 4, adults(evaluation))
        result[name] = _share(read(evaluation, pictures)[1]["expression"] == truth)
    return result


def styles(evaluation, studio: FaceStudio) -> dict[str, float]:
    """Style images of strangers, with the person's face, and alone."""
    model = apply_facestudio(evaluation.models.model, studio)
    rows = torch.tensor(rows_of(evaluation))
    owner = rows // len(evaluation.labels)
    result = {}
    for name, has_face in (("style_and_face", True), ("style_alone", False)):

        def condition(identity, numbers, guidance, has_face=has_face):
            person = identity if has_face else without_face(identity)
            made = [
                studio.encode(person, style_image=style_image(evaluation.cast, n)) for n in numbers
            ]
            return Conditioned(model, joined([one for one, _ in made]), made[0][1])

        pictures = draw_pictures(evaluation, System(condition, 0), 4, adults(evaluation))
        cosines, values = read(evaluation, pictures)
        result[f"{name}_similarity"] = cosines.gather(1, owner[:, None]).mean().item()
        result[f"{name}_identification"] = _share(cosines.argmax(1) == owner)
        for what in ("background", "clothes", "style"):
            result[f"{name}_{what}"] = _share(values[what] == evaluation.cast.truth[what][rows])
    return result


def without_face(identity: Identity) -> Identity:
    """No photo counts: the style alone."""
    references = tuple(replace(reference, weight=0.0) for reference in identity.references)
    return replace(identity, references=references)


def two_people(evaluation, studio: FaceStudio) -> dict[str, float]:
    """Two people in the halves of one picture: how many faces are their own, and the other's."""
    models, size = evaluation.models, evaluation.size
    model, pictures = apply_facestudio(models.model, studio), []
    for pair in range(evaluation.people // 2):
        people = zip((2 * pair, 2 * pair + 1), HALVES, strict=True)
        group = join_people(
            [evaluation.identity(person, 4).with_place(Place(half)) for person, half in people]
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
        "two_people_own": _share(nearest == own),
        "two_people_confused": _share(nearest == (own ^ 1)),
    }


def all_of(evaluation, systems: Systems) -> dict[str, float]:
    """All but CGDR, for which it takes a second network."""
    words = load_face2diffusion(systems.folder / MAPPING, systems.folder / FACES)
    studio = load_facestudio(systems.folder / STUDIO)
    found = expressions(evaluation, words) | styles(evaluation, studio)
    return found | two_people(evaluation, studio)
