"""Probes of the toy world: who is it, what does the picture show, and where is the face.

    python -m training.tiny.probes --out probes.safetensors

All readers learn on people of the train split and are scored here on the test split.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from flashface_core.weights_file import save_whole
from toy_world.draw import CROP, draw, face_boxes, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes
from training.command_line import file_to_write

log = logging.getLogger("flashface")

PROBES = "probes.safetensors"
# What is read off a 64 px face crop, and what off the whole picture.
FACE = (
    "skin",
    "hair_colour",
    "hair_style",
    "eye_colour",
    "facial_hair",
    "glasses",
    "mark",
    "mark_colour",
    "mark_place",
    "expression",
    "age",
    "lean",
)
PICTURE = ("background", "clothes", "style")
EMBEDDING = 128
USUAL_FACE = (0.5, 0.5, 0.3)  # middle and half side
MARGIN = 4  # pixels around a stored crop: training moves the window by as much


def names_of(attribute: str) -> tuple[str, ...]:
    """The values an attribute can take."""
    return (People if attribute in People.categories() else Scenes).names(attribute)


def true_values(people: People, scenes: Scenes) -> dict[str, Tensor]:
    """Long (B,) per attribute; -1 where the drawing cannot show it, to be left out of a score."""
    values = {
        name: getattr(people if hasattr(people, name) else scenes, name) for name in FACE + PICTURE
    }
    hidden = {
        "facial_hair": scenes.age == Scenes.names("age").index("child"),
        "hair_colour": people.hair_style == People.names("hair_style").index("bald"),
        "mark_colour": people.mark == People.names("mark").index("none"),
        "mark_place": people.mark == People.names("mark").index("none"),
    }
    return {
        name: value.masked_fill(hidden[name], -1) if name in hidden else value
        for name, value in values.items()
    }


class Trunk(nn.Module):
    """(B, 3, 64, 64) in 0..1 to features (B, width * 6 * 16), place kept in a 4x4 grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 6 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.mixes = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1, bias=False) for b in widths[1:])
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.mix_norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.features = 6 * width * 16

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2 - 1
        levels = zip(self.convs, self.norms, self.mixes, self.mix_norms, strict=True)
        for conv, norm, mix, mix_norm in levels:
            x = F.relu(norm(conv(x)))
            x = x + F.relu(mix_norm(mix(x)))
        return x.flatten(1)


class Probes(nn.Module):
    """The recogniser, the attribute readers, and the finder of the face."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.face, self.picture = Trunk(width), Trunk(width // 2)
        self.hidden = nn.Linear(self.face.features, 256)
        self.embedding = nn.Linear(256, EMBEDDING)
        self.face_heads = nn.ModuleDict({n: nn.Linear(256, len(names_of(n))) for n in FACE})
        self.picture_heads = nn.ModuleDict(
            {n: nn.Linear(self.picture.features, len(names_of(n))) for n in PICTURE}
        )
        self.where = Trunk(width // 2)
        self.box = nn.Linear(self.where.features, 3)

    def look(self, crops: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Face crops (B, 3, 64, 64) to unit embeddings (B, 128), and logits by attribute."""
        hidden = F.relu(self.hidden(self.face(crops)))
        embedding = F.normalize(self.embedding(hidden), dim=1)
        return embedding, {name: head(hidden) for name, head in self.face_heads.items()}

    def look_around(self, pictures: Tensor) -> dict[str, Tensor]:
        """Pictures (B, 3, H, W) to logits by attribute."""
        seen = self.picture(F.adaptive_avg_pool2d(pictures, CROP))
        return {name: head(seen) for name, head in self.picture_heads.items()}

    def look_for(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) to the faces' middles and half sides (B, 3) in fractions."""
        offsets = self.box(self.where(F.adaptive_avg_pool2d(pictures, CROP)))
        return offsets.float() * 0.1 + offsets.new_tensor(USUAL_FACE).float()

    @torch.no_grad()
    def find(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) to face boxes (B, 4): x1, y1, x2, y2 in fractions; squares."""
        x, y, half = self.look_for(pictures).unbind(1)
        return torch.stack([x - half, y - half, x + half, y + half], dim=1)

    @torch.no_grad()
    def read(self, pictures: Tensor, boxes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (B, 3, H, W) and face boxes (B, 4) to embeddings and values, long (B,) each."""
        embedding, logits = self.look(face_crop(pictures, boxes, CROP))
        logits |= self.look_around(pictures)
        return embedding, {name: value.argmax(1) for name, value in logits.items()}


