"""Two toy people in one picture, and the face between two, measured on people nobody trained on.

    python -m training.tiny.together --pairs 20 --seed 1 --json FILE --out FOLDER

Every pair is drawn on a canvas of two squares, a face in each, and every half is then read like a
picture of its own: whose face is it, among 50? And every pair is mixed half and half, in the scene
of its first person.
"""

import argparse
import logging

import torch
from torch import Tensor
from tqdm import tqdm

from training.comfyui import find_comfyui
from training.command_line import file_to_write, folder_to_read, folder_to_write, write_json

log = logging.getLogger("flashface.training")

# Of the canvas, which is twice as wide as high: where each face goes, as in the shipped workflow.
BOXES = ((0.1, 0.12, 0.3, 0.6), (0.6, 0.12, 0.3, 0.6))
NEIGHBOURS = 50  # people among whom one is identified


def people_in_one_picture(evaluation, pairs: int) -> tuple[dict[str, float], Tensor]:
    """Fractions of faces that are the own person and the other one of the pair; the pictures."""
    from flashface_core.people.identity import join_people
    from flashface_core.people.place import Place
    from training.sampling import sample_pictures

    size, pictures = evaluation.size, []
    for pair in tqdm(range(pairs), desc="Two people", unit="pair"):
        group = join_people(
            [
                evaluation.identity(person, 4).with_place(Place(box, inside_region=True))
                for person, box in zip((2 * pair, 2 * pair + 1), BOXES, strict=True)
            ]
        )
        caption = evaluation.prompts(2 * pair)[:1]
        given = (evaluation.models, caption, evaluation.seed * 10**6 + pair, evaluation.settings)
        pictures.append(sample_pictures(*given, (size, 2 * size), group))
    both = torch.cat(pictures)
    halves = torch.stack([both[..., :size], both[..., size:]], 1).flatten(0, 1)
    nearest = _cosines(evaluation, halves).argmax(1)
    own = torch.arange(2 * pairs)
    other = own ^ 1
    fractions = {
        "two_people_own": float((nearest == own).float().mean()),
        "two_people_confused": float((nearest == other).float().mean()),
    }
    return fractions, both


def mixes(evaluation, pairs: int) -> tuple[dict[str, float], Tensor]:
    """Cosines of mixed faces to both parents' photos, and of the parents' photos to each other."""
    from flashface_core.people.mix import mix_identities
    from training.sampling import sample_pictures

    pictures = []
    for pair in tqdm(range(pairs), desc="Mixes", unit="pair"):
        mixed = mix_identities(
            evaluation.identity(2 * pair, 4), evaluation.identity(2 * pair + 1, 4), 0.5
        )
        caption, box = evaluation.prompts(2 * pair)[:1], evaluation.boxes(2 * pair)[:1]
        given = (evaluation.models, caption, evaluation.seed * 10**6 + pair, evaluation.settings)
        pictures.append(sample_pictures(*given, evaluation.size, mixed, box))
    drawn = torch.cat(pictures)
    cosines, first = _cosines(evaluation, drawn), torch.arange(0, 2 * pairs, 2)
    rows, gallery = torch.arange(pairs), evaluation.cast.gallery
    to_parents = torch.stack([cosines[rows, first], cosines[rows, first + 1]], 1)
    between = (gallery[first] * gallery[first + 1]).sum(1)
    fractions = {
        "mix_to_parents": float(to_parents.mean()),
        "mix_to_further_parent": float(to_parents.amin(1).mean()),
        "parents_to_each_other": float(between.mean()),
        "mix_closer_than_parents": float((to_parents.amin(1) > between).float().mean()),
    }
    return fractions, drawn


def _cosines(evaluation, pictures: Tensor) -> Tensor:
    """(N, 50) of the faces found in square pictures to the photos of the first 50 people."""
    probes = evaluation.probes
    with torch.no_grad():
        embeddings, _ = probes.read(pictures, probes.find(pictures))
    return embeddings @ evaluation.cast.gallery[:NEIGHBOURS].T


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20, help="at most 25")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--models", type=folder_to_read, help="of tiny models; default: the shipped"
    )
    parser.add_argument("--json", type=file_to_write, required=True)
    parser.add_argument("--out", type=folder_to_write, help="folder for the pictures")
    options = parser.parse_args(arguments)
    if not 1 <= options.pairs <= NEIGHBOURS // 2:
        parser.error(f"--pairs is {options.pairs}; 1 to {NEIGHBOURS // 2} are possible")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from training.pictures import to_image

    from .evaluation import ToyEvaluation

    evaluation = ToyEvaluation(2 * options.pairs, options.seed, options.models)
    together, both = people_in_one_picture(evaluation, options.pairs)
    between, mixed = mixes(evaluation, options.pairs)
    result = {**together, **between, "pairs": options.pairs, "seed": options.seed}
    write_json(options.json, result)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, pictures in (("two_people", both), ("mixes", mixed)):
            to_image(torch.cat(list(pictures[:8]), dim=1)).save(options.out / f"{name}.png")
    for name, value in result.items():
        log.info("%28s  %s", name, f"{value:.3f}" if isinstance(value, float) else value)


if __name__ == "__main__":
    main()
