"""Face2Diffusion's protocol (arXiv 2403.05094): every face with every prompt, one picture each.

The paper draws 100 faces of FaceForensics++ with 40 prompts, in which S* stands for the person, and
combines how well identity and text were kept. We found neither list with its code: the faces are a
folder with a photograph per person (or a folder of them, whose first photograph counts), the
prompts a text file with one per line, in which `S*`, `f l` or `{}` stands for the person. Here
identity is the cosine to the photograph by the recognition models that are given, and text is
CLIP's; the paper has other models of both, so its numbers are not set beside these.
"""

import logging
from pathlib import Path

from flashface_core.errors import FlashFaceError

from .cases import SUBJECT, Case, with_subject
from .evaluation import read_prompts
from .look import damage
from .sources import open_source

log = logging.getLogger("flashface.training")

FACES, PROMPTS = 100, 40  # of the paper


def read_protocol(folder: Path, prompts: Path) -> list[Case]:
    """A case per face and prompt, by face. Raises FlashFaceError for what cannot be used."""
    texts = [with_subject(line) for line in read_prompts(prompts)]
    if without := [text for text in texts if SUBJECT not in text]:
        raise FlashFaceError(
            f"{prompts.name} has a prompt without a place for the person: {without[0]!r}; write "
            f"{SUBJECT} there, as in 'a photo of {SUBJECT} in a forest'."
        )
    faces: dict[str, bytes] = {}
    photos, broken = open_source(folder)
    for shard, why in broken:
        log.info("%s is left out: %s.", shard, why)
    for photo in photos:
        person = photo.person or Path(photo.name).stem
        if person in faces:
            continue
        data = photo.picture.read()
        if trouble := damage(data):
            log.info("%s is left out: it cannot be read (%s).", photo.name, trouble)
        else:
            faces[person] = data
    if not faces:
        raise FlashFaceError(f"No photograph in {folder} can be read; copy them again.")
    return [
        Case(f"{person}_{number:02d}", person, text, (face,))
        for person, face in sorted(faces.items())
        for number, text in enumerate(texts)
    ]
