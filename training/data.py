"""People and their pictures, as the trainer reads them: encoded once, then drawn from."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from .buckets import Bucket

TextEncoder = Callable[[list[str]], torch.Tensor]
"""Captions to text embeddings (B, 77 k, width); frozen, and called with no gradient."""

FACE_VECTOR, UNIT_FACE, FACELESS_STYLE = "face", "unit face", "style without face"
# Of what encoders saw, by name: what another photo of the person tells as well.
OF_THE_PERSON = (FACE_VECTOR, UNIT_FACE)


class Picture(NamedTuple):
    """One picture of a person.

    latent: the whole picture, scaled (4, H, W). reference: the face crop, scaled (4, h, w), what
    the ReferenceNet sees. caption: what is not the identity. box: x1, y1, x2, y2 of the face as
    fractions. seen: what frozen encoders saw in the picture, by name, (W,) each.
    """

    latent: torch.Tensor
    reference: torch.Tensor
    caption: str
    box: tuple[float, float, float, float]
    seen: Mapping[str, torch.Tensor] = {}


class People(Protocol):
    """Identities, each with two or more pictures; index by person, then by picture.

    buckets: pictures by shape; none where all have the same.
    """

    @property
    def buckets(self) -> Sequence[Bucket]: ...

    def __len__(self) -> int: ...

    def count(self, person: int) -> int:
        """Pictures of a person, two or more."""
        ...

    def shape(self, person: int, index: int) -> tuple[int, int]:
        """Of a picture's latent, H and W."""
        ...

    def picture(self, person: int, index: int) -> Picture: ...


class PeopleInMemory:
    """All pictures as tensors.

    latents (N, 4, H, W), references (N, 4, h, w), boxes (N, 4), N captions, and for every person
    the indexes of its pictures. seen: (N, W) by name. Raises ValueError for a person with fewer
    than two.
    """

    buckets: Sequence[Bucket] = ()
    digest = ""  # of the photographs, where somebody knows them

    def __init__(
        self,
        latents,
        references,
        boxes,
        captions,
        persons: list[list[int]],
        seen: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        lonely = [i for i, pictures in enumerate(persons) if len(pictures) < 2]
        if lonely:
            raise ValueError(
                f"{len(lonely)} people have fewer than two pictures (the first is {lonely[0]}); a "
                "target needs references from other pictures."
            )
        self.latents, self.references = latents, references
        self.boxes, self.captions, self.persons = boxes, captions, persons
        self.seen = dict(seen or {})

    def __len__(self) -> int:
        return len(self.persons)

    def count(self, person: int) -> int:
        return len(self.persons[person])

    def shape(self, person: int, index: int) -> tuple[int, int]:
        return self.latents.shape[-2], self.latents.shape[-1]

    def picture(self, person: int, index: int) -> Picture:
        i = self.persons[person][index]
        box = tuple(self.boxes[i].tolist())
        seen = {name: values[i] for name, values in self.seen.items()}
        return Picture(self.latents[i], self.references[i], self.captions[i], box, seen)
