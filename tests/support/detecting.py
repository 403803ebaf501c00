"""Photographs through FlashFaceIdentity with a detector."""

import numpy as np
import torch
from flashface_pack.nodes.identity import FlashFaceIdentity
from PIL import Image


def as_image(picture: Image.Image) -> torch.Tensor:
    """IMAGE (1, H, W, C) with as many channels as the picture."""
    values = torch.from_numpy(np.array(picture)).float() / 255
    return values.reshape(1, *values.shape[:2], -1)


def identify(image, detector, select="largest", index=0, no_face="error", boxes=None):
    """FACE_IDENTITY, faces, preview and count."""
    settings = (select, index, 0.0, no_face, 1.0, "as given", "")
    return FlashFaceIdentity.execute(image, *settings, detector=detector, boxes=boxes).args
