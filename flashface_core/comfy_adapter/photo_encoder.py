"""Photos and a negative prompt to FACE_FEATURES: what every REFERENCE_NET has in common."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import comfy.latent_formats
import torch

from ..errors import FlashFaceError
from ..faces.crop import pad_to_square
from ..features import FaceFeatures, FeatureCache, Person, ReferenceLatent
from ..people.identity import FaceReference, Identity, IdentityGroup, people_of
from ..row_references import StepReferences
from ..sites import Site

if TYPE_CHECKING:
    from comfy.sd import VAE

ROWS_PER_PASS = 8  # photos that go through a network together; bounds its memory
# Of FlashFace Encode's reference_steps: model timesteps at which the ReferenceNet runs.
ANCHORS: dict[str, tuple[float, ...]] = {
    "exact": (),
    "9 anchors": (0.0, 125.0, 250.0, 375.0, 500.0, 625.0, 750.0, 875.0, 999.0),
    "5 anchors": (0.0, 250.0, 500.0, 750.0, 999.0),
}
LATENT_BYTES = 64 * 1024**2  # 5000 photos at SD1.5's size, 1000 at SDXL's
CLIP_TOKENS = 77
LATENT_CHANNELS = 4
_Item = TypeVar("_Item")


class LatentCaches:
    """Encoded photos, one bounded cache for every VAE that lives."""

    def __init__(self) -> None:
        self._by_vae: WeakKeyDictionary = WeakKeyDictionary()

    def of(self, vae: "VAE") -> FeatureCache[tuple[torch.Tensor, str]]:
        """By the crop's content: latent (1, 4, h, w), float32 on the CPU, and its hash."""
        return self._by_vae.setdefault(vae.first_stage_model, FeatureCache(LATENT_BYTES))


@dataclass(frozen=True)
class Reader:
    """Who reads the photos and the prompt that goes with them, for checks and messages.

    name: of the file or network. family: SD1.5 or SDXL. system, prompt: what they are called.
    """

    name: str
    context_width: int
    family: str = "SD1.5"
    system: str = "the ReferenceNet"
    prompt: str = "The negative prompt"


@dataclass(frozen=True)
class EncoderSettings:
    """What a PhotoEncoder works with.

    levels: coarse, medium or fine for every attention site, in forward order. compute_dtype: of
    the feature maps. reference_size: pixels of the square that a crop is padded to.
    """

    reader: Reader
    levels: Mapping[Site, str]
    compute_dtype: torch.dtype
    reference_size: int
    latent_format: comfy.latent_formats.LatentFormat = field(
        default_factory=comfy.latent_formats.SD15
    )


class PhotoEncoder:
    """What every REFERENCE_NET does with photos and a negative prompt.

    latents: where encoded photos are kept; a place of its own if not given.
    """

    def __init__(self, settings: EncoderSettings, latents: LatentCaches | None = None) -> None:
        self.settings = settings
        self.latents = latents or LatentCaches()

    @property
    def name(self) -> str:
        return self.settings.reader.name

    @property
    def levels(self) -> Mapping[Site, str]:
        return self.settings.levels

    @property
    def reference_size(self) -> int:
        return self.settings.reference_size

    @property
    def context_width(self) -> int:
        return self.settings.reader.context_width

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.settings.compute_dtype

    def step_references(
        self, features: FaceFeatures, timestep: float, device: torch.device, model=None
    ) -> StepReferences:
        """Keys and values of everybody at one model timestep.

        model: the sampled BaseModel, for networks that are part of it.
        """
        raise NotImplementedError

    def reference_timestep(self, timestep: float) -> float:
        """The timestep of `step_references` for a step at this one."""
        return timestep

    def keys_values_bytes(self, tokens: int) -> int:
        """What the keys and values of one reference take whose latent has `tokens` pixels."""
        raise NotImplementedError

    def get_models(self) -> list:
        """The ModelPatchers of networks that are no part of the MODEL."""
        return []

    def _precompute(self, features: FaceFeatures, sigmas: torch.Tensor) -> None:
        raise NotImplementedError

    def encode(
        self,
        identity: Identity | IdentityGroup,
        vae,
        negative,
        sigmas: torch.Tensor | None = None,
        anchors: tuple[float, ...] = (),
    ) -> FaceFeatures:
        """Identity to FACE_FEATURES; with sigmas, the keys and values for these steps at once.

        anchors: timesteps at which the ReferenceNet runs instead of at every step's own.

        Raises FlashFaceError for an identity without photos and for a VAE or negative prompt that
        the ReferenceNet was not made for.
        """
        context = check_inputs(self.settings.reader, identity, vae, negative)
        people = [self._person(person, vae) for person in people_of(identity)]
        people = tuple(sorted(people, key=_order))
        features = FaceFeatures(self, people, context, content_hash(context), anchors=anchors)
        if sigmas is not None:
            self._precompute(features, sigmas)
        return features

    def _person(self, identity: Identity, vae: "VAE") -> Person:
        weighed = zip(identity.references, identity.key_weights(), strict=True)
        references = tuple(
            self._reference_latent(reference, weight, vae)
            for reference, weight in weighed
            if weight > 0
        )
        # In an order of their own: that in which they were given does not affect the result.
        return Person(tuple(sorted(references, key=lambda r: r.content)), identity.place)

    def _reference_latent(
        self, reference: FaceReference, weight: float, vae: "VAE"
    ) -> ReferenceLatent:
        def encode() -> tuple[torch.Tensor, str]:
            square = pad_to_square(reference.crop, self.reference_size)
            encoded = vae.encode(square[None].float() / 255)  # posterior mean
            latent = self.settings.latent_format.process_in(encoded).float().cpu()
            return latent, content_hash(latent)

        latent, content = self.latents.of(vae).get(reference.content, encode)
        return ReferenceLatent(latent, content, weight)


