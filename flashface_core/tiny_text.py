"""The tiny models' frozen text encoder, made by rule: seeded embeddings under CLIP-L's tokenizer.

It is what CLIP-L computes when every residual branch but the first is zero: the final LayerNorm of
token and position embedding and MIXTURE times the mean of the normalised ones so far. 123 million
values that nobody has to ship.

The first layer attends to all tokens so far alike, so that later tokens, those after the end too,
tell of the words before them, as those of a trained CLIP do. Without this, a UNet has to look at a
word itself: its cross-attention came to look at single places of a caption, and could not be taught
new words at others.
"""

import numpy as np
import torch

VOCABULARY, TOKENS, WIDTH = 49408, 77, 768
LAYERS = 12  # of CLIP-L; all after the first are zeros
SEED = 0
# Positions are fainter than words, or the same word at two places would be two words.
POSITION_SCALE = 0.3
# Of the mean over all tokens so far, which is about this much fainter than a token.
MIXTURE = 5.0


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Token (49408, 768) and position (77, 768) embeddings, float32."""
    generator = np.random.Generator(np.random.Philox(key=SEED))
    tokens = generator.standard_normal((VOCABULARY, WIDTH), dtype=np.float32)
    positions = generator.standard_normal((TOKENS, WIDTH), dtype=np.float32) * POSITION_SCALE
    return torch.from_numpy(tokens), torch.from_numpy(positions)


def clip_state_dict(layers: int = LAYERS) -> dict[str, torch.Tensor]:
    """The text encoder as weights of core's CLIP-L; all zeros share memory."""
    tokens, positions = embeddings()
    state = {
        "text_model.embeddings.token_embedding.weight": tokens,
        "text_model.embeddings.position_embedding.weight": positions,
        "text_model.final_layer_norm.weight": torch.ones(WIDTH),
        "text_model.final_layer_norm.bias": torch.zeros(WIDTH),
        "text_projection.weight": torch.eye(WIDTH),
    }
    hidden = 4 * WIDTH
    shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (hidden, WIDTH), "mlp.fc2": (WIDTH, hidden)}
    for layer in range(layers):
        path = f"text_model.encoder.layers.{layer}"
        for name, shape in shapes.items():
            state[f"{path}.{name}.weight"] = torch.zeros(1).expand(shape)
            state[f"{path}.{name}.bias"] = torch.zeros(1).expand(shape[:1])
        for name in ("layer_norm1", "layer_norm2"):
            state[f"{path}.{name}.weight"] = torch.zeros(1).expand(WIDTH)
            state[f"{path}.{name}.bias"] = torch.zeros(1).expand(WIDTH)
    # Queries and keys of 0 attend alike to all tokens that the causal mask leaves.
    path = "text_model.encoder.layers.0"
    state[f"{path}.layer_norm1.weight"] = torch.ones(WIDTH)
    state[f"{path}.self_attn.v_proj.weight"] = torch.eye(WIDTH)
    state[f"{path}.self_attn.out_proj.weight"] = MIXTURE * torch.eye(WIDTH)
    return state
