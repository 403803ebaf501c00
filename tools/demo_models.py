"""Models made by rule for the demo and the tests: FlashFace, a small VAE and a text encoder.

All three have the layouts of published files and load through the ordinary loader nodes. Nothing
in them was trained, so pictures are noise. Every value follows from its name alone.

    python tools/demo_models.py FOLDER      # makes them in a `models` folder of ComfyUI
"""

import sys
from pathlib import Path

import numpy as np
import rule_weights  # which puts the repository on sys.path
import torch

from flashface_core.checkpoint_file import write_safetensors

# As the shipped workflow names them, each in its folder under models/.
FLASHFACE = "flashface/flashface.safetensors"
VAE = "vae/vae-ft-mse-840000-ema-pruned.safetensors"
TEXT_ENCODER = "text_encoders/clip_l.safetensors"

SD15_LATENT_SCALE = 0.18215


def make_demo_models(models: Path) -> list[Path]:
    """Make the models that the shipped workflow names where they are missing; those made."""
    makers = {FLASHFACE: write_flashface, VAE: write_vae, TEXT_ENCODER: write_text_encoder}
    made = []
    for name, write in makers.items():
        path = models / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            made.append(path)
    return made


def write_flashface(path: Path) -> None:
    rule_weights.write_rule_checkpoint(path, "mini")


def write_vae(path: Path) -> None:
    """A VAE in the single-file layout of TAESD, the smallest that core's VAELoader knows.

    A latent is the picture made eight times smaller, so that nothing leaves the range of colours.
    """
    shapes = _vae_shapes()
    tensors = ((key, _vae_tensor(key, shape)) for key, shape in shapes.items())
    write_safetensors(path, shapes, tensors, torch.float16)


def write_text_encoder(path: Path) -> None:
    """A text encoder in CLIP-L's layout.

    Its layers are zero and pass on what they get: prompts differ by the embeddings of their own
    tokens, and 123 million values are made in seconds.
    """
    shapes = _text_encoder_shapes()
    tensors = ((key, _text_encoder_tensor(key, shape)) for key, shape in shapes.items())
    write_safetensors(path, shapes, tensors, torch.float16)


def _vae_shapes() -> dict[str, tuple[int, ...]]:
    """comfy.taesd.taesd.TAESD; numbers are places in its nn.Sequential."""
    convolutions = {
        "taesd_encoder": {0: (64, 3), 2: (64, 64), 6: (64, 64), 10: (64, 64), 14: (4, 64)},
        "taesd_decoder": {1: (64, 4), 7: (64, 64), 12: (64, 64), 17: (64, 64), 19: (3, 64)},
    }
    blocks = {
        "taesd_encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13),
        "taesd_decoder": (3, 4, 5, 8, 9, 10, 13, 14, 15, 18),
    }
    shapes: dict[str, tuple[int, ...]] = {"vae_scale": (), "vae_shift": ()}
    for part in convolutions:
        for index, channels in convolutions[part].items():
            shapes[f"{part}.{index}.weight"] = (*channels, 3, 3)
            if channels != (64, 64):  # those that change the size have no bias
                shapes[f"{part}.{index}.bias"] = channels[:1]
        for index in blocks[part]:
            for inner in (0, 2, 4):
                shapes[f"{part}.{index}.conv.{inner}.weight"] = (64, 64, 3, 3)
                shapes[f"{part}.{index}.conv.{inner}.bias"] = (64,)
    return shapes


def _vae_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Three channels carry the colours; residual blocks are zero and pass on what they get."""
    tensor = torch.zeros(shape)
    layer, _, kind = key.rpartition(".")
    if key == "vae_scale":
        return torch.tensor(SD15_LATENT_SCALE)
    if key == "vae_shift" or ".conv." in key:
        return tensor
    # Colours 0..1 are latents -3..3, TAESD's range.
    factor, offset = {"taesd_encoder.14": (6, -3), "taesd_decoder.1": (1 / 6, 1 / 2)}.get(
        layer, (1, 0)
    )
    if kind == "bias":
        return tensor + offset
    kernel = torch.zeros(3, 3)
    if shape[:2] != (64, 64):
        kernel[1, 1] = factor
    elif layer.startswith("taesd_encoder"):
        kernel[1:, 1:] = 1 / 4  # the mean of 2 x 2 pixels
    else:
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = row[:, None] * row  # smooths doubled pixels
    for colour in range(3):
        tensor[colour, colour] = kernel
    if layer == "taesd_encoder.14":
        tensor[3, :3] = kernel / 3  # the fourth channel of a latent is grey
    return tensor


def _text_encoder_shapes() -> dict[str, tuple[int, ...]]:
    width, hidden = 768, 3072
    linear = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    linear |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (49408, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
        "text_model.final_layer_norm.weight": (width,),
        "text_model.final_layer_norm.bias": (width,),
        "text_projection.weight": (width, width),
    }
    for layer in range(12):
        path = f"text_model.encoder.layers.{layer}"
        for name, shape in linear.items():
            shapes |= {f"{path}.{name}.weight": shape, f"{path}.{name}.bias": shape[:1]}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{path}.{name}.weight": (width,), f"{path}.{name}.bias": (width,)}
    return shapes


def _text_encoder_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if ".encoder." in key:
        return torch.zeros(shape)
    if key == "text_model.embeddings.token_embedding.weight":
        # 38 million values: float32 from the start, which rule_tensor does not have.
        generator = np.random.Generator(np.random.Philox(key=0))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    return rule_weights.rule_tensor(key, shape)


if __name__ == "__main__":
    make_demo_models(Path(sys.argv[1]))
