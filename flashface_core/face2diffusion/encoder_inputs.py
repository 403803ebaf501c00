"""The photos of a person as a face encoder sees them."""

import torch

from ..errors import FlashFaceError
from ..faces.crop import pad_to_square
from ..people.identity import FaceReference, Identity
from .encoder import CROP, MSID, network_input


def counted_photos(person: Identity, system: str) -> list[FaceReference]:
    """Photos with a weight above 0, in an order of their own, whatever that of the identity.

    system: whom the message names, "Face2Diffusion". Raises FlashFaceError when there is none.
    """
    photos = [photo for photo in person.references if photo.weight > 0]
    if not photos:
        raise FlashFaceError(
            f"The identity has {len(person.references)} photos and none with a weight above 0, "
            f"{system} needs one at least; raise a weight in FlashFace Identity."
        )
    return sorted(photos, key=lambda photo: (photo.content, photo.weight))


def shares(photos: list[FaceReference]) -> torch.Tensor:
    """The photos' weights, float32 (N,), scaled to a sum of 1: for means over the photos."""
    weights = torch.tensor([photo.weight for photo in photos], dtype=torch.float32)
    return weights / weights.sum()


def encoder_inputs(
    encoder: MSID, person: Identity, system: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `encoder` is to be given: faces float32 (N, 3, S, S) in -1..1, and shares (N,), on the
    CPU, of counted_photos.

    An encoder of aligned faces is given these, one of crops the crops, padded to squares of its
    size. Raises FlashFaceError for photos without weight, or without an aligned face if needed.
    """
    photos = counted_photos(person, system)
    if encoder.face == CROP:
        faces = [pad_to_square(photo.crop, encoder.topology.size) for photo in photos]
    else:
        faces = [photo.aligned for photo in photos if photo.aligned is not None]
    if missing := len(photos) - len(faces):
        raise FlashFaceError(
            f"{missing} of the identity's {len(photos)} photos have no aligned face, which "
            f"{system} needs; connect a FlashFace Detector Loader in FlashFace Identity."
        )
    return network_input(torch.stack(faces)), shares(photos)
