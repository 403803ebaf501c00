"""The systems whose pictures are the bounds of training.tiny.bounds."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor, nn

from flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.comfy_adapter.flashface.tiny import VAE
from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.tiny_text import WIDTH
from toy_world.factors import Factors
from toy_world.people import People
from toy_world.scenes import Scenes
from training.base import OnFrozenUNet
from training.data import PeopleInMemory
from training.face2diffusion import PROMPT
from training.face_fusion import FaceFusionNetworks
from training.facestudio import FACE, STYLE, WHOLE, FaceStudioNetworks
from training.networks import Networks
from training.trainer import Trainer

from .autoencoder import load_autoencoder
from .base_file import read_models
from .described import WHO, know_who, name_vectors
from .encode import encode_pictures, join_people
from .evaluation import ToyEvaluation
from .pictures import draw_pictures
from .recipe import COMMON
from .systems import FACE_FUSION, FACESTUDIO, TRAIN, WEIGHTS
from .systems_under_test import Conditioned, System, Systems
from .text import ToyText, with_person

DRAWINGS = 24  # per person
AFTER_EVALUATION = 10**6  # the first scene that no evaluation draws


def measure(
    name: str, evaluation: ToyEvaluation, folder: Path, steps: int, work: Path
) -> dict[str, float]:
    """name: of bounds.BOUNDS. folder: of the tiny models. work: an empty folder."""
    system = MAKERS[name](evaluation, folder, steps, work)
    each = len(evaluation.labels)
    pictures = draw_pictures(evaluation, system, 4, lambda n: [*range(n * each, (n + 1) * each)])
    return evaluation.measure(pictures)


def learned_words(evaluation: ToyEvaluation, folder: Path, steps: int, work: Path) -> System:
    text = text_to_train()
    networks = Words(read_models(folder), text, evaluation.people)
    people = people_to_learn(evaluation, folder, DRAWINGS)
    fit(networks, people, text, steps, work, 2e-2, max_gradient_norm=1.0)
    words = networks.words.detach()
    return told_words(evaluation, lambda person: words[person])


def known_names(evaluation: ToyEvaluation, folder: Path, steps: int, work: Path) -> System:
    people = People.draw_from(evaluation.seed, "test", evaluation.people)
    names = name_vectors(people, ToyText())
    return told_words(evaluation, lambda person: names[person])


def fusion_on_the_same(evaluation: ToyEvaluation, folder: Path, steps: int, work: Path) -> System:
    networks = FaceFusionNetworks(read_models(folder))
    people = people_to_learn(evaluation, folder, DRAWINGS)
    fit(networks, people, text_to_train(), steps, work, TRAIN[FACE_FUSION].learning_rate)
    path = work / WEIGHTS[FACE_FUSION]
    networks.save(path)
    return System(Systems(evaluation, folder).fusion(load_face_fusion(path)), 0)


def told_attributes(evaluation: ToyEvaluation, folder: Path, steps: int, work: Path) -> System:
    """FaceStudio, told the truth in place of what encoders see."""
    start, cast = read_models(folder), evaluation.cast
    people = people_to_learn(evaluation, folder, DRAWINGS)
    faces = unit_numbers(People.draw_from(evaluation.seed, "test", evaluation.people))
    scenes = Scenes.draw_from(evaluation.seed, "test", scenes_to_learn(len(people) * DRAWINGS))
    styles = unit_numbers(scenes)
    people.seen |= {FACE: faces[people.seen[WHO][:, 0].long()], STYLE: styles, WHOLE: styles}
    networks = FaceStudioNetworks(start, styles.shape[1], faces.shape[1])
    usual = TRAIN[FACESTUDIO]
    fit(networks, people, text_to_train(), steps, work, usual.learning_rate, train=usual.train)
    trained = dataclasses.replace(start, target=networks.unet.state_dict())
    model, _ = build_flashface(trained, "fp32")
    negative = [[networks.linear.branch(None, None).detach(), {}]]
    wanted, each = unit_numbers(cast.scenes), len(evaluation.labels)

    @torch.no_grad()
    def condition(identity, numbers, guidance):
        who = [n // each for n in numbers]
        positive = [[networks.linear.branch(wanted[numbers], faces[who]), {}]]
        return Conditioned(model, positive, negative)

    return System(condition, 0)


MAKERS: dict[str, Callable[[ToyEvaluation, Path, int, Path], System]] = {
    "words": learned_words,
    "names": known_names,
    "fusion": fusion_on_the_same,
    "attributes": told_attributes,
}


class Words(OnFrozenUNet):
    """The two tokens of S* of `people` people, before a frozen UNet."""

    parts = ("words",)

    def __init__(self, start: Checkpoint, text: ToyText, people: int) -> None:
        super().__init__(start)
        self.words = nn.Parameter(torch.randn(people, 2, WIDTH) * 0.02)
        self._text = text

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        return [self.words]

    def texts(self, batch) -> list[str]:
        return []

    def forward(self, batch, noisy, texts):
        word = self.words[batch.seen[WHO][:, 0].long()]
        context = self._text.with_word(PROMPT, word)
        return self.predict(noisy, batch.timesteps, context), batch.noise


def people_to_learn(evaluation: ToyEvaluation, folder: Path, count: int) -> PeopleInMemory:
    """Those of the evaluation, in `count` scenes each that it does not have."""
    people = torch.arange(evaluation.people).repeat_interleave(count)
    which = torch.stack([people, torch.tensor(scenes_to_learn(len(people)))], dim=1)
    device = str(PartialState().device)
    encoder = load_autoencoder(folder / VAE, device)
    found = encode_pictures(encoder, evaluation.seed, "test", which, device)
    joined = join_people(evaluation.seed, "test", [found])
    know_who(joined, which)
    return joined


def scenes_to_learn(count: int) -> range:
    return range(AFTER_EVALUATION, AFTER_EVALUATION + count)


def unit_numbers(rows: Factors) -> Tensor:
    """All factors of people or scenes, (B, W) of length 1: what a perfect encoder would see."""
    columns = []
    for factor in dataclasses.fields(rows):
        value = getattr(rows, factor.name)
        if "names" in factor.metadata:
            columns.append(F.one_hot(value, len(factor.metadata["names"])).float())
        else:
            low, high = factor.metadata["range"]
            columns.append(2 * (value[:, None].float() - low) / (high - low) - 1)
    return F.normalize(torch.cat(columns, dim=1), dim=1)


def fit(
    networks: Networks,
    people: PeopleInMemory,
    text: ToyText,
    steps: int,
    work: Path,
    rate: float,
    **changes,
) -> None:
    """The averaged weights stay in the networks, on the CPU."""
    changes = {"train": networks.parts, **changes}
    recipe = dataclasses.replace(
        COMMON, steps=steps, learning_rate=rate, save_every=steps, **changes
    )
    trainer = Trainer(networks, people, text, recipe, work)
    trainer.run()
    trainer.ema.exchange(networks)
    networks.cpu()


def text_to_train() -> ToyText:
    return ToyText(str(PartialState().device))


def told_words(evaluation: ToyEvaluation, word_of: Callable[[int], Tensor]) -> System:
    """Says word_of(person), (2, 768), in every caption of a person."""
    text, each = ToyText(), len(evaluation.labels)
    negative = [[text([""]), {}]]

    def condition(identity, numbers, guidance):
        told = [
            text.with_word(with_person(evaluation.cast.captions[n]), word_of(n // each)[None])
            for n in numbers
        ]
        return Conditioned(evaluation.models.model, [[torch.cat(told), {}]], negative)

    return System(condition, 0)
