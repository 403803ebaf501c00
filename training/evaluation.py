"""Identities x prompts through ComfyUI's own sampling: what every evaluation shares."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm

from flashface_core.people.identity import Identity

from .sampling import Models, Settings, sample_pictures

log = logging.getLogger("flashface.training")

Measures = dict[str, float]
SWEEPS: dict[str, tuple[float, ...]] = {
    "feature_strength": (0, 0.3, 0.6, 0.9, 1.2),
    "face_guidance": (0, 1, 2, 3.2, 4.5),
    "launch_timestep": (400, 600, 750, 900, 1000),
    "references": (1, 2, 3, 4),
}
AT_ONCE = 8  # pictures; core divides no batch, however long a list of prompts is


class Evaluation:
    """People, each with reference photos and the same number of prompts.

    settings: of the sampler; those that are not swept. size: of the pictures, in pixels.
    labels: a word per prompt. compared: the measures that plots and short tables show.
    remarks: sentences for the report.
    """

    settings: Settings
    size: int
    labels: Sequence[str]
    compared: Sequence[str]
    remarks: Sequence[str] = ()

    def __init__(self, models: Models, seed: int) -> None:
        self.models, self.seed = models, seed
        self.pictures = self.plain = torch.empty(0)

    @property
    def people(self) -> int:
        raise NotImplementedError

    def crops(self, person: int) -> list[Tensor]:
        """The face crops of a person's photos, (3, h, w) in 0..1 each."""
        raise NotImplementedError

    def identity(self, person: int, references: int) -> Identity:
        """Of the first `references` photos."""
        raise NotImplementedError

    def prompts(self, person: int) -> list[str]:
        raise NotImplementedError

    def boxes(self, person: int) -> Tensor | None:
        """Where the faces shall be, (P, 4) in fractions; None: anywhere."""
        return None

    def settings_of(self, settings: Settings, prompt: int) -> Settings:
        """Of one prompt of a person."""
        return settings

    def measure(self, pictures: Tensor) -> Measures:
        """Of pictures (N * P, 3, H, W) in 0..1, person by person. NaN: nothing to measure."""
        raise NotImplementedError

    def intervals(self, pictures: Tensor) -> dict[str, tuple[float, float]]:
        """Of the means that `measure` gives, with 95 %; those that there are."""
        return {}

    def bounds(self) -> dict[str, Measures]:
        """Measures of other pictures to compare with, by a suffix."""
        return {}

    def draw(self, settings: Settings, references: int | None = None) -> Tensor:
        """Pictures (N * P, 3, size, size); references None: all photos, 0: without FlashFace."""
        pictures = []
        for person in tqdm(range(self.people), desc="Sampling", unit="person"):
            count = len(self.crops(person)) if references is None else references
            identity = self.identity(person, count) if count else None
            prompts, boxes = self.prompts(person), self.boxes(person) if identity else None
            for part, (own, with_settings) in enumerate(self._parts(settings, len(prompts))):
                seed = self.seed * 10**6 + part * 10**5 + person
                given = (self.models, prompts[own], seed, with_settings, self.size, identity)
                pictures.append(
                    sample_pictures(*given, boxes[own] if boxes is not None else None).cpu()
                )
        return torch.cat(pictures)

    def _parts(self, settings: Settings, prompts: int) -> Iterator[tuple[slice, Settings]]:
        """Prompts in a row that have the same settings, AT_ONCE at most."""
        numbers = range(prompts)
        for with_settings, group in groupby(numbers, lambda n: self.settings_of(settings, n)):
            same = list(group)
            for start in range(same[0], same[-1] + 1, AT_ONCE):
                yield slice(start, min(start + AT_ONCE, same[-1] + 1)), with_settings

    def compare(self) -> dict[str, float | int]:
        """Flat: every measure with FlashFace, and `_without`; people, prompts, seconds."""
        start = time.monotonic()
        self.pictures = self.draw(self.settings)
        seconds = (time.monotonic() - start) / len(self.pictures)
        self.plain = self.draw(self.settings, references=0)
        result: dict[str, float | int] = dict(self.measure(self.pictures))
        for suffix, measures in ({"without": self.measure(self.plain)} | self.bounds()).items():
            result |= {f"{name}_{suffix}": value for name, value in measures.items()}
        for name, (low, high) in self.intervals(self.pictures).items():
            result |= {f"{name}_low": low, f"{name}_high": high}
        result |= {
            "people": self.people,
            "prompts": len(self.labels),
            "seed": self.seed,
            "seconds_per_picture": seconds,
        }
        # JSON has no NaN: with one person there may be no mark to recover.
        return {k: v for k, v in result.items() if not (isinstance(v, float) and math.isnan(v))}

    def sweeps(self) -> dict[str, list[Measures]]:
        """Measures for every value of every setting, the others as they are."""
        rows: dict[str, list[Measures]] = {}
        for name, values in SWEEPS.items():
            rows[name] = []
            for value in values:
                if name == "references":
                    pictures = self.draw(self.settings, references=int(value))
                else:
                    guidance = replace(self.settings.guidance, **{name: value})
                    pictures = self.draw(self.settings._replace(guidance=guidance))
                rows[name].append({name: value, **self.measure(pictures)})
                told = ", ".join(f"{kind} {rows[name][-1][kind]:.3f}" for kind in self.compared)
                log.info("%s %g: %s", name, value, told)
        return rows
