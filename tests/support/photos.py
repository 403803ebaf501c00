"""Photos made of noise, and identities of them through the nodes."""

import torch
from flashface_pack.nodes.identity import FlashFaceIdentity, FlashFaceIdentityPlace


def photos(count: int = 2, seed: int = 0) -> torch.Tensor:
    """IMAGE"""
    return torch.rand(count, 40, 32, 3, generator=torch.Generator().manual_seed(seed))


def identity(images=None, weight: float = 1.0, append_to=None, reference_weight="as given"):
    """FACE_IDENTITY: every image is a face already."""
    images = photos() if images is None else images
    settings = ("largest", 0, 0.0, "error", weight, reference_weight, "")
    return FlashFaceIdentity.execute(images, *settings, append_to=append_to).args[0]


def placed(person, x: float = 0.3, strength: float = 1.0, attention: str = "whole image"):
    return FlashFaceIdentityPlace.execute(person, x, 0.1, 0.3, 0.3, strength, attention).args[0]
