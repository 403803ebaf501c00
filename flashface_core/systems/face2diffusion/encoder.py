"""MSID, the multi-scale identity encoder: a ViT read at four depths."""

import torch
from torch import nn

SIZE, PATCH, WIDTH, DEPTH, HEADS = 112, 8, 384, 12, 12  # as published
SCALES = (2, 5, 8, 11)  # the blocks after which the class token is read
BLOCK_EPS, SCALE_EPS = 1e-6, 1e-5


def network_input(aligned: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 112, 112, 3), as faces.align makes them, to float32 (B, 3, 112, 112) in -1..1."""
    return (aligned.movedim(-1, 1).float() / 255 - 0.5) / 0.5


class MSID(nn.Module):
    """Aligned faces to identity vectors. Modules are named as in the published file.

    Section B.2; by the paper, reading shallow blocks too keeps the camera pose out of the vector.
    Meant for eval(): only then a face's vector does not depend on the others of its batch.
    """

    width = len(SCALES) * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (SIZE // PATCH) ** 2, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=BLOCK_EPS)  # in the file, and never used
        self.norms = nn.ModuleDict(
            {
                f"layer_{index}": nn.Sequential(
                    nn.BatchNorm1d(WIDTH, eps=SCALE_EPS), nn.LayerNorm(WIDTH, eps=SCALE_EPS)
                )
                for index in SCALES
            }
        )

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (B, 3, 112, 112) in -1..1 to vectors (B, 1536); they are not unit vectors."""
        tokens = self.class_tokens(faces)
        norms = (self.norms[f"layer_{index}"] for index in SCALES)
        return torch.cat([norm(tokens[:, i]) for i, norm in enumerate(norms)], dim=1)

    def class_tokens(self, faces: torch.Tensor) -> torch.Tensor:
        """The class token right after blocks 2, 5, 8 and 11, (B, 4, 384)."""
        patches = self.patch_embed["proj"](faces).flatten(2).transpose(1, 2)  # (B, 196, 384)
        x = torch.cat([self.cls_token.expand(len(faces), -1, -1), patches], dim=1) + self.pos_embed
        read = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in SCALES:
                read.append(x[:, 0])
        return torch.stack(read, dim=1)


class Block(nn.Module):
    """A transformer block with its norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=BLOCK_EPS)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)}
        )
        self.norm2 = nn.LayerNorm(WIDTH, eps=BLOCK_EPS)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.norm1(x))
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.mlp["fc2"](hidden)

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.attn["qkv"](x).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, width per head)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.attn["proj"](out.transpose(1, 2).flatten(2))
