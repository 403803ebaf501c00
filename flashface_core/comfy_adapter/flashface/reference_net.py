"""REFERENCE_NET of a FlashFace checkpoint, under ComfyUI's memory management."""

import logging
import math
import os
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch

from ...errors import FlashFaceError
from ...features import (
    FaceFeatures,
    FeatureCache,
    KeysValues,
    Person,
    ReferenceLatent,
    between,
    blended,
    bytes_of,
)
from ...flashface.reference_net import ReferenceNetwork
from ...row_references import StepReferences, gather_references
from ..photo_encoder import ROWS_PER_PASS, EncoderSettings, PhotoEncoder, batched
from ..unet import attention_options
from .attach import attach_reference_net, attach_rows, check_fit
from .main_memory import in_main_memory, on_device

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

log = logging.getLogger("flashface")

# Of the keys and values in main memory; 4 photos and 30 steps take 0.64 GB in fp16.
CACHE_MB, CACHE_VARIABLE = 2048, "FLASHFACE_CACHE_MB"


def cache_bytes() -> int:
    """What the environment allows; raises FlashFaceError for what is not a number of megabytes."""
    given = os.environ.get(CACHE_VARIABLE, str(CACHE_MB))
    if not given.isdecimal():
        raise FlashFaceError(
            f"The environment variable {CACHE_VARIABLE} is {given!r}; it must be a whole number "
            "of megabytes, 0 to keep no feature maps."
        )
    return int(given) * 1024**2


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
        self.cache: FeatureCache[KeysValues] = FeatureCache(cache_bytes())
        self._timesteps: WeakKeyDictionary[FaceFeatures, float] = WeakKeyDictionary()
        self._has_told = False

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
        # A run goes down the timesteps: one above the last begins another.
        if timestep > self._timesteps.get(features, -math.inf):
            self.cache.begin_run()
        self._timesteps[features] = timestep
        people = [person for person in features.people if person.references]
        entries = [self._at(timestep, person, features, device) for person in people]
        if self.cache.has_left_out and self.cache.max_bytes and not self._has_told:
            self._has_told = True
            self._tell(sum(bytes_of(entry) for person in entries for entry in person))
        return gather_references(people, entries)

    def _tell(self, step_bytes: int) -> None:
        log.warning(
            "FlashFace keeps %d MB of feature maps; the photos take %.4g MB per step, so %d steps "
            "find room and the others are computed in every run. Set the environment variable %s "
            "higher, or reference_steps of FlashFace Encode to fewer anchors.",
            self.cache.max_bytes // 1024**2,
            step_bytes / 1024**2,
            self.cache.max_bytes // step_bytes,
            CACHE_VARIABLE,
        )

    def _at(
        self, timestep: float, person: Person, features: FaceFeatures, device: torch.device
    ) -> list[KeysValues]:
        """One entry per photo of a person, on the device, which blends faster than the host."""
        anchors = between(features.anchors, timestep)
        found = [
            self._keys_values([(reference, anchor) for reference in person.references], features)
            for anchor, _ in anchors
        ]
        shares = [share for _, share in anchors]
        return [
            blended(shares, [on_device(entry, device) for entry in entries])
            for entries in zip(*found, strict=True)
        ]

    def _keys_values(
        self, wanted: Sequence[tuple[ReferenceLatent, float]], features: FaceFeatures
    ) -> list[KeysValues]:
        """One entry per photo and timestep. What is not in the cache goes through the ReferenceNet
        together, so a partly filled cache changes the last bits."""
        device, dtype = self.patcher.load_device, self.compute_dtype

        def key(reference: ReferenceLatent, timestep: float) -> Hashable:
            return reference.content, features.context_content, timestep, dtype, str(device)

        by_key = {key(*pair): pair for pair in wanted}

        def compute(missing: list[Hashable]) -> Iterator[KeysValues]:
            for some in batched(missing, ROWS_PER_PASS):
                comfy.model_management.throw_exception_if_processing_interrupted()
                rows = [by_key[key] for key in some]
                pairs = self.network.keys_values(
                    torch.cat([reference.latent for reference, _ in rows]).to(device, dtype),
                    torch.tensor([timestep for _, timestep in rows]),
                    features.context.to(device, dtype),
                    attention_options(device),
                )
                yield from in_main_memory(pairs)

        return self.cache.get_all([key(*pair) for pair in wanted], compute)

    def keys_values_bytes(self, tokens: int) -> int:
        """At least that: every site is taken to be as large as the latent."""
        widths = [self.network.attention_at(site).q.in_features for site in self.levels]
        return 2 * tokens * sum(widths) * self.compute_dtype.itemsize

    def _precompute(self, features: FaceFeatures, sigmas: torch.Tensor) -> None:
        sampling = comfy.model_sampling.ModelSamplingDiscrete()
        steps = sigmas[sigmas > 0]
        timesteps = sampling.timestep(steps.float().cpu()).tolist()
        if features.anchors:
            needed = {anchor for t in timesteps for anchor, _ in between(features.anchors, t)}
            timesteps = sorted(needed)
        comfy.model_management.load_models_gpu([self.patcher])
        progress = comfy.utils.ProgressBar(len(timesteps))
        photos = max((len(person.references) for person in features.people), default=1)
        together = max(1, ROWS_PER_PASS // max(1, photos))
        self.cache.begin_run()
        for some in batched(timesteps, together):
            if self.cache.has_left_out:  # computed for nothing: the sampler does it
                break
            for person in features.people:
                wanted = [(reference, float(t)) for t in some for reference in person.references]
                self._keys_values(wanted, features)
            progress.update(len(some))
