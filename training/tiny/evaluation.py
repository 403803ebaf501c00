"""The tiny models on toy people that nobody has trained on."""

from pathlib import Path

import torch
from torch import Tensor

from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.comfy_adapter.flashface.tiny import (
    FLASHFACE,
    FOLDER,
    VAE,
    load_tiny_clip,
    load_vae,
)
from flashface_core.errors import FlashFaceError
from flashface_core.flashface.guidance import PRESETS, Guidance
from flashface_core.people.identity import Identity
from toy_world.draw import SIZE
from training.evaluation import Evaluation, Measures
from training.sampling import Models, Settings, clip_encoder, identity_of

from .base_file import BASE, read_models
from .measure import AGES, cast, intervals, read, summary
from .probes import PROBES, load_probes


class ToyEvaluation(Evaluation):
    """The first `people` people of the test stream of `seed`: four pictures of the adult, two of
    the child, two of the elder, each in a scene and a place of its own. Other ages are drawn with
    the authors' preset for them ("change age"), adults with the default guidance.

    folder: of tiny models; the base alone will do before its FlashFace is made. Raises
    FlashFaceError for a folder without the tiny models.
    """

    settings = Settings()
    size = SIZE
    labels = AGES
    compared = ("identification", "similarity", "text_accuracy", "mark_recovery")

    def __init__(self, people: int, seed: int, folder: Path | None = None) -> None:
        folder = folder or FOLDER
        networks = BASE if (folder / BASE).is_file() else FLASHFACE
        missing = [name for name in (networks, VAE, PROBES) if not (folder / name).is_file()]
        if missing:
            raise FlashFaceError(
                f"There is no {missing[0]} in {folder}, expected the files that "
                "python -m training.tiny.make --out FOLDER leaves; give that folder as --models."
            )
        self.probes = load_probes(folder / PROBES)
        self.cast = cast(seed, people, self.probes)
        model, net = build_flashface(read_models(folder), "fp32")
        told = ["", *dict.fromkeys(self.cast.captions)]
        texts = dict(zip(told, clip_encoder(load_tiny_clip(layers=2))(told), strict=True))

        def encode_text(captions: list[str]) -> Tensor:
            return torch.stack([texts[caption] for caption in captions])

        super().__init__(Models(model, net, encode_text, load_vae(folder / VAE)), seed)

    @property
    def people(self) -> int:
        return len(self.cast.crops)

    def crops(self, person: int) -> list[Tensor]:
        return list(self.cast.crops[person])

    def identity(self, person: int, references: int) -> Identity:
        return identity_of(self.cast.crops[person, :references])

    def prompts(self, person: int) -> list[str]:
        return self.cast.captions[person * len(AGES) :][: len(AGES)]

    def boxes(self, person: int) -> Tensor:
        return self.cast.boxes[person * len(AGES) :][: len(AGES)]

    def settings_of(self, settings: Settings, prompt: int) -> Settings:
        """The authors' preset where the text asks for another age; what is swept, is for all."""
        if settings is not self.settings or AGES[prompt] == "adult":
            return settings
        return settings._replace(guidance=Guidance(*PRESETS["change age"]))

    def measure(self, pictures: Tensor) -> Measures:
        return summary(read(pictures, self.cast, self.probes), self.cast)

    def intervals(self, pictures: Tensor) -> dict[str, tuple[float, float]]:
        return intervals(read(pictures, self.cast, self.probes), self.cast)

    def bounds(self) -> dict[str, Measures]:
        """What the probes see in the true drawings."""
        return {"of_drawings": self.measure(self.cast.drawings)}
