"""A FlashFace checkpoint on photographs of real people."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_core.errors import FlashFaceError
from flashface_core.faces.crop import photo_to_uint8
from flashface_core.faces.detect import load_detector
from flashface_core.faces.face import Detector
from flashface_core.people.identity import FaceReference, Identity
from training.clip import load_clip_score, load_text_encoder
from training.evaluation import Evaluation, Measures
from training.identity_measures import means
from training.sampling import Models, Settings

from .encode import load_vae
from .look import embeddings, look_at, read_photo
from .select import Limits, unusable
from .sources import decoded, open_source

log = logging.getLogger("flashface.training")

PROMPTS = {
    "smiling": "a photo of a person in a forest, smiling",
    "child": "a photo of a child at the beach",
    "elder": "a photo of an elder with grey hair, reading a book",
    "watercolour": "a watercolour portrait of a person",
}
OFFICIAL = Settings(steps=25, cfg=7.5)  # FLASHFACE.md section 10, with the default guidance
ANY_SIZE = Limits(min_face=0)


class Files(NamedTuple):
    """clip_vision: for clip_score. model_pack: a folder of InsightFace, for similarity."""

    checkpoint: Path
    clip: Path
    vae: Path
    clip_vision: Path | None = None
    model_pack: Path | None = None


class Sitter(NamedTuple):
    """crops: uint8 (h, w, 3), one per photograph. embedding: their mean, a unit vector (D,), or
    None where the detector cannot embed."""

    crops: list[Tensor]
    embedding: Tensor | None


class PhotoEvaluation(Evaluation):
    """A person per folder in `photos`, all with the same prompts, by label; no place is asked for.

    size: of the pictures; None: what the checkpoint was trained on. Raises FlashFaceError for
    photographs or files that cannot be used.
    """

    def __init__(
        self,
        photos: Path,
        files: Files,
        seed: int,
        prompts: dict[str, str] = PROMPTS,
        size: int | None = None,
        steps: int = OFFICIAL.steps,
    ) -> None:
        self.detector = load_detector("auto", files.model_pack)
        text = load_text_encoder(files.clip)
        self.clip_score = load_clip_score(files.clip_vision, text) if files.clip_vision else None
        vae = load_vae(files.vae)
        model, net = load_flashface(files.checkpoint)
        self.sitters = find_sitters(photos, self.detector)
        self.gallery = gallery(self.sitters)
        self.labels, self._prompts = list(prompts), list(prompts.values())
        self.settings, self.size = OFFICIAL._replace(steps=steps), size or net.picture_size
        present = {
            "face_found": True,
            "similarity": self.gallery is not None,
            "identification": self.gallery is not None and len(self.sitters) > 1,
            "clip_score": self.clip_score is not None,
        }
        self.compared = [name for name, is_there in present.items() if is_there]
        self.remarks = self._remarks()
        for remark in self.remarks:
            log.info(remark)
        super().__init__(Models(model, net, text, vae), seed)

    def _remarks(self) -> list[str]:
        remarks = []
        if self.gallery is None:
            remarks.append(
                "similarity and identification are left out: --model-pack with an InsightFace pack "
                "that has a recognition model (such as buffalo_l) gives them."
            )
        elif len(self.sitters) == 1:
            remarks.append("identification is left out: it takes photographs of two people.")
        if self.clip_score is None:
            remarks.append(
                "clip_score is left out: --clip-vision with the vision model of CLIP ViT-L/14 "
                "(clip_vision_vit_l.safetensors) gives it."
            )
        return remarks

    @property
    def people(self) -> int:
        return len(self.sitters)

    def crops(self, person: int) -> list[Tensor]:
        return [crop.movedim(-1, 0) / 255 for crop in self.sitters[person].crops]

    def identity(self, person: int, references: int) -> Identity:
        crops = self.sitters[person].crops[:references]
        return Identity(tuple(FaceReference.from_crop(crop) for crop in crops))

    def prompts(self, person: int) -> list[str]:
        return self._prompts

    def measure(self, pictures: Tensor) -> Measures:
        """Without those for which a model is missing."""
        owner = torch.arange(self.people).repeat_interleave(len(self._prompts))
        found, cosines = read_faces(pictures, self.detector, self.gallery)
        result = identity_measures(found, cosines, owner)
        if self.clip_score is not None:
            scores = self.clip_score(pictures, self._prompts * self.people)
            result["clip_score"] = scores.mean().item()
        if "similarity" in result and "clip_score" in result:
            result |= means(result["similarity"], result["clip_score"])
        return result

    def compare(self) -> dict[str, float | int]:
        result = super().compare()
        if "identification" in result:
            result["identification_among"] = self.people
        return result


def find_sitters(folder: Path, detector: Detector) -> list[Sitter]:
    """Everybody with a photograph that shows one face, by name; what is left out is logged.

    Raises FlashFaceError where nobody has one.
    """
    photos, broken = open_source(folder)
    for shard, why in broken:
        log.info("%s is left out: %s.", shard, why)
    found: dict[str, list] = {}
    for photo in tqdm(photos, desc="Finding faces", unit="photo"):
        look = look_at(photo, detector)
        reason = unusable(look, ANY_SIZE)
        if reason is None and photo.person is None:
            reason = "it lies in no person's folder", ""
        if reason is not None:
            log.info("%s is left out: %s.", photo.name, " ".join(filter(None, reason)))
            continue
        pixels = torch.from_numpy(np.array(read_photo(photo)))
        found.setdefault(str(photo.person), []).append((look, look.crop(pixels)))
    if not found:
        raise FlashFaceError(
            f"Nobody in {folder} has a usable photograph; give a folder per person with "
            "photographs that show exactly one face."
        )
    sitters = []
    for _, own in sorted(found.items()):
        looks, crops = map(list, zip(*own, strict=True))
        mean = torch.from_numpy(embeddings(looks).mean(axis=0)) if detector.can_embed else None
        unit = None if mean is None else torch.nn.functional.normalize(mean, dim=0)
        sitters.append(Sitter(crops, unit))
    return sitters


def gallery(sitters: list[Sitter]) -> Tensor | None:
    """(N, D), None without embeddings."""
    known = [sitter.embedding for sitter in sitters if sitter.embedding is not None]
    return torch.stack(known) if known else None


def read_faces(
    pictures: Tensor, detector: Detector, gallery: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Whether pictures (B, 3, H, W) in 0..1 show a face, bool (B,), and the cosines of the largest
    one to the gallery (N, D): (B, N), zeros without a face, (B, 0) without a gallery."""
    found = torch.zeros(len(pictures), dtype=torch.bool)
    cosines = torch.zeros(len(pictures), 0 if gallery is None else len(gallery))
    for row, picture in enumerate(pictures):
        photo = photo_to_uint8(picture.movedim(0, -1))
        faces = detector.find(photo)
        found[row] = bool(faces)
        if faces and gallery is not None:
            cosines[row] = gallery @ torch.from_numpy(detector.embed(photo, faces[0]))
    return found, cosines


def identity_measures(found: Tensor, cosines: Tensor, owner: Tensor) -> Measures:
    """Shares of B pictures, of which one without a face is like nobody.

    found: bool (B,). cosines: (B, N) to N people; N = 0: no similarity, 1: no identification.
    owner: (B,) of 0..N-1, whom each picture was to show.
    """
    result = {"face_found": found.float().mean().item()}
    if cosines.shape[1] > 0:
        own = cosines.gather(1, owner[:, None])[:, 0]
        result["similarity"] = torch.where(found, own, 0.0).mean().item()
    if cosines.shape[1] > 1:
        identified = found & (cosines.argmax(1) == owner)
        result["identification"] = identified.float().mean().item()
    return result


def read_prompts(path: Path) -> dict[str, str]:
    """One per line, its own label. Raises FlashFaceError for a file without any."""
    lines = decoded(path.read_bytes()).splitlines()
    prompts = {line.strip(): line.strip() for line in lines if line.strip()}
    if not prompts:
        raise FlashFaceError(f"{path} holds no prompts; write one per line.")
    return prompts
