"""The networks in training: those that the nodes run, built and patched by the same code."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from flashface_core.comfy_adapter.flashface.attach import (
    ROWS,
    make_position,
    make_reference_attention,
)
from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.flashface.checkpoint import Checkpoint, published_state_dict
from flashface_core.sites import Site
from flashface_core.softmax import ReferenceKeys

from .batches import Batch, References

TARGET, REFERENCE_NET, REFERENCE_ATTENTION = "target", "reference_net", "reference_attention"
PARTS = (TARGET, REFERENCE_NET, REFERENCE_ATTENTION)


class Networks(nn.Module):
    """What the trainer trains.

    parts: names of what may be trained or left frozen. rates: factors of the learning rate for
    parts that need another one.
    """

    parts: tuple[str, ...]
    rates: Mapping[str, float] = {}

    def texts(self, batch: Batch) -> list[str]:
        """Whose embeddings `forward` is given."""
        raise NotImplementedError

    def forward(
        self, batch: Batch, noisy: torch.Tensor, texts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted noise, and what it should be, (B, 4, H, W) each; texts: (number, L, width)."""
        raise NotImplementedError

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        raise NotImplementedError

    def unets(self) -> list[nn.Module]:
        """Those whose blocks may be computed again in the backward pass."""
        raise NotImplementedError

    def rows_with_face(self, batch: Batch) -> list[int]:
        """Whose prediction can be held against the person."""
        return batch.references.rows

    def freeze_all_but(self, parts: Iterable[str]) -> None:
        """Raises ValueError for a name that is none of `parts`."""
        parts = set(parts)
        unknown = parts - set(self.parts)
        if unknown:
            raise ValueError(f"unknown parts {sorted(unknown)}; there are {', '.join(self.parts)}")
        self.requires_grad_(False)
        for part in parts:
            for parameter in self.part_parameters(part):
                parameter.requires_grad_(True)


class TrainedReferences(NamedTuple):
    """As row_references.SiteReferences. strength: None is 1, by kernels with a gradient."""

    references: list[ReferenceKeys]
    strength: None
    index: list[int]


class TrainingRows(NamedTuple):
    """What the attention and position patches read, at strength 1."""

    position: torch.Tensor | None
    keys_values: dict[Site, tuple[torch.Tensor, torch.Tensor]]
    rows: list[int]

    def at(self, site: Site, size: tuple[int, int]) -> TrainedReferences | None:
        if not self.keys_values:
            return None
        keys, values = self.keys_values[site]
        return TrainedReferences([ReferenceKeys(keys, values, 1.0)], None, self.rows)


class FlashFaceNetworks(Networks):
    """Target UNet, ReferenceNet and RA, sharing what the published checkpoint shares.

    The ReferenceNet uses the target's own middle, time embedding and head (FLASHFACE.md 1.1), so
    in training they are one module and get the gradients of both uses.
    """

    parts = PARTS

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        model, net = build_flashface(checkpoint, "fp32")
        self.name = checkpoint.name
        self.heads = checkpoint.heads
        self.sizes = (checkpoint.reference_size, checkpoint.picture_size)
        self.target = cast(UNetModel, model.model.diffusion_model)
        self.network = net.network
        for part in ("middle_block", "time_embed", "out"):
            setattr(self.network.unet, part, getattr(self.target, part))
        attention = make_reference_attention(self.network)
        self._patches = {
            name: [patch]
            for patches in (attention, make_position(self.network))
            for name, patch in patches.patches.items()
        }

    def texts(self, batch: Batch) -> list[str]:
        return ["", *batch.captions]

    def forward(self, batch, noisy, texts):
        predicted = self.predict(
            noisy, batch.timesteps, texts[1:], texts[:1], batch.references, batch.position
        )
        return predicted, batch.noise

    def unets(self) -> list[nn.Module]:
        return [self.target, self.network.unet]

    def predict(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        reference_text: torch.Tensor,
        references: References | None,
        position: torch.Tensor | None,
    ) -> torch.Tensor:
        """Predicted noise (B, 4, H, W).

        x: noisy latents (B, 4, H, W), variance preserving. timesteps: (B,). text: (B, 77 k, width).
        reference_text: (1, 77 k, width). position: face-position masks (B, 1, H, W) or None.
        """
        if references is None:
            options = {"patches": self._patches, ROWS: TrainingRows(position, {}, [])}
            return self.target(x, timesteps, context=text, transformer_options=options)
        # Also where all references were dropped: every process must run the same networks, in both
        # directions, and send a gradient for every tensor.
        pairs = self.network.keys_values(references.latents, references.timesteps, reference_text)
        rows = TrainingRows(position, self._gather(pairs, references), references.rows)
        options = {"patches": self._patches, ROWS: rows}
        return self.target(x, timesteps, context=text, transformer_options=options)

    @staticmethod
    def _gather(pairs, references: References):
        slots = references.slots  # (R, S), each with L tokens -> (R, S * L, C)
        return {
            site: (keys[slots].flatten(1, 2), values[slots].flatten(1, 2))
            for site, (keys, values) in pairs.items()
        }

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        """The trainable tensors of one of PARTS; what target and ReferenceNet share is target's."""
        target = list(self.target.parameters()) + list(self.network.position.parameters())
        if part == TARGET:
            return target
        if part == REFERENCE_ATTENTION:
            return list(self.network.attention.parameters())
        left_out = {id(parameter) for parameter in (*target, *self._never_reached())}
        return [p for p in self.network.unet.parameters() if id(p) not in left_out]

    def _never_reached(self) -> list[nn.Parameter]:
        """Behind the last site's norm1 the ReferenceNet is in the file and never runs."""
        _, block, depth = self.network.sites[-1]
        transformer: Any = cast(Any, self.network.unet).output_blocks[block][1]
        last = transformer.transformer_blocks[depth]
        behind = (last.attn1, last.norm2, last.attn2, last.norm3, last.ff, transformer.proj_out)
        return [parameter for module in behind for parameter in module.parameters()]

    def checkpoint(self) -> Checkpoint:
        """The current weights as the parts of a checkpoint (no copy)."""
        attention = {
            site: dict(self.network.attention_at(site).state_dict()) for site in self.network.sites
        }
        return Checkpoint(
            self.name,
            dict(self.target.state_dict()),
            dict(self.network.unet.state_dict()),
            attention,
            self.network.position.weight.detach(),
            self.heads,
            *self.sizes,
        )

    def published_state_dict(self) -> dict[str, torch.Tensor]:
        return published_state_dict(self.checkpoint())
