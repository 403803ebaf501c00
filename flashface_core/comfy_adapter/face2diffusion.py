"""FACE2DIFFUSION: the networks under ComfyUI's memory management, and prompts with a person."""

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import torch

from ..errors import FlashFaceError
from ..identity import Identity, IdentityGroup, one_person
from ..systems.face2diffusion.encoder import MSID, network_input
from ..systems.face2diffusion.files import load_encoder, load_mapping
from ..systems.face2diffusion.mapping import MappingNetwork
from ..systems.face2diffusion.prompt import find_word, keep_together, put_word, with_placeholder

CLIP_L = "l"  # core's name of SD1.5's text model


class Networks(torch.nn.Module):
    """The frozen networks, float32 as in the official code, so that they are moved as one."""

    def __init__(self, encoder: MSID, mapping: MappingNetwork) -> None:
        super().__init__()
        self.encoder, self.mapping = encoder, mapping


class Face2Diffusion:
    """Makes the word S* of a person."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks.eval()
        self.patcher = comfy.model_patcher.ModelPatcher(
            networks,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    @torch.inference_mode()
    def word(
        self, identity: Identity | IdentityGroup, expression: torch.Tensor | None = None
    ) -> torch.Tensor:
        """S* (2, text width) of one person, float32 on the CPU.

        Several photos: the mean of their face vectors by weight. expression: (1, 64)
        coefficients as the mapping network was trained with; None: its learned vector.
        Raises FlashFaceError for a group, for photos without weight or without an aligned face.
        """
        person = one_person(identity, "Face2DiffusionTextEncode describes one person")
        faces, weights = _faces(person)
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        device = self.patcher.load_device
        vectors = self._networks.encoder(network_input(faces.to(device)))
        share = (weights / weights.sum()).to(vectors)
        vector = (vectors * share[:, None]).sum(dim=0, keepdim=True)
        given = None if expression is None else expression.to(vector)
        return self._networks.mapping(vector, given)[0].cpu()


def _faces(person: Identity) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligned faces (N, 112, 112, 3) that have a weight, in an order of their own, and weights."""
    references = [one for one in person.references if one.weight > 0]
    references.sort(key=lambda one: (one.content, one.weight))  # not the order of the photos
    if not references:
        raise FlashFaceError(
            f"The identity has {len(person.references)} photos and none with a weight above 0, "
            "Face2Diffusion needs one at least; raise a weight in FlashFaceIdentity."
        )
    faces = [one.aligned for one in references if one.aligned is not None]
    if missing := len(references) - len(faces):
        raise FlashFaceError(
            f"{missing} of the identity's {len(references)} photos have no aligned face, which "
            "Face2Diffusion needs; connect a FlashFaceDetectorLoader in FlashFaceIdentity."
        )
    return torch.stack(faces), torch.tensor([one.weight for one in references])


def load_face2diffusion(mapping: str | Path, encoder: str | Path) -> Face2Diffusion:
    """Of the published mapping.pt and msid.pt, or safetensors of them.

    Raises FlashFaceError for any other file, and for a mapping network of another face encoder.
    """
    network = load_mapping(mapping)
    if network.identity_width != MSID.width:
        raise FlashFaceError(
            f"{Path(mapping).name} was trained on face vectors of {network.identity_width} values, "
            f"expected MSID's {MSID.width}; choose a mapping network that was trained with MSID."
        )
    return Face2Diffusion(Networks(load_encoder(encoder), network))


def encode_text(
    clip,
    face2diffusion: Face2Diffusion,
    identity: Identity | IdentityGroup,
    text: str,
    placeholder: str,
    expression: torch.Tensor | None = None,
):
    """CONDITIONING of a prompt in which the placeholder stands for a person.

    All else is as in core's CLIPTextEncode. The CLIP is left as it is. Raises FlashFaceError for
    a prompt without the placeholder, a CLIP that is not SD1.5's, and as Face2Diffusion.word does.
    """
    if clip is None:
        raise FlashFaceError(
            "There is no CLIP: the checkpoint holds no text model; load one with CLIPLoader."
        )
    tokens = clip.tokenize(with_placeholder(text, placeholder))
    if list(tokens) != [CLIP_L]:
        raise FlashFaceError(
            f"This CLIP has the text models {', '.join(tokens)}, Face2Diffusion's words are for "
            "the CLIP-L of SD1.5 alone; connect the CLIP of an SD1.5 checkpoint."
        )
    chunks = keep_together(tokens[CLIP_L])
    if not find_word(chunks):
        raise FlashFaceError(
            f"The prompt has no placeholder {placeholder!r}; write it where the person is meant, "
            f"as in 'a photo of {placeholder} in a forest'."
        )
    word = face2diffusion.word(identity, expression)
    clip.load_model()  # positions as the text model will add them, with what a LoRA changes
    embeddings = clip.cond_stage_model.clip_l.transformer.text_model.embeddings
    positions = embeddings.position_embedding.weight.detach().float().cpu()
    tokens[CLIP_L] = put_word(chunks, word, positions)
    return clip.encode_from_tokens_scheduled(tokens)
