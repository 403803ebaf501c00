"""Patches of cross-attention as packs for image prompts set them."""

import torch
from comfy.ldm.modules.attention import optimized_attention

TOKENS = 4


class ImagePrompt:
    """attn2 replace patch: text attention plus `weight` times attention to image tokens.

    An object with tensors, which core copies with every clone, as in IPAdapter packs. As there, it
    has one set of tokens for the positive prompt and one for the negative, told apart by the number
    of the cond list that a row belongs to, and knows no third number.
    """

    def __init__(self, weight: float, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = weight
        self.keys, self.values = torch.randn(2, 2, TOKENS, width, generator=generator)

    def __call__(self, q, k, v, extra_options):
        heads, lists = extra_options["n_heads"], extra_options["cond_or_uncond"]
        out = optimized_attention(q, k, v, heads)
        if self.weight == 0:
            return out
        samples = len(q) // len(lists)
        keys, values = (
            torch.cat([of_both[number].expand(samples, -1, -1) for number in lists])
            for of_both in (self.keys, self.values)
        )
        return out + self.weight * optimized_attention(q, keys.to(q), values.to(q), heads)


def image_prompt(model, weight: float):
    """MODEL with an ImagePrompt at every cross-attention."""
    unet, model = model.model.diffusion_model, model.clone()
    parts = [("middle", 0, unet.middle_block)]
    for name in ("input", "output"):
        parts += [(name, i, block) for i, block in enumerate(getattr(unet, f"{name}_blocks"))]
    for seed, (name, index, layers) in enumerate(parts):
        for layer in layers:
            for block in getattr(layer, "transformer_blocks", ()):
                width = block.attn2.to_q.out_features
                model.set_model_attn2_replace(ImagePrompt(weight, width, seed), name, index)
    return model


def louder_prompt(model, weight: float):
    """MODEL with an attn2 output patch: what the positive prompt says, (1 + weight) times."""

    def louder(n, extra_options):
        factors = [(1 + weight, 1.0)[number] for number in extra_options["cond_or_uncond"]]
        per_row = torch.tensor(factors, device=n.device).repeat_interleave(len(n) // len(factors))
        return n * per_row[:, None, None].to(n)

    model = model.clone()
    model.set_model_attn2_output_patch(louder)
    return model
