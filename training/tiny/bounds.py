"""What each method could reach at best on this base UNet: ceilings to read its results against.

    python -m training.tiny.bounds --people 10 --seed 1 --json FILE [--models FOLDER]

words: the two tokens of S* of every person learned directly, from 24 drawings (textual inversion);
no mapping network gives better ones. names: the words for a face, all at once, as the base model
heard them. fusion: Face Fusion's projections learned on the very people that are drawn. A low bound
condemns the world or the base model, a high one the training.
"""

import argparse
import dataclasses
import json
import logging
import tempfile
from pathlib import Path

import torch
from torch import nn

from training.comfyui import find_comfyui

log = logging.getLogger("flashface.training")

DRAWINGS = 24  # per person
BOUNDS = ("words", "names", "fusion")
AFTER_EVALUATION = 10**6  # the first scene that no evaluation draws


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="of 40 pictures")
    parser.add_argument("--bounds", nargs="+", choices=BOUNDS, default=BOUNDS)
    parser.add_argument("--models", type=Path, help="folder of tiny models; default: the shipped")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.flashface.tiny import FOLDER

    from .evaluation import ToyEvaluation

    folder = options.models or FOLDER
    evaluation = ToyEvaluation(options.people, options.seed, folder)
    found = {}
    for name in options.bounds:
        with tempfile.TemporaryDirectory() as work:
            found[name] = bound(name, evaluation, folder, options.steps, Path(work))
        told = ", ".join(f"{key} {value:.3f}" for key, value in found[name].items())
        log.info("%s: %s", name, told)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def bound(name: str, evaluation, folder: Path, steps: int, work: Path) -> dict[str, float]:
    from .pictures import draw_pictures

    system = {
        "words": learned_words,
        "names": known_names,
        "fusion": fusion_on_the_same,
    }[name](evaluation, folder, steps, work)
    each = len(evaluation.labels)
    pictures = draw_pictures(evaluation, system, 4, lambda n: [*range(n * each, (n + 1) * each)])
    return evaluation.measure(pictures)


def people_to_learn(evaluation, folder: Path, count: int):
    """Those of the evaluation, in scenes that it does not have."""
    from flashface_core.comfy_adapter.flashface.tiny import VAE

    from .autoencoder import load_autoencoder
    from .described import know_who
    from .encode import encode_pictures, join_people

    people = torch.arange(evaluation.people).repeat_interleave(count)
    which = torch.stack([people, AFTER_EVALUATION + torch.arange(len(people))], dim=1)
    encoder = load_autoencoder(folder / VAE)
    found = encode_pictures(encoder, evaluation.seed, "test", which)
    joined = join_people(evaluation.seed, "test", [found])
    know_who(joined, which)
    return joined


def start_from(folder: Path):
    from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE
    from flashface_core.flashface.checkpoint import read_checkpoint
    from flashface_core.weights_file import read_state_dict

    return read_checkpoint("tiny", *read_state_dict(folder / FLASHFACE))


def fit(networks, people, text, steps: int, work: Path, rate: float, **changes) -> None:
    from training.trainer import Trainer

    from .recipe import COMMON

    recipe = dataclasses.replace(
        COMMON, steps=steps, learning_rate=rate, train=networks.parts, save_every=steps, **changes
    )
    trainer = Trainer(networks, people, text, recipe, work)
    trainer.run()
    trainer.ema.exchange(networks)


def told_words(evaluation, word_of):
    """A System that says word_of(person), (2, 768), in every caption of a person."""
    from .systems_under_test import Conditioned, System
    from .text import ToyText, with_person

    text, each = ToyText(), len(evaluation.labels)
    negative = [[text([""]), {}]]

    def condition(identity, numbers, guidance):
        told = [
            text.with_word(with_person(evaluation.cast.captions[n]), word_of(n // each)[None])
            for n in numbers
        ]
        return Conditioned(evaluation.models.model, [[torch.cat(told), {}]], negative)

    return System(condition, 0)


def learned_words(evaluation, folder: Path, steps: int, work: Path):
    from .text import ToyText

    text = ToyText()
    networks = words_networks(start_from(folder), text, evaluation.people)
    people = people_to_learn(evaluation, folder, DRAWINGS)
    fit(networks, people, text, steps, work, 2e-2, max_gradient_norm=1.0)
    words = networks.words.detach()
    return told_words(evaluation, lambda person: words[person])


def words_networks(start, text, people: int):
    from training.base import OnFrozenUNet
    from training.face2diffusion import PROMPT

    from .described import WHO

    class Words(OnFrozenUNet):
        parts = ("words",)

        def __init__(self) -> None:
            super().__init__(start)
            self.words = nn.Parameter(torch.randn(people, 2, 768) * 0.02)

        def part_parameters(self, part):
            return [self.words]

        def texts(self, batch):
            return []

        def forward(self, batch, noisy, texts):
            word = self.words[batch.seen[WHO][:, 0].long()]
            context = text.with_word(PROMPT, word)
            return self.predict(noisy, batch.timesteps, context), batch.noise

    return Words()


def known_names(evaluation, folder: Path, steps: int, work: Path):
    from toy_world.people import People

    from .described import name_vectors
    from .text import ToyText

    people = People.draw_from(evaluation.seed, "test", evaluation.people)
    names = name_vectors(people, ToyText())
    return told_words(evaluation, lambda person: names[person])


def fusion_on_the_same(evaluation, folder: Path, steps: int, work: Path):
    from flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
    from training.face_fusion import FaceFusionNetworks

    from .systems import FACE_FUSION, TRAIN, WEIGHTS
    from .systems_under_test import Systems
    from .text import ToyText

    networks = FaceFusionNetworks(start_from(folder))
    people = people_to_learn(evaluation, folder, DRAWINGS)
    fit(networks, people, ToyText(), steps, work, TRAIN[FACE_FUSION].learning_rate)
    path = work / WEIGHTS[FACE_FUSION]
    networks.save(path)
    return Systems(evaluation, folder).fusion(load_face_fusion(path))


if __name__ == "__main__":
    main()
