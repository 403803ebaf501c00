"""The identity loss of drawn people, by the shipped MSID."""

from pathlib import Path

from accelerate import PartialState

from flashface_core.comfy_adapter.flashface.tiny import FOLDER
from training.identity_loss import IdentityLoss, with_msid
from training.trainer import Recipe

from .autoencoder import load_autoencoder

EMBEDDER = FOLDER / "face2diffusion" / "msid_tiny.safetensors"


def drawn_identity_loss(recipe: Recipe, vae: Path) -> IdentityLoss | None:
    """None where the recipe gives it no weight."""
    if not recipe.identity_weight:
        return None
    device = str(PartialState().device)
    decode = load_autoencoder(vae, device).requires_grad_(False).taesd_decoder
    return with_msid(EMBEDDER, decode, recipe.identity_below, device)
