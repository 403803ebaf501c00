"""FaceStudio: a style image or a text, and a face, as one hybrid condition in the text's place.

    e_f = sum_i beta_i ArcFace(I_i)                             identity, or a mix of identities
    e_i = Linear(e_h || e_f),  e_p = Linear(e_T || e_f)         image branch, text branch
    e_g = alpha e_i + (1 - alpha) e_p                           the context of every cross-attention

(Yan et al., FaceStudio: Put Your Face Everywhere in Seconds, arXiv 2312.02663, sections 3.2 and
3.3.) The paper does not say how many tokens e_g has; Linear gives T of them, one after another.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, layer_norm

from ..errors import FlashFaceError
from ..softmax import Attention, attend, join_heads, split_heads

TOKENS = 4
# Over the face of a style image: CLIP's mean colour, which its networks see as zeros.
FACELESS = (0.48145466, 0.4578275, 0.40821073)


class HybridCondition(nn.Module):
    """The one trained layer of the condition, shared by both branches.

    style_width: of the style and text embeddings; face_width: of the face embedding; width: of
    the UNet's context; operations: torch.nn or a comfy.ops class.
    """

    def __init__(
        self,
        style_width: int,
        face_width: int,
        width: int,
        tokens: int = TOKENS,
        operations: Any = nn,
        dtype=None,
        device=None,
    ) -> None:
        super().__init__()
        self.style_width, self.face_width, self.tokens = style_width, face_width, tokens
        self.linear = operations.Linear(
            style_width + face_width, tokens * width, dtype=dtype, device=device
        )

    def branch(self, style: torch.Tensor | None, face: torch.Tensor | None) -> torch.Tensor:
        """Linear(style || face) as tokens, (B, T, width).

        style: (B, S), the style image's embedding or the prior's for a text; face: (B, F). Either
        may have one row for all. None is zeros, which is what the training drops and pictures
        without people put there; without both it is the null condition of the guidance.
        """
        like = next((given for given in (style, face) if given is not None), self.linear.bias)
        style = _checked("style", style, self.style_width, like)
        face = _checked("face", face, self.face_width, like)
        rows = max(len(style), len(face))
        joined = torch.cat([style.expand(rows, -1), face.expand(rows, -1)], 1)
        return self.linear(joined).unflatten(-1, (self.tokens, -1))

    def forward(
        self,
        face: torch.Tensor | None,
        style: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
        alpha: float = 1.0,
    ) -> torch.Tensor:
        """The hybrid guidance e_g, (B, T, width): B people, or one.

        face: (B, F). style, text: (B, S) or (1, S); what alpha leaves out need not be given.
        alpha: 1 is the image branch and 0 the text branch, exactly; outside of 0..1 is clamped.
        Raises FlashFaceError for a branch that alpha asks for and that is not there.
        """
        alpha = min(max(alpha, 0.0), 1.0)
        if style is None and alpha > 0:
            raise FlashFaceError(
                f"The hybrid guidance at alpha {alpha:g} takes a style image and was given none; "
                "connect one, or set alpha to 0 for the text alone."
            )
        if text is None and alpha < 1:
            raise FlashFaceError(
                f"The hybrid guidance at alpha {alpha:g} takes a text embedding and was given "
                "none; connect one, or set alpha to 1 for the style image alone."
            )
        if alpha in (0, 1):
            return self.branch(style if alpha else text, face)
        return alpha * self.branch(style, face) + (1 - alpha) * self.branch(text, face)


def _checked(
    name: str, embedding: torch.Tensor | None, width: int, like: torch.Tensor
) -> torch.Tensor:
    if embedding is None:
        return like.new_zeros(1, width)
    if embedding.ndim != 2 or embedding.shape[1] != width:
        raise FlashFaceError(
            f"The {name} embedding has the shape {tuple(embedding.shape)}, FaceStudio's weights "
            f"take {width} numbers per picture; use the encoder they were trained with."
        )
    return embedding


class TextPrior(nn.Sequential):
    """A text to the style embedding of a picture that it could describe: e_T.

    A small perceptron in the place of the paper's diffusion prior, of which no weights for these
    encoders are published. text_width: of the text CONDITIONING; operations: torch.nn or a
    comfy.ops class.
    """

    def __init__(
        self,
        text_width: int,
        hidden: int,
        style_width: int,
        operations: Any = nn,
        dtype=None,
        device=None,
    ) -> None:
        options = dict(dtype=dtype, device=device)
        super().__init__(
            operations.Linear(text_width, hidden, **options),
            nn.GELU(),
            operations.Linear(hidden, style_width, **options),
        )
        self.text_width = text_width

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        """(B, L, text width), any number of tokens, to (B, style width)."""
        return super().forward(layer_norm(tokens.mean(1), (self.text_width,)))


def paint_out(image: torch.Tensor, box: Sequence[float]) -> torch.Tensor:
    """A copy of a picture (H, W, 3), 0..1, with FACELESS in the box x1, y1, x2, y2, in pixels.

    "The face region masked" of section 3.4; the paper does not say with what.
    """
    image = image.clone()
    left, top, right, bottom = (max(0, round(value)) for value in box)
    image[top:bottom, left:right] = image.new_tensor(FACELESS)
    return image


def mix_faces(faces: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """e_f = sum_i beta_i e_f^i with beta_i = weight_i / sum of the weights: (N, F) to (1, F).

    faces: ArcFace embeddings of unit length. The sum is not brought back to unit length. Photos
    of one person weigh the same; `mix_identities` weighs those of two by the ratio. A photo of
    weight 0 is left out, so one that is left alone is exactly itself; without any it is zeros.
    Raises FlashFaceError for a negative weight and when the counts differ.
    """
    if len(faces) != len(weights) or any(weight < 0 for weight in weights):
        raise FlashFaceError(
            f"{len(faces)} face embeddings were given the weights {list(weights)}; every one "
            "needs a weight of 0 or more."
        )
    kept = [i for i, weight in enumerate(weights) if weight > 0]
    if not kept:
        return faces.new_zeros(1, *faces.shape[1:])
    total = sum(weights[i] for i in kept)
    beta = faces.new_tensor([weights[i] / total for i in kept])
    return (beta[:, None] * faces[kept]).sum(0, keepdim=True)


def join_tokens(guidance: torch.Tensor) -> torch.Tensor:
    """e_g of P people, (P, T, width), as one context (1, P * T, width), person after person.

    ComfyUI repeats contexts to a common length; repeated keys change no attention, and
    `attend_to_identities` finds a person's tokens in every repetition. A null condition of T
    tokens becomes P times itself, so its rows may share the call.
    """
    return rearrange(guidance, "people tokens width -> 1 (people tokens) width")


def identities_at(regions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Which person every picture token attends to at a layer of h x w: long (B, h * w).

    regions: (B, P, H, W), 0..1. The person that covers most of a token has it, the first of equal
    ones; where there is no one it is the first person (the paper: any of them).
    """
    return adaptive_avg_pool2d(regions.float(), size).argmax(1).flatten(1)


