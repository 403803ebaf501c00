"""How like the person a picture is, whom of the list it shows, and how it fits its prompt.

Models and people are read once, and then serve any number of batches.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .jobs import PROMPT, Job
from .pictures import upright
from .problems import ListError
from .results import Results

log = logging.getLogger("flashface.automation")

BATCH = 16
PLACE = "FlashFaceIdentityPlace"


class Models(NamedTuple):
    """model_pack: a folder of InsightFace. looks: without it, edges and colours are compared.
    clip: a folder with a CLIP model as transformers saves it."""

    model_pack: Path | None = None
    looks: bool = False
    clip: Path | None = None

    @property
    def any(self) -> bool:
        return self.model_pack is not None or self.looks or self.clip is not None

    @property
    def remarks(self) -> list[str]:
        """What is left out, and why."""
        told = []
        if self.model_pack is None and not self.looks:
            told.append(
                "Likeness and identification are left out: --model-pack with a folder of "
                "InsightFace gives them, or --looks where looks rather than people may be compared."
            )
        if self.clip is None:
            told.append("Agreement with the prompt is left out: --clip with a CLIP model gives it.")
        return told


class Person(NamedTuple):
    """photos: some of somebody. who: equal for all photos of the person, where that is known."""

    name: str
    photos: tuple[str, ...]
    who: str


class Shown(NamedTuple):
    """A picture to be measured. group: of its person; None: of several, or of photos unknown.
    place: where the face was to be, in fractions of the picture."""

    path: str
    group: str | None
    place: tuple[float, float, float, float] | None
    prompt: str | None


def shown(job: Job, results: Results) -> Shown:
    group = job.group if len(job.photos) == 1 else None
    prompt = job.values.get(PROMPT)
    return Shown(str(results.path(job)), group, _place(job), prompt)


def people_of(jobs: Iterable[Job]) -> dict[str, Person]:
    return {
        job.group: Person(
            job.person,
            tuple(str(photo.path) for photo in job.photos[0]),
            job.whose,
        )
        for job in jobs
        if len(job.photos) == 1
    }


def _place(job: Job) -> tuple[float, float, float, float] | None:
    found = [data["inputs"] for data in job.graph.values() if data["class_type"] == PLACE]
    if len(found) != 1 or "mask" in found[0]:
        return None
    numbers = [found[0].get(name) for name in ("x", "y", "width", "height")]
    if not all(isinstance(number, int | float) for number in numbers):
        return None
    x, y, width, height = map(float, numbers)
    return (x, y, width, height)


class Scorer:
    """Raises ListError for models that cannot be used."""

    def __init__(self, models: Models, people: Mapping[str, Person]) -> None:
        self._faces = _Faces(models, people) if models.model_pack or models.looks else None
        self._clip = _Clip(models.clip) if models.clip else None

    def __call__(self, pictures: Sequence[Shown]) -> list[dict[str, Any]]:
        """The columns of each; what cannot be measured is None."""
        rows: list[dict[str, Any]] = [{} for _ in pictures]
        seen = [(row, one, _read(one)) for row, one in zip(rows, pictures, strict=True)]
        if self._faces is not None:
            for row, one, picture in seen:
                if picture is not None:
                    row.update(self._faces(one, picture))
        told = [(row, one.prompt, picture) for row, one, picture in seen if one.prompt]
        told = [every for every in told if every[-1] is not None]
        if self._clip is not None and told:
            _, prompts, images = zip(*told, strict=True)
            for (row, *_), value in zip(told, self._clip(prompts, images), strict=True):
                row["clip"] = value
        return rows


def _read(one: Shown):
    """None for a file that is damaged: the others still have their scores."""
    try:
        return read_picture(one.path)
    except OSError as error:
        log.warning(
            "%s is not measured: %s; delete it, and the same command makes it again.",
            one.path,
            error,
        )
        return None


def score_all(scorer: Scorer, pictures: Sequence[Shown]) -> Iterable[dict[str, Any]]:
    for first in range(0, len(pictures), BATCH):
        yield from scorer(pictures[first : first + BATCH])


class _Faces:
    def __init__(self, models: Models, people: Mapping[str, Person]) -> None:
        import numpy as np

        from flashface_core.errors import FlashFaceError
        from flashface_core.faces.detect import load_detector
        from flashface_core.likeness.compare import embed_person
        from flashface_core.likeness.embedders import choose_embedder
        from flashface_core.people.identity import FaceReference, Identity

        try:
            pack = models.model_pack
            self._detector = None if pack is None else load_detector("insightface", pack)
            if self._detector is not None and not self._detector.can_embed:
                raise FlashFaceError(f"{pack} has no recognition model; give one such as buffalo_l")
        except FlashFaceError as error:
            raise ListError(str(error)) from None
        self._embedder = choose_embedder(self._detector)
        self._names, self._who, vectors = [], [], []
        self._number: dict[str, int] = {}
        for group, person in people.items():
            try:
                photos = [read_picture(path) for path in person.photos]
                identity = Identity(tuple(FaceReference.from_crop(photo) for photo in photos))
                vector, _ = embed_person(identity, self._embedder)
            except (FlashFaceError, OSError) as error:
                log.warning("%s is not compared: %s", person.name, error)
                continue
            self._number[group] = len(vectors)
            self._names.append(person.name)
            self._who.append(person.who)
            vectors.append(vector)
        self._gallery = np.stack(vectors) if vectors else None

    def __call__(self, one: Shown, picture: Any) -> dict[str, Any]:
        from flashface_core.likeness.compare import find_face
        from flashface_core.people.place import Place

        number = self._number.get(one.group or "")
        if number is None or self._gallery is None:
            return {}
        place = None if one.place is None else Place(box=one.place)
        face, _ = find_face(picture, 0, place, self._detector)
        several = len(set(self._who)) > 1
        if face is None:
            return {"identified": False if several else None}
        cosines = self._gallery @ self._embedder.face(picture, face)
        likeness = {"likeness": float(cosines[number])}
        if not several:
            return likeness
        most = int(cosines.argmax())
        is_own = self._who[most] == self._who[number]
        told = {"looks_most_like": self._names[most], "identified": is_own}
        return likeness | told


class _Clip:
    def __init__(self, folder: Path) -> None:
        try:
            from transformers import CLIPModel, CLIPProcessor

            model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
            self._model: Any = model.eval()
            self._processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (ImportError, OSError, ValueError) as error:
            raise ListError(f"--clip {folder} is no CLIP model that can be used: {error}") from None

    def __call__(self, prompts: Sequence[str], images: Sequence[Any]) -> list[float]:
        import torch

        given = self._processor(
            text=list(prompts),
            images=list(images),
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with torch.no_grad():
            seen = self._model(**given)
        return torch.cosine_similarity(seen.image_embeds, seen.text_embeds).tolist()


def read_picture(path: str):
    """A uint8 tensor (H, W, 3), upright. Raises OSError for what Pillow cannot read to its end."""
    import numpy as np
    import torch
    from PIL import Image

    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(upright(image)))
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