def identified(shown: Tensor, gallery: Tensor) -> Tensor:
    """Share of shown (N, K, D) nearest to their own row of gallery (N, K, D), among N people."""
    rows = F.normalize(gallery.mean(dim=1), dim=1)
    nearest = (shown.flatten(0, 1) @ rows.T).argmax(1)
    own = torch.arange(len(rows), device=rows.device).repeat_interleave(shown.shape[1])
    return (nearest == own).float().mean()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (B,) of boxes (B, 4)."""
    corner, other = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    both = (other - corner).clamp(min=0).prod(dim=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(dim=1) for box in (a, b)]
    return both / (areas[0] + areas[1] - both)


def cast(seed: int, split: str, first: int, count: int, times: int) -> tuple[People, Scenes]:
    """count people from index `first`, each in `times` scenes of their own."""
    people = People.draw_from(seed, split, range(first, first + count))
    rows = torch.arange(count).repeat_interleave(times)
    return people[rows], Scenes.draw_from(
        seed, split, range(first * times, (first + count) * times)
    )


def batches(people: People, scenes: Scenes, size: int = 32) -> Iterator[tuple[People, Scenes]]:
    for start in range(0, len(people), size):
        yield people[start : start + size], scenes[start : start + size]


class Pool:
    """Drawings to learn from: crops with a margin and small pictures, in bytes.

    Many people in few scenes: with few people the readers learn a mark by heart with its owner.
    """

    def __init__(self, seed: int, people: int, times: int, device: str, compiled: bool) -> None:
        everyone, scenes = cast(seed, "train", 0, people, times)
        everyone, scenes = everyone.to(device), scenes.to(device)
        self.labels = true_values(everyone, scenes)
        self.owner = torch.arange(people, device=device).repeat_interleave(times)
        drawer = torch.compile(draw, dynamic=False) if compiled else draw
        self.boxes = face_boxes(everyone, scenes)
        crops, pictures = [], []
        for some, where in batches(everyone, scenes):
            drawn, boxes = drawer(some, where)
            grown = MARGIN / CROP * (boxes[:, 2:] - boxes[:, :2])
            boxes = torch.cat([boxes[:, :2] - grown, boxes[:, 2:] + grown], dim=1)
            crops.append(_bytes(face_crop(drawn, boxes, CROP + 2 * MARGIN)))
            pictures.append(_bytes(F.adaptive_avg_pool2d(drawn, CROP)))
        self.crops, self.pictures = torch.cat(crops), torch.cat(pictures)

    def sample(self, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops whose window has moved, and pictures; half of each softened and noisy."""
        x, y = torch.randint(0, 2 * MARGIN + 1, (2,), generator=random).tolist()
        crops = self.crops[rows][:, :, y : y + CROP, x : x + CROP].float() / 255
        return _worn(crops, random), _worn(self.pictures[rows].float() / 255, random)


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def _worn(pictures: Tensor, random: torch.Generator) -> Tensor:
    """What a decoder does to detail, for a third of the pictures, and noise for all."""
    third = len(pictures) // 3
    soft = F.avg_pool2d(pictures[:third], 3, 1, 1, count_include_pad=False)
    noise = torch.randn(pictures.shape, generator=random).to(pictures.device) * 0.02
    return torch.cat([soft, pictures[third:]]) + noise


