"""REFERENCE_NET of a FlashFace checkpoint, under ComfyUI's memory management."""

from typing import TYPE_CHECKING

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch

from ...features import FaceFeatures, FeatureCache, KeysValues, ReferenceLatent
from ...flashface.reference_net import ReferenceNetwork
from ...row_references import StepReferences, gather_references
from ..photo_encoder import EncoderSettings, PhotoEncoder
from .attach import attach_reference_net, attach_rows, check_fit

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

# In main memory; 4 references and 30 steps take 0.64 GB in fp16 at SD1.5's size.
CACHE_BYTES = 2 * 1024**3
STORAGE = torch.device("cpu")  # under --highvram, core's offload device is the GPU


class ReferenceNet(PhotoEncoder):
    """Owns RA, the position channel and the ReferenceNet as one ModelPatcher.

    picture_size: pixels it was trained on. fingerprint: equal for equal checkpoints.
    """

    def __init__(
        self, settings: EncoderSettings, patcher, picture_size: int, fingerprint: str
    ) -> None:
        super().__init__(settings)
        self.patcher = patcher
        self.picture_size = picture_size
        self.fingerprint = fingerprint
        self.cache: FeatureCache[KeysValues] = FeatureCache(CACHE_BYTES)

    def get_models(self) -> list:
        return [self.patcher]

    def check_fit(self, model: "ModelPatcher") -> None:
        """Raises FlashFaceError when the reference attention does not fit MODEL's UNet."""
        check_fit(model, self)

    def attach(self, model: "ModelPatcher", features: FaceFeatures | None = None) -> "ModelPatcher":
        """A clone of MODEL with this reference attention."""
        return attach_reference_net(model, self, features)

    attach_rows = staticmethod(attach_rows)

    @property
    def network(self) -> ReferenceNetwork:
        return self.patcher.model

    def step_references(
        self, features: FaceFeatures, timestep: float, device: torch.device, model=None
    ) -> StepReferences:
        """Keys and values of everybody at one model timestep; the network must be loaded."""
        people = [person for person in features.people if person.references]
        entries = [
            [self._keys_values(reference, features, timestep) for reference in person.references]
            for person in people
        ]
        return gather_references(people, entries, device)

    def _keys_values(
        self, reference: ReferenceLatent, features: FaceFeatures, timestep: float
    ) -> KeysValues:
        device, dtype = self.patcher.load_device, self.compute_dtype

        def compute() -> KeysValues:
            comfy.model_management.throw_exception_if_processing_interrupted()
            # One reference at a time: the numbers do not depend on what was in the cache.
            pairs = self.network.keys_values(
                reference.latent.to(device, dtype), timestep, features.context.to(device, dtype)
            )
            return {site: (k.to(STORAGE), v.to(STORAGE)) for site, (k, v) in pairs.items()}

        key = (reference.content, features.context_content, timestep, dtype, str(device))
        return self.cache.get(key, compute)

    def keys_values_bytes(self, tokens: int) -> int:
        """At least that: every site is taken to be as large as the latent."""
        widths = [self.network.attention_at(site).q.in_features for site in self.levels]
        return 2 * tokens * sum(widths) * self.compute_dtype.itemsize

    def _precompute(self, features: FaceFeatures, sigmas: torch.Tensor) -> None:
        sampling = comfy.model_sampling.ModelSamplingDiscrete()
        steps = sigmas[sigmas > 0]
        comfy.model_management.load_models_gpu([self.patcher])
        progress = comfy.utils.ProgressBar(len(steps))
        for timestep in sampling.timestep(steps.float().cpu()).tolist():
            self.step_references(features, float(timestep), torch.device("cpu"))
            progress.update(1)
