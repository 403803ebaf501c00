"""The toy world's frozen text encoder, made by rule: seeded embeddings under CLIP-L's tokenizer.

It is what core's CLIP-L computes when every residual branch is zero: the final LayerNorm of token
plus position embedding. 123 million values that nobody has to ship.
"""

import numpy as np
import torch
import torch.nn.functional as F

VOCABULARY, TOKENS, WIDTH = 49408, 77, 768
SEED = 0
# Positions are fainter than words, or the same word at two places would be two words.
POSITION_SCALE = 0.3


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Token (49408, 768) and position (77, 768) embeddings, float32."""
    generator = np.random.Generator(np.random.Philox(key=SEED))
    tokens = generator.standard_normal((VOCABULARY, WIDTH), dtype=np.float32)
    positions = generator.standard_normal((TOKENS, WIDTH), dtype=np.float32) * POSITION_SCALE
    return torch.from_numpy(tokens), torch.from_numpy(positions)


class ToyText:
    """Captions (B,) to text embeddings (B, 77, 768), as core's CLIPTextEncode gives them."""

    def __init__(self, device: str = "cpu") -> None:
        from comfy.sd1_clip import SD1Tokenizer

        self._tokenizer = SD1Tokenizer()
        tokens, positions = embeddings()
        self._tokens, self._positions = tokens.to(device), positions.to(device)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """Raises ValueError for a caption longer than CLIP's 75 tokens."""
        rows = []
        for caption in captions:
            chunks = self._tokenizer.tokenize_with_weights(caption)["l"]
            if len(chunks) != 1:
                raise ValueError(f"The caption {caption!r} is longer than one chunk of CLIP.")
            rows.append([token for token, _ in chunks[0]])
        index = torch.tensor(rows, device=self._tokens.device)
        return F.layer_norm(self._tokens[index] + self._positions, (WIDTH,))


def clip_state_dict() -> dict[str, torch.Tensor]:
    """The same as weights of core's CLIP-L, for its text encoder loader; zeros share memory."""
    tokens, positions = embeddings()
    state = {
        "text_model.embeddings.token_embedding.weight": tokens,
        "text_model.embeddings.position_embedding.weight": positions,
        "text_model.final_layer_norm.weight": torch.ones(WIDTH),
        "text_model.final_layer_norm.bias": torch.zeros(WIDTH),
    }
    hidden = 4 * WIDTH
    shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (hidden, WIDTH), "mlp.fc2": (WIDTH, hidden)}
    for layer in range(12):
        path = f"text_model.encoder.layers.{layer}"
        for name, shape in shapes.items():
            state[f"{path}.{name}.weight"] = torch.zeros(1).expand(shape)
            state[f"{path}.{name}.bias"] = torch.zeros(1).expand(shape[:1])
        for name in ("layer_norm1", "layer_norm2"):
            state[f"{path}.{name}.weight"] = torch.zeros(1).expand(WIDTH)
            state[f"{path}.{name}.bias"] = torch.zeros(1).expand(WIDTH)
    return state