def attend_to_identities(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    identities: torch.Tensor,
    heads: int,
    people: int,
    tokens: int = TOKENS,
    attention: Attention | None = None,
) -> torch.Tensor:
    """Multi-identity cross-attention (section 3.3): every query attends to its own person only.

    q: (B, L, C). k, v: (B, n * P * T, C), projected from contexts of `join_tokens`. identities:
    long (B, L) or (1, L), 0..P-1. attention: core's attention(q, k, v, heads). (B, L, C), before
    the output projection. All queries are computed for everyone, which costs T keys each: so a
    token is bit-equal to the plain attention to its person's keys alone.
    """
    if k.shape[1] % (people * tokens):
        raise FlashFaceError(
            f"The condition has {k.shape[1]} tokens, which is not a multiple of {people} people "
            f"with {tokens} tokens each; make it with FaceStudio's encode node."
        )
    attention = attention or _attention
    k, v = (tensor.unflatten(1, (-1, people, tokens)) for tensor in (k, v))
    out = attention(q, k[:, :, 0].flatten(1, 2), v[:, :, 0].flatten(1, 2), heads)
    for person in range(1, people):
        other = attention(q, k[:, :, person].flatten(1, 2), v[:, :, person].flatten(1, 2), heads)
        out = torch.where((identities == person)[..., None], other, out)
    return out


def _attention(q, k, v, heads):
    out, _ = attend(*(split_heads(tensor, heads) for tensor in (q, k, v)))
    return join_heads(out)
