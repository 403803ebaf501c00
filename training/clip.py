"""CLIP ViT-L/14: the text encoder of SD1.5, and how well a picture fits a text."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flashface_core.errors import FlashFaceError
from flashface_core.face2diffusion.word import inject, placeholder_positions
from flashface_core.tiny_text import clip_state_dict
from flashface_core.weights_file import read_state_dict

CHECKPOINT_PREFIX, OPENAI_PREFIX = "cond_stage_model.transformer.", "visual."
TOKENS = "text_model.embeddings.token_embedding.weight"
WIDTH = 768  # of the texts, and of the space in which they are compared with pictures
PATCHES = 257  # 16 x 16 and one for the whole picture
BATCH = 16


def without_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a whole checkpoint below a prefix; all of the state where nothing has it."""
    part = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    return part or state


def in_transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP vision model, also one in OpenAI's own layout, for core's loader."""
    import comfy.clip_vision

    if any(key.startswith(OPENAI_PREFIX) for key in state):
        return comfy.clip_vision.convert_to_transformers(state, OPENAI_PREFIX)
    return state


def text_projection(state: dict[str, Tensor]) -> Tensor | None:
    """(768, 768) as torch's Linear has it; SD1.5's checkpoints have none."""
    if "text_projection" in state:  # OpenAI's own layout
        return state["text_projection"].T
    return state.get("text_projection.weight")


class ClipText:
    """Core's CLIP-L as a function of texts, which are cut to 77 tokens and may hold parentheses.

    clip: core's own. projection: (768, 768), from pooled texts to where pictures are; None: not in
    the file.
    """

    def __init__(self, clip, projection: Tensor | None) -> None:
        self.projection = projection
        self.clip = clip
        self._encoded = lru_cache(maxsize=4096)(self._encode)  # 0.9 GB

    def __call__(self, texts: list[str]) -> Tensor:
        """(B, 77, 768)"""
        return torch.cat([self._encoded(text)[0] for text in texts])

    def pooled(self, texts: list[str]) -> Tensor:
        """(B, 768), not projected: core's CLIP of SD1.5 leaves that out."""
        return torch.cat([self._encoded(text)[1] for text in texts])

    def with_word(self, caption: str, word: Tensor) -> Tensor:
        """A caption with Face2Diffusion's placeholder and its S* (B, 2, 768): (B, 77, 768), to
        which gradients flow."""
        self.clip.load_model()
        model = self.clip.cond_stage_model.clip_l.transformer
        _keep_inputs_of_norms(model.text_model)
        embeddings = model.text_model.embeddings
        ids = [token for token, _ in self.clip.tokenize(caption)["l"][0]]
        (position,) = placeholder_positions(ids)
        device = embeddings.token_embedding.weight.device
        tokens = embeddings.token_embedding(
            torch.tensor([ids], device=device), out_dtype=torch.float32
        )
        positions = embeddings.position_embedding.weight.detach().float()
        tokens = tokens.detach().expand(len(word), -1, -1)
        given = inject(tokens, word.to(device), positions, position)
        encoded = model(None, embeds=given, num_tokens=[len(ids)] * len(given), dtype=given.dtype)
        return encoded[0].float().to(word.device)

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        tokens = self.clip.tokenize(text, disable_weights=True)
        first = {name: chunks[:1] for name, chunks in tokens.items()}
        embedding, pooled = self.clip.encode_from_tokens(first, return_pooled=True)
        return embedding.detach().float().cpu().clone(), pooled.detach().float().cpu().clone()


def _keep_inputs_of_norms(text_model) -> None:
    """Core adds to a layer's input in place, and the norm needs that input for its gradient."""
    for layer in text_model.encoder.layers:
        for norm in (layer.layer_norm1, layer.layer_norm2):
            if not norm._forward_pre_hooks:
                norm.register_forward_pre_hook(_copy_for_the_gradient)


def _copy_for_the_gradient(_, inputs: tuple[Tensor, ...]):
    return tuple(one.clone() for one in inputs) if torch.is_grad_enabled() else None


def load_text_encoder(path: Path) -> ClipText:
    """A file of its own, or a whole SD1.5 checkpoint.

    Raises FlashFaceError for another text encoder.
    """
    import comfy.sd

    state = without_prefix(read_state_dict(path)[0], CHECKPOINT_PREFIX)
    if TOKENS not in state or state[TOKENS].shape[1] != WIDTH:
        raise FlashFaceError(
            f"{path.name} is not CLIP-L, SD1.5's text encoder; give clip_l.safetensors or an SD1.5 "
            "checkpoint."
        )
    projection = text_projection(state)
    clip = comfy.sd.load_text_encoder_state_dicts(
        [state], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
    )
    return ClipText(clip, projection)


def rule_text_encoder() -> ClipText:
    """Core's CLIP-L with the tiny models' weights by rule, of which there is no file."""
    import comfy.sd

    state = {key: value.contiguous() for key, value in clip_state_dict().items()}
    kind = comfy.sd.CLIPType.STABLE_DIFFUSION
    return ClipText(comfy.sd.load_text_encoder_state_dicts([state], clip_type=kind), None)


class ClipScore:
    """Cosine of CLIP's embeddings of pictures and texts.

    vision: core's ClipVisionModel. projection: of the texts, (768, 768).
    """

    def __init__(self, vision: Any, text: ClipText, projection: Tensor) -> None:
        self._vision, self._text, self._projection = vision, text, projection.float()

    @torch.no_grad()
    def __call__(self, pictures: Tensor, texts: list[str]) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 and a text for each: (B,)"""
        parts = pictures.movedim(1, -1).split(BATCH)
        seen = torch.cat([self._vision.encode_image(part)["image_embeds"] for part in parts])
        told = self._text.pooled(texts) @ self._projection.T
        return torch.cosine_similarity(seen.float().cpu(), told)


def load_clip_score(path: Path, text: ClipText) -> ClipScore:
    """The vision half of CLIP ViT-L/14, or all of it, as core's CLIPVisionLoader reads it.

    Raises FlashFaceError for another model, and where no file has the projection of texts.
    """
    import comfy.clip_vision

    state, _ = read_state_dict(path)
    projection = text.projection if text.projection is not None else text_projection(state)
    vision = None
    state = in_transformers_names(state)
    if _is_vit_l14(state):
        known = set(state)  # the loader empties the dictionary
        vision = comfy.clip_vision.load_clipvision_from_sd(state)
        if vision is not None and vision.get_sd().keys() - known:
            vision = None
    if vision is None:
        raise FlashFaceError(
            f"{path.name} is not a whole vision model of CLIP ViT-L/14, whose text encoder SD1.5 "
            "has; give clip_vision_vit_l.safetensors or another copy of it."
        )
    if projection is None:
        raise FlashFaceError(
            f"Neither --clip nor {path.name} has a text_projection, by which CLIP compares texts "
            "with pictures; give as --clip-vision the whole CLIP ViT-L/14, text and vision in one."
        )
    return ClipScore(vision, text, projection)


def _is_vit_l14(state: dict[str, Tensor]) -> bool:
    places = state.get("vision_model.embeddings.position_embedding.weight")
    projection = state.get("visual_projection.weight")
    return (
        places is not None
        and projection is not None
        and places.shape[0] == PATCHES
        and projection.shape[0] == WIDTH
    )
