"""Training Face Fusion's projections of the references' hidden states, the UNet frozen."""

from pathlib import Path

import torch
from torch import nn

from flashface_core.capture import feature_maps
from flashface_core.comfy_adapter.unet import transformer_blocks
from flashface_core.face_fusion.file import read_face_fusion
from flashface_core.face_fusion.fusion import FaceProjection, fuse_rows
from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.sites import site_name

from .base import OnFrozenUNet
from .publish import write_weights

KEYS, VALUES = "keys", "values"


class FaceFusionNetworks(OnFrozenUNet):
    """W'_k and W'_v of every cross-attention; they begin as the self-attention's beside it.

    The references are clean and looked at as of timestep 0: noised to the target's timestep, they
    taught nothing in 1000 steps but to look away. Keys learn slowly, for the same reason: values
    that mean nothing yet make them turn away from the references, whence no gradient comes.
    """

    parts = (KEYS, VALUES)
    rates = {KEYS: 0.1}

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.sites = transformer_blocks(self.unet, with_encoder=True)
        self.projections = nn.ModuleDict()
        for site, block in self.sites.items():
            projection = FaceProjection(block.attn1.to_k.in_features)
            projection.k.weight.data.copy_(block.attn1.to_k.weight)
            projection.v.weight.data.copy_(block.attn1.to_v.weight)
            self.projections[site_name(site)] = projection

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        name = "k.weight" if part == KEYS else "v.weight"
        return [p for key, p in self.projections.named_parameters() if key.endswith(name)]

    def texts(self, batch) -> list[str]:
        return ["", *batch.captions]

    def forward(self, batch, noisy, texts):
        references = batch.references
        # Also where no row has a face: every process must run the same networks, in both ways.
        with torch.no_grad():
            maps = feature_maps(
                self.unet,
                references.latents,
                0.0,
                texts[:1],
                self.sites,
                patches=self.patches,
                reads="attn2",
            )
        replace = {}
        for site, hidden in maps.items():
            keys, values = self.projections[site_name(site)](hidden)
            # (R, S) photos of L tokens each; rows without a face see none of the zeros.
            keys, values = (part[references.slots].flatten(1, 2) for part in (keys, values))
            replace[site] = self._fusion(keys, values, references.rows, len(noisy))
        predicted = self.predict(
            noisy, batch.timesteps, texts[1:], patches_replace={"attn2": replace}
        )
        return predicted, batch.noise

    @staticmethod
    def _fusion(keys, values, rows, count):
        def fuse(q, k, v, extra_options):
            index = torch.tensor(rows, dtype=torch.long, device=q.device)
            shape = (count, *keys.shape[1:])
            all_keys, all_values = (
                part.new_zeros(shape).index_copy(0, index, part) for part in (keys, values)
            )
            seen = torch.zeros(shape[:2], dtype=torch.bool, device=q.device)
            seen[index] = True
            heads = extra_options["n_heads"]
            return fuse_rows(q, k, v, all_keys.to(q), all_values.to(q), seen, heads)

        return fuse

    def load(self, path: Path) -> None:
        """Projections. Raises FlashFaceError, and RuntimeError for those of another UNet."""
        file = read_face_fusion(path)
        state = {
            f"{site_name(site)}.{part}.weight": weight
            for part, weights in (("k", file.k), ("v", file.v))
            for site, weight in weights.items()
        }
        self.projections.load_state_dict(state)

    def save(self, path: Path, dtype: torch.dtype = torch.float16) -> None:
        state = {
            f"{'.'.join(map(str, site))}.{key}": value
            for site in self.sites
            for key, value in self.projections[site_name(site)].state_dict().items()
        }
        metadata = {"reference_size": str(self.reference_size), "reference_noise": "none"}
        write_weights(path, state, dtype, metadata)