def check_inputs(
    reader: Reader, identity: Identity | IdentityGroup, vae: "VAE", prompt
) -> torch.Tensor:
    """The prompt's embedding, (1, 77 k, width), float32 on the CPU.

    Raises FlashFaceError for an identity without photos, and for a VAE or prompt that the reader
    was not made for.
    """
    if getattr(vae, "first_stage_model", None) is None:
        raise FlashFaceError("There is no VAE: the checkpoint holds none; load one with Load VAE.")
    context = _context(reader, prompt)
    if getattr(vae, "latent_channels", LATENT_CHANNELS) != LATENT_CHANNELS:
        raise FlashFaceError(
            f"The VAE has {vae.latent_channels} latent channels, {reader.system} needs "
            f"{LATENT_CHANNELS}; connect an {reader.family} VAE."
        )
    for person in people_of(identity):
        if not person.references:
            raise FlashFaceError(
                f"The identity{f' {person.name}' * bool(person.name)} has no photo left (0 "
                "references); give FlashFace Identity a photo in which a face is found, or set "
                "no_face to `use whole image`."
            )
    return context


def _context(reader: Reader, prompt) -> torch.Tensor:
    """The ReferenceNet's text: the negative prompt (FLASHFACE.md section 2)."""
    if len(prompt) != 1:
        raise FlashFaceError(
            f"{reader.prompt} has {len(prompt)} entries, {reader.system} takes exactly one; "
            "connect a plain CLIP Text Encode."
        )
    context = prompt[0][0]
    count, tokens, width = context.shape
    if width != reader.context_width:
        other = "SDXL" if reader.family == "SD1.5" else "SD1.5"
        raise FlashFaceError(
            f"{reader.prompt} is {width} wide, {reader.system} of {reader.name} needs "
            f"{reader.context_width}; encode it with an {reader.family} CLIP (not {other}'s)."
        )
    if count != 1 or tokens == 0 or tokens % CLIP_TOKENS:
        raise FlashFaceError(
            f"{reader.prompt} is a batch of {count} with {tokens} tokens, {reader.system} takes a "
            f"batch of 1 with a multiple of {CLIP_TOKENS} tokens."
        )
    return context.detach().float().cpu()


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """itertools.batched, which Python 3.10 lacks."""
    items = list(items)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def content_hash(tensor: torch.Tensor) -> str:
    data = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + data.tobytes()).hexdigest()


def _order(person: Person) -> str:
    place = person.place
    mask = None if place is None or place.mask is None else content_hash(place.mask)
    where = place and (place.box, place.strength, place.inside_region, mask)
    return repr((sorted((r.content, r.weight) for r in person.references), where))
