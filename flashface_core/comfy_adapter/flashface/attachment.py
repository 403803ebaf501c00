"""What a MODEL with reference attention says about itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ...features import FaceFeatures
from ...flashface.reference_net import ReferenceNetwork
from ...sites import Site

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class AttentionOwner(Protocol):
    """Of a REFERENCE_NET, what its patches on a MODEL need.

    patcher: of `network`. name, context_width, levels, fingerprint: as in ReferenceNet.
    """

    patcher: "ModelPatcher"
    fingerprint: str

    @property
    def name(self) -> str: ...

    @property
    def context_width(self) -> int: ...

    @property
    def levels(self) -> Mapping[Site, str]: ...

    @property
    def network(self) -> ReferenceNetwork: ...


@dataclass(frozen=True, eq=False)
class Attachment:
    """Marks the one set of attention patches of a MODEL; shared by its clones, never changed.

    net: whose reference attention it has; None: of nobody. patches: those of that attention, by
    their lists. features: what FlashFaceApply has put on it.
    """

    net: AttentionOwner | None
    patches: Mapping[str, Callable]
    features: FaceFeatures | None = None
