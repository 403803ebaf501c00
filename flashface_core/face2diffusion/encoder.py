"""MSID, the multi-scale identity encoder: a ViT read at four depths."""

from typing import Any, NamedTuple

import torch
from torch import nn

BLOCK_EPS, SCALE_EPS = 1e-6, 1e-5
# What a network was trained on: faces brought to ArcFace's five points, as published, or the
# crops of FlashFace, padded to a square.
ALIGNED, CROP = "aligned", "crop"


class Topology(NamedTuple):
    """Sizes of an MSID; the defaults are the published ones.

    size: pixels of the square face. scales: the blocks after which the class token is read.
    """

    size: int = 112
    patch: int = 8
    width: int = 384
    depth: int = 12
    heads: int = 12
    scales: tuple[int, ...] = (2, 5, 8, 11)

    @property
    def vector_width(self) -> int:
        return len(self.scales) * self.width


PUBLISHED = Topology()


def network_input(faces: torch.Tensor) -> torch.Tensor:
    """uint8 (B, S, S, 3), as faces.align makes them, to float32 (B, 3, S, S) in -1..1."""
    return (faces.movedim(-1, 1).float() / 255 - 0.5) / 0.5


class MSID(nn.Module):
    """Faces to identity vectors. Modules are named as in the published file.

    face: ALIGNED or CROP. operations: torch.nn or a comfy.ops class. SYSTEMS.md section B.2; by the
    paper, reading shallow blocks too keeps the camera pose out of the vector. Meant for eval():
    only then a face's vector does not depend on the others of its batch.
    """

    def __init__(
        self, topology: Topology = PUBLISHED, face: str = ALIGNED, operations: Any = nn
    ) -> None:
        super().__init__()
        self.topology, self.face = topology, face
        self.vector_width = topology.vector_width
        size, patch, width, depth, heads, scales = topology
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.patch_embed = nn.ModuleDict({"proj": operations.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(Block(width, heads, operations) for _ in range(depth))
        self.norm = operations.LayerNorm(width, eps=BLOCK_EPS)  # in the file, and never used
        self.norms = nn.ModuleDict(
            {
                f"layer_{index}": nn.Sequential(
                    nn.BatchNorm1d(width, eps=SCALE_EPS),
                    operations.LayerNorm(width, eps=SCALE_EPS),
                )
                for index in scales
            }
        )

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (B, 3, S, S) in -1..1 to vectors (B, scales * width); they are not unit vectors."""
        tokens = self.class_tokens(faces)
        norms = (self.norms[f"layer_{index}"] for index in self.topology.scales)
        return torch.cat([norm(tokens[:, i]) for i, norm in enumerate(norms)], dim=1)

    def class_tokens(self, faces: torch.Tensor) -> torch.Tensor:
        """The class token right after the blocks of `scales`, (B, scales, width)."""
        patches = self.patch_embed["proj"](faces).flatten(2).transpose(1, 2)  # (B, L, width)
        x = torch.cat([self.cls_token.expand(len(faces), -1, -1), patches], dim=1) + self.pos_embed
        read = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.topology.scales:
                read.append(x[:, 0])
        return torch.stack(read, dim=1)


class Block(nn.Module):
    """A transformer block with its norms first."""

    def __init__(self, width: int, heads: int, operations: Any) -> None:
        super().__init__()
        linear, layer_norm = operations.Linear, operations.LayerNorm
        self.heads = heads
        self.norm1 = layer_norm(width, eps=BLOCK_EPS)
        self.attn = nn.ModuleDict({"qkv": linear(width, 3 * width), "proj": linear(width, width)})
        self.norm2 = layer_norm(width, eps=BLOCK_EPS)
        self.mlp = nn.ModuleDict({"fc1": linear(width, 4 * width), "fc2": linear(4 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.norm1(x))
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.mlp["fc2"](hidden)

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, width per head)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.attn["proj"](out.transpose(1, 2).flatten(2))
