"""A grid of pictures while FlashFace learns: test people down, scenes across."""

from pathlib import Path

import torch

from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.comfy_adapter.flashface.tiny import load_vae
from toy_world.draw import SIZE, draw, face_boxes, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.data import TextEncoder
from training.networks import FlashFaceNetworks
from training.pictures import save_grid
from training.sampling import Models, Settings, identity_of, sample_pictures

SCENES, REFERENCES = 4, 4
SETTINGS = Settings(steps=10)


class Grid:
    """A row per person: the reference crops, pictures made of them, and one without a face."""

    def __init__(self, vae: Path, encode_text: TextEncoder, seed: int, people: int) -> None:
        self.vae, self.encode_text, self.seed = load_vae(vae), encode_text, seed
        total = REFERENCES + SCENES
        rows = torch.arange(people).repeat_interleave(total)
        shown = People.draw_from(seed, "test", people)[rows]
        self.scenes = Scenes.draw_from(seed, "test", people * total)
        pictures, boxes = draw(shown, self.scenes)
        self.boxes = face_boxes(shown, self.scenes)
        self.crops = face_crop(pictures, boxes)

    def save(self, networks: FlashFaceNetworks, path: Path) -> None:
        model, net = build_flashface(networks.checkpoint(), "fp32")
        models = Models(model, net, self.encode_text, self.vae)
        told = captions(self.scenes)
        photos, rows = [], []
        for first in range(0, len(told), REFERENCES + SCENES):
            references = slice(first, first + REFERENCES)
            targets = slice(first + REFERENCES, first + REFERENCES + SCENES)
            given = (self.seed, SETTINGS, SIZE)
            identity = identity_of(self.crops[references])
            pictures = sample_pictures(models, told[targets], *given, identity, self.boxes[targets])
            photos.append(self.crops[references])
            rows.append([*pictures, *sample_pictures(models, told[targets][:1], *given)])
        labels = [f"scene {n}" for n in range(1, SCENES + 1)]
        save_grid(path, photos, rows, [*labels, "without"])
