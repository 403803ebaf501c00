"""What the frozen encoders see in the people that `encode` has drawn, once for all steps."""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from flashface_core.comfy_adapter.facestudio.style import StyleEncoder, style_embedding
from flashface_core.face2diffusion.encoder import MSID
from flashface_core.facestudio.condition import TextPrior
from toy_world.draw import CROP, draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.face2diffusion import EXPRESSION_SEEN
from training.face2diffusion import FACE as FACE_VECTOR
from training.facestudio import FACE as UNIT_FACE
from training.facestudio import STYLE, TOLD, WHOLE

from .encode import BATCH
from .encoders import without_faces
from .text import ToyText


@torch.no_grad()
def see_people(
    which: Tensor,
    seed: int,
    split: str,
    identity: MSID,
    expression: MSID,
    style: StyleEncoder,
    prior: TextPrior,
    device="cpu",
) -> dict[str, Tensor]:
    """which: indexes of person and scene (N, 2), as encode_people gives them. By name (N, W).

    device: where the encoders are, and the pictures are drawn.
    """
    seen: dict[str, list[Tensor]] = {}
    encode_text = ToyText(device)
    for part in tqdm(which.split(BATCH), desc="Looking", unit="batch"):
        known = part[:, 0].unique()
        people = People.draw_from(seed, split, known.tolist())
        people = people[torch.searchsorted(known, part[:, 0].contiguous())].to(device)
        scenes = Scenes.draw_from(seed, split, part[:, 1].tolist())
        told, scenes = captions(scenes), scenes.to(device)
        pictures, boxes = draw(people, scenes)
        crops = face_crop(pictures, boxes, CROP) * 2 - 1
        faceless = without_faces(pictures, boxes)
        vector = identity(crops)
        for name, value in {
            FACE_VECTOR: vector,
            UNIT_FACE: F.normalize(vector, dim=1),
            EXPRESSION_SEEN: expression(crops),
            STYLE: style_embedding(style, faceless.movedim(1, -1)),
            WHOLE: style_embedding(style, pictures.movedim(1, -1)),
            TOLD: prior(encode_text(told)),
        }.items():
            seen.setdefault(name, []).append(value.half().cpu())
    return {name: torch.cat(values) for name, values in seen.items()}
