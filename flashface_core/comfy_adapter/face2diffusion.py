"""FACE2DIFFUSION: the networks under ComfyUI's memory management, and prompts with a person."""

from pathlib import Path

import torch

from ..errors import FlashFaceError
from ..face2diffusion.encoder import MSID
from ..face2diffusion.encoder_inputs import encoder_inputs
from ..face2diffusion.files import load_encoders, load_mapping
from ..face2diffusion.mapping import MappingNetwork
from ..face2diffusion.prompt import find_word, keep_together, put_word, with_placeholder
from ..people.identity import Identity, IdentityGroup, one_person
from .networks import ManagedNetworks

CLIP_L = "l"  # core's name of SD1.5's text model


class Networks(torch.nn.Module):
    """The frozen networks, float32 as in the official code, so that they are moved as one.

    expression: from a face, what the mapping network is given of its expression; None as published.
    """

    def __init__(
        self, encoder: MSID, mapping: MappingNetwork, expression: MSID | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.mapping, self.expression = encoder, mapping, expression


class Face2Diffusion(ManagedNetworks[Networks]):
    """Makes the word S* of a person."""

    @torch.inference_mode()
    def word(
        self, identity: Identity | IdentityGroup, expression: torch.Tensor | None = None
    ) -> torch.Tensor:
        """S* (2, text width) of one person, float32 on the CPU.

        Several photos: the mean of their face vectors by weight. expression: (1, expression
        width), as the mapping network was trained with; None: its learned vector. Raises
        FlashFaceError for a group, for photos without weight, and for photos without an aligned
        face where the encoder needs one.
        """
        person = one_person(identity, "Face2Diffusion Text Encode describes one person")
        vector = self._mean_vector(self._networks.encoder, person, "Face2Diffusion")
        given = None if expression is None else expression.to(vector)
        return self._networks.mapping(vector, given)[0].cpu()

    @torch.inference_mode()
    def expression(self, identity: Identity | IdentityGroup) -> torch.Tensor:
        """The expression of one person for `word`, (1, expression width), float32 on the CPU.

        Several photos: the mean by weight. Raises FlashFaceError where the file of the face
        encoder has no expression network, and as `word` does.
        """
        if self._networks.expression is None:
            raise FlashFaceError(
                "This face encoder came without an expression network, which tells the expression "
                "of a photo; disconnect `expression` in Face2Diffusion Text Encode, or choose an "
                "encoder file in Face2Diffusion Loader that was trained with one."
            )
        person = one_person(identity, "Face2Diffusion Text Encode takes one person's expression")
        system = "Face2Diffusion's expression network"
        return self._mean_vector(self._networks.expression, person, system).cpu()

    def _mean_vector(self, encoder: MSID, person: Identity, system: str) -> torch.Tensor:
        """(1, D), on the device that computes."""
        faces, share = encoder_inputs(encoder, person, system)
        self._loaded()
        vectors = encoder(faces.to(self.patcher.load_device))
        return (vectors * share.to(vectors)[:, None]).sum(dim=0, keepdim=True)


def load_face2diffusion(mapping: str | Path, encoder: str | Path) -> Face2Diffusion:
    """Of the published mapping.pt and msid.pt, safetensors of them, or files of other sizes.

    Raises FlashFaceError for any other file, and for two that were not trained together.
    """
    network = load_mapping(mapping)
    identity, expression = load_encoders(encoder)
    names = Path(mapping).name, Path(encoder).name
    _check_width(*names, "face", network.identity_width, identity)
    if expression is not None:
        _check_width(*names, "expression", network.expression_width, expression)
    return Face2Diffusion(Networks(identity, network, expression))


def _check_width(mapping: str, encoder: str, what: str, trained_on: int, network: MSID) -> None:
    if trained_on != network.vector_width:
        raise FlashFaceError(
            f"{mapping} was trained on {what} vectors of {trained_on} values, expected the "
            f"{network.vector_width} of {encoder}; choose two files that were trained together."
        )


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
            "There is no CLIP: the checkpoint holds no text model; load one with Load CLIP."
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
