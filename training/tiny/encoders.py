"""The frozen encoders that the other systems see through, on people and scenes of the toy world.

face: MSID, who it is, and a second network of its kind that tells the expression. style: a small
CLIP, whose vision half stands for FaceStudio's, and the prior from a text to its embeddings. They
are other networks than the probes, by which nobody is conditioned.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashface_core.comfy_adapter.facestudio.style import build_style_encoder
from flashface_core.face2diffusion.encoder import MSID, Topology
from flashface_core.facestudio.condition import FACELESS, TextPrior
from flashface_core.weights_file import save_whole
from toy_world.draw import draw
from toy_world.scenes import captions

from .probes import FACE, Pool, batches, cast, names_of
from .text import ToyText

log = logging.getLogger("flashface.training")

IDENTITY = Topology(size=64, patch=8, width=96, depth=6, heads=4, scales=(1, 3, 5))
EXPRESSION = Topology(size=64, patch=8, width=64, depth=3, heads=4, scales=(2,))
STYLE = {
    "model_type": "clip_vision_model",
    "hidden_act": "gelu",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_channels": 3,
    "image_size": 128,
    "patch_size": 16,
    "projection_dim": 128,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
# Of the attributes that are told apart on a face, those that belong to the person.
OF_THE_PERSON = tuple(name for name in FACE if name not in ("expression", "age", "lean"))
OF_THE_FACE = ("age", "expression")
OF_THE_SCENE = ("background", "clothes", "style", "age", "expression")
PRIOR_HIDDEN = 256
# A CLIP's steps: until FACE_ALONE of them it sees faces alone, from WHOLE_FROM on whole pictures,
# but for SOME_CLOSE of them; HIDDEN: with the face painted out.
FACE_ALONE, WHOLE_FROM, SOME_CLOSE, HIDDEN = 0.2, 0.6, 0.3, 0.3
BATCH, RATE = 96, 1e-3


def initialise(network: nn.Module) -> None:
    """As vision transformers are: narrow normals, biases at zero."""
    for name, value in network.named_parameters():
        if value.ndim >= 2 or "embed" in name:
            nn.init.trunc_normal_(value, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(value)


def _steps(parameters, steps: int, size: int, seed: int) -> Iterator[tuple[int, Tensor, "_Step"]]:
    """Step, rows of the batch, and what makes a step of a loss."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.02, betas=(0.9, 0.98))
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(size, generator=random)
        rows, order = order[:BATCH], order[BATCH:]
        rate = RATE * min(1.0, (step + 1) / 100) * min(1.0, 1.6 * (1 - step / steps) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        yield step, rows, _Step(optimizer)


class _Step:
    def __init__(self, optimizer) -> None:
        self._optimizer = optimizer

    def __call__(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def _tell(step: int, steps: int, **values: Tensor | float) -> None:
    if (step + 1) % 100 == 0:
        told = ", ".join(
            f"{name} {float(torch.as_tensor(value).detach()):.3f}" for name, value in values.items()
        )
        log.info("step %d of %d: %s", step + 1, steps, told)


def train_face(pool: Pool, steps: int, seed: int) -> MSID:
    """Cosine-margin classification of the people on the whole multi-scale vector (SYSTEMS.md
    section B.6), and, for runs as short as this, what an identity is made of read off it."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    network, device = MSID(IDENTITY).train(), pool.owner.device
    initialise(network)
    width = network.vector_width
    heads = nn.ModuleDict({name: nn.Linear(width, len(names_of(name))) for name in OF_THE_PERSON})
    people = F.normalize(torch.randn(int(pool.owner.max()) + 1, width))
    network, heads, people = network.to(device), heads.to(device), nn.Parameter(people.to(device))
    parameters = [*network.parameters(), *heads.parameters(), people]
    for step, rows, update in _steps(parameters, steps, len(pool.owner), seed):
        crops, _ = pool.sample(rows, random)
        vector = network(crops * 2 - 1)
        owner = pool.owner[rows]
        cosine = F.normalize(vector, dim=1) @ F.normalize(people, dim=1).T
        margin = 0.3 * min(1.0, 2 * step / steps)
        who = F.cross_entropy(24 * (cosine - margin * F.one_hot(owner, len(people))), owner)
        read = [
            F.cross_entropy(head(vector), pool.labels[name][rows], ignore_index=-1)
            for name, head in heads.items()
        ]
        update(0.5 * who + torch.stack(read).sum())
        _tell(step, steps, who=who, read=torch.stack(read).mean())
    return network.eval().requires_grad_(False)


def train_expression(pool: Pool, steps: int, seed: int) -> MSID:
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    network = MSID(EXPRESSION).train()
    initialise(network)
    head = nn.Linear(network.vector_width, len(names_of("expression")))
    network, head = network.to(pool.owner.device), head.to(pool.owner.device)
    parameters = [*network.parameters(), *head.parameters()]
    for step, rows, update in _steps(parameters, steps, len(pool.owner), seed):
        crops, _ = pool.sample(rows, random)
        loss = F.cross_entropy(head(network(crops * 2 - 1)), pool.labels["expression"][rows])
        update(loss)
        _tell(step, steps, expression=loss)
    return network.eval().requires_grad_(False)


class Small(nn.Module):
    """A small CLIP: core's vision model, and a linear text half over the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = build_style_encoder(STYLE, nn)
        self.text = TextPrior(768, PRIOR_HIDDEN, STYLE["projection_dim"])
        self.prior = TextPrior(768, PRIOR_HIDDEN, STYLE["projection_dim"])
        self.scale = nn.Parameter(torch.tensor(2.5))
        initialise(self.vision)

    def see(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, 128, 128) in 0..1 to embeddings (B, 128)."""
        return self.vision(pixels * 2 - 1)


class Views:
    """Pictures at the size that a CLIP sees, where their faces are, and the captions."""

    def __init__(self, seed: int, people: int, times: int, device="cpu") -> None:
        everyone, scenes = cast(seed, "train", 0, people, times)
        everyone, scenes = everyone.to(device), scenes.to(device)
        pictures, boxes = [], []
        for some, where in batches(everyone, scenes):
            drawn, box = draw(some, where, STYLE["image_size"])
            pictures.append((drawn * 255).round().to(torch.uint8))
            boxes.append(box)
        self.pictures, self.boxes = torch.cat(pictures), torch.cat(boxes)
        self.captions = captions(scenes.to("cpu"))
        self.labels = {name: getattr(scenes, name) for name in OF_THE_SCENE}

    def __len__(self) -> int:
        return len(self.pictures)

    def whole(self, rows: Tensor | slice) -> Tensor:
        """Of rows: (B, 3, H, W) in 0..1."""
        return self.pictures[rows].float() / 255

    def varied(self, rows: Tensor, hidden: Tensor, close: Tensor) -> Tensor:
        """As `whole`; hidden: bool (B,), whose face is painted out; close: (B,), see `zoomed`."""
        pictures, boxes = self.whole(rows), self.boxes[rows]
        faceless = without_faces(pictures, boxes)
        return zoomed(torch.where(hidden[:, None, None, None], faceless, pictures), boxes, close)


def without_faces(pictures: Tensor, boxes: Tensor) -> Tensor:
    """The boxes (B, 4) of pictures (B, 3, H, W) painted out, as FaceStudioEncode does it."""
    height, width = pictures.shape[-2:]
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    x1, y1, x2, y2 = (boxes[:, n, None] for n in range(4))
    inside = ((y >= y1) & (y < y2))[:, None, :, None] & ((x >= x1) & (x < x2))[:, None, None, :]
    return torch.where(inside, pictures.new_tensor(FACELESS)[:, None, None], pictures)


def zoomed(pictures: Tensor, boxes: Tensor, close: Tensor) -> Tensor:
    """Square pictures (B, 3, H, H), by close (B,): at 0 as they are, at 1 the face alone."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    least = 0.6 * (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)  # half of a window; 0.5 is everything
    half = 0.5 + close * (least.clamp(max=0.5) - 0.5)
    centre = centre.clamp(half[:, None], 1 - half[:, None])
    theta = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 2 * half
    theta[:, :, 2] = 2 * centre - 1
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False, padding_mode="border")


def train_style(views: Views, steps: int, prior_steps: int, seed: int) -> Small:
    """Contrastive, as CLIP is, and, for runs as short as this, what the captions tell read off it;
    then the prior."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    device = views.pictures.device
    network, texts = Small().to(device), _mean_tokens(views)
    width = STYLE["projection_dim"]
    heads = {name: nn.Linear(width, len(names_of(name))) for name in OF_THE_SCENE}
    heads = nn.ModuleDict(heads).to(device)
    parameters = [*network.parameters(), *heads.parameters()]
    for step, rows, update in _steps(parameters, steps, len(views), seed):
        # First faces alone, then smaller and smaller in their pictures: otherwise neither age nor
        # expression was read in 4000 steps, as the rest is so much easier.
        done, is_face = step / steps, step < FACE_ALONE * steps
        closest = min(1.0, max(0.0, (WHOLE_FROM - done) / (WHOLE_FROM - FACE_ALONE)))
        chances = torch.rand(3, len(rows), generator=random)
        close = closest + (1 - closest) * chances[0] * (chances[1] < SOME_CLOSE)
        hidden = ((chances[2] < HIDDEN) & (not is_face)).to(device)
        rows = rows.to(device)
        seen = network.see(views.varied(rows, hidden, close.to(device)))
        read = {}
        for name in OF_THE_FACE if is_face else OF_THE_SCENE:
            label = views.labels[name][rows]
            if name in OF_THE_FACE:
                label = label.masked_fill(hidden, -1)
            read[name] = F.cross_entropy(heads[name](seen), label, ignore_index=-1)
        match = seen.new_zeros(())
        if not is_face:
            cosine = F.normalize(seen, dim=1) @ F.normalize(network.text(texts[rows]), dim=1).T
            logits, own = cosine * network.scale.exp(), torch.arange(len(rows), device=device)
            match = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
        update(match + torch.stack([*read.values()]).sum())
        _tell(step, steps, match=match, **read)
    network.eval().requires_grad_(False)
    with torch.no_grad():  # embeddings about as long as those of faces
        seen = network.see(views.whole(slice(1000)))
        (projection,) = network.vision.get_submodule("visual_projection").parameters()
        projection /= seen.norm(dim=1).mean()
    _train_prior(network, views, texts, prior_steps, seed)
    return network


def _train_prior(network: Small, views: Views, texts: Tensor, steps: int, seed: int) -> None:
    """The embedding of a whole picture from its text; the pictures are seen once."""
    network.prior.requires_grad_(True)
    with torch.no_grad():
        parts = range(0, len(views), 256)
        seen = torch.cat([network.see(views.whole(slice(i, i + 256))) for i in parts])
    for step, rows, update in _steps(network.prior.parameters(), steps, len(seen), seed):
        error = F.mse_loss(network.prior(texts[rows]), seen[rows])
        update(error)
        _tell(step, steps, prior=error)
    network.prior.requires_grad_(False)


@torch.no_grad()
def _mean_tokens(views: Views) -> Tensor:
    """The captions as the text half and the prior read them: (N, 1, 768)."""
    encode_text = ToyText(str(views.pictures.device))
    parts = range(0, len(views), 256)
    told = [encode_text(views.captions[i : i + 256]).mean(1, keepdim=True) for i in parts]
    return torch.cat(told)


def save_face(identity: MSID, expression: MSID, path: Path) -> None:
    state = identity.state_dict()
    state |= {f"expression.{key}": value for key, value in expression.state_dict().items()}
    metadata = {
        "num_heads": str(identity.topology.heads),
        "expression.num_heads": str(expression.topology.heads),
        "face": "crop",
    }
    _save(state, path, metadata)


def save_style(network: Small, path: Path) -> None:
    """Under the names that they have in FaceStudio's file."""
    parts = {"style_encoder.": network.vision, "prior.": network.prior}
    state = {
        prefix + key: value
        for prefix, part in parts.items()
        for key, value in part.state_dict().items()
    }
    _save(state, path, {"style_encoder.config": json.dumps(STYLE)})


def _save(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_whole(halves, path, metadata)
