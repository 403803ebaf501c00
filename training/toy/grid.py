"""A grid of pictures while FlashFace learns: test people down, scenes across."""

from pathlib import Path

import torch
from PIL import Image

from flashface_core.comfy_adapter.load import build_flashface
from flashface_core.comfy_adapter.tiny import load_vae
from training.data import TextEncoder
from training.networks import FlashFaceNetworks
from training.sampling import Models, Settings, identity_of, sample_pictures

from .draw import SIZE, draw, face_boxes, face_crop
from .people import People
from .scenes import Scenes, captions
from .sheet import to_image

PEOPLE, SCENES, REFERENCES = 4, 4, 4


class Grid:
    """Per row two reference crops, then pictures made of them, and one without a face."""

    def __init__(self, vae: Path, encode_text: TextEncoder, seed: int) -> None:
        self.vae, self.encode_text, self.seed = load_vae(vae), encode_text, seed
        total = REFERENCES + SCENES
        rows = torch.arange(PEOPLE).repeat_interleave(total)
        people = People.draw_from(seed, "test", PEOPLE)[rows]
        self.scenes = Scenes.draw_from(seed, "test", PEOPLE * total)
        pictures, boxes = draw(people, self.scenes)
        self.boxes = face_boxes(people, self.scenes)
        self.crops = face_crop(pictures, boxes)

    def save(self, networks: FlashFaceNetworks, path: Path) -> None:
        model, net = build_flashface(networks.checkpoint(), "fp32")
        models = Models(model, net, self.encode_text, self.vae)
        told = captions(self.scenes)
        total = REFERENCES + SCENES
        sheet = Image.new("RGB", ((SCENES + 2) * (SIZE + 4), PEOPLE * (SIZE + 4)), "white")
        for row in range(PEOPLE):
            first = row * total
            references = slice(first, first + REFERENCES)
            targets = slice(first + REFERENCES, first + total)
            identity = identity_of(self.crops[references])
            pictures = sample_pictures(
                models,
                told[targets],
                self.seed,
                Settings(steps=10),
                SIZE,
                identity,
                self.boxes[targets],
            )
            plain = sample_pictures(models, told[targets][:1], self.seed, Settings(steps=10), SIZE)
            y = row * (SIZE + 4)
            for n, crop in enumerate(self.crops[references]):
                place = (n % 2 * 64, y + n // 2 * 64)
                sheet.paste(to_image(crop), place)
            for n, picture in enumerate([*pictures, *plain], 1):
                sheet.paste(to_image(picture), (n * (SIZE + 4), y))
        sheet.save(path)