def train(pool: Pool, steps: int, seed: int, device: str, batch: int = 96) -> Probes:
    """Cosine-margin classification of the train people (CosFace, Wang et al. 2018) and readers."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model = Probes().to(device).train()
    people = nn.Parameter(F.normalize(torch.randn(int(pool.owner.max()) + 1, EMBEDDING)).to(device))
    optimizer = torch.optim.AdamW([*model.parameters(), people], lr=2e-3, weight_decay=1e-3)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        done = step / steps
        if len(order) < batch:
            order = torch.randperm(len(pool.owner), generator=random)
        rows, order = order[:batch].to(device), order[batch:]
        rate = 2e-3 * min(1.0, (step + 1) / 50) * min(1.0, 1.6 * (1 - done) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, parts = _loss(model, people, pool, rows, random, margin=0.3 * min(1.0, 3 * done))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            told = ", ".join(f"{part:.3f}" for part in parts)
            log.info("step %d of %d: %s", step + 1, steps, told)
    return model.eval()


def _loss(
    model: Probes,
    people: Tensor,
    pool: Pool,
    rows: Tensor,
    random: torch.Generator,
    margin: float,
) -> tuple[Tensor, list[float]]:
    crops, pictures = pool.sample(rows, random)
    with torch.autocast(rows.device.type, dtype=torch.bfloat16):
        embedding, logits = model.look(crops.contiguous(memory_format=torch.channels_last))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        logits |= model.look_around(pictures)
        found = model.look_for(pictures)
    owner = pool.owner[rows]
    cosine = embedding.float() @ F.normalize(people, dim=1).T
    cosine = cosine - margin * F.one_hot(owner, len(people))
    identity = F.cross_entropy(24 * cosine, owner)
    reading = torch.stack(
        [
            F.cross_entropy(value.float(), pool.labels[name][rows], ignore_index=-1)
            for name, value in logits.items()
        ]
    )
    boxes = pool.boxes[rows]
    true = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:3] - boxes[:, :1]) / 2], dim=1)
    place = (found - true).abs().mean()
    parts = [identity.item(), reading.mean().item(), place.item()]
    return identity * 0.5 + reading.sum() + 10 * place, parts


@torch.no_grad()
def score(model: Probes, seed: int, device: str, people: int = 200) -> dict[str, float]:
    """Accuracy on clean drawings of test people: identification among 50, and each attribute.

    Of four scenes of a person three are the gallery and one the probe.
    """
    everyone, scenes = cast(seed, "test", 0, people, 4)
    everyone, scenes = everyone.to(device), scenes.to(device)
    found, overlaps, right = [], [], {name: [] for name in (*model.face_heads, *PICTURE)}
    for some, where in batches(everyone, scenes, 200):
        pictures = torch.cat([draw(*part)[0] for part in batches(some, where)])
        boxes = face_boxes(some, where)
        overlaps.append(overlap(model.find(pictures), boxes))
        embedding, values = model.read(pictures, boxes)
        embedding = embedding.reshape(-1, 4, EMBEDDING)
        found.append(identified(embedding[:, 3:], embedding[:, :3]))
        truth = true_values(some, where)
        for name, value in values.items():
            right[name].append((value == truth[name])[truth[name] >= 0])
    scores = {name: torch.cat(parts).float().mean().item() for name, parts in right.items()}
    scores["box IoU"] = torch.cat(overlaps).mean().item()
    return {"identified among 50": torch.stack(found).mean().item(), **scores}


def save_probes(model: Probes, path: str | Path) -> None:
    state = model.state_dict()
    save_whole({n: v.half() if v.is_floating_point() else v for n, v in state.items()}, path)


def load_probes(path: str | Path, device: str = "cpu") -> Probes:
    model = Probes()
    model.load_state_dict(load_file(str(path)))  # copies into float32
    return model.to(device).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and score the toy world's probes.")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--people", type=int, default=9000)
    parser.add_argument("--scenes", type=int, default=2, help="per person")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="the drawing; pays from 10000 on")
    parser.add_argument("--out", type=file_to_write, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.monotonic()
    pool = Pool(options.seed, options.people, options.scenes, options.device, options.compile)
    log.info("%d drawings in %.0f s", len(pool.owner), time.monotonic() - start)
    model = train(pool, options.steps, options.seed, options.device)
    save_probes(model, options.out)
    log.info("%s: %.1f MB", options.out, Path(options.out).stat().st_size / 2**20)
    saved = load_probes(options.out, options.device)
    for name, value in score(saved, options.seed, options.device).items():
        log.info("%20s %.4f", name, value)


if __name__ == "__main__":
    main()
