"""MODELs whose cross-attention sees photos, and the same written out with core's own patches."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import (
    load_face_fusion,
    noise_of,
)
from flashface_pack.flashface_core.faces.crop import pad_to_square
from flashface_pack.nodes.face_fusion import FaceFusionApply, FaceFusionEncode
from safetensors.torch import save_file

from support.harness import observe, sigma_of
from support.models import random_vae
from support.photos import identity
from support.sampling import classic, guided, ksampler, noise, noisy

STEP = 501
PARTS = {"input": "input_blocks", "middle": "middle_block", "output": "output_blocks"}


def cross_attention_blocks(model) -> dict:
    """Transformer blocks of the whole UNet, by (name, index, depth)."""
    unet = model.model.diffusion_model
    parts = [("input", i, layers) for i, layers in enumerate(unet.input_blocks)]
    parts += [("middle", 0, unet.middle_block)]
    parts += [("output", i, layers) for i, layers in enumerate(unet.output_blocks)]
    return {
        (name, i, depth): block
        for name, i, layers in parts
        for layer in layers
        if type(layer).__name__ == "SpatialTransformer"
        for depth, block in enumerate(layer.transformer_blocks)
    }


def write_file(path: Path, model, seed: int = 0, metadata=None, dtype=torch.float32) -> Path:
    """A Face Fusion file of random projections for MODEL."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for site, block in cross_attention_blocks(model).items():
        width = block.norm2.normalized_shape[0]
        for part in "kv":
            weight = torch.randn(width, width, generator=generator) / math.sqrt(width)
            state[weight_name(site, part)] = weight.to(dtype)
    save_file(state, path, metadata)
    return path


def weight_name(site, part: str) -> str:
    return ".".join(map(str, (*site, part, "weight")))


@dataclass(frozen=True)
class Fusion:
    """A MODEL, its FACE_FUSION, and what else a graph has."""

    model: Any
    fusion: Any
    vae: Any
    positive: list
    negative: list
    size: int  # of a photo, pixels
    state: dict | None = None  # tensors of the file, if there is one

    def features(self, person=None):
        person = person or identity()
        return FaceFusionEncode.execute(self.fusion, person, self.vae, self.negative).args[0]

    def applied(self, person=None, *, model=None, **settings):
        values = dict(strength=1.0, reference_noise="current step", start_percent=0.0)
        values |= dict(end_percent=1.0) | settings
        return FaceFusionApply.execute(model or self.model, self.features(person), **values).args[0]

    def sample(self, model=None, **options):
        return ksampler(model or self.model, self.positive, self.negative, **options)

    def drawn(self, person=None, **settings):
        return self.sample(self.applied(person, **settings))


def on_flashface(flashface, folder: Path) -> Fusion:
    """Random projections on FlashFace's MODEL."""
    path = write_file(folder / "random.safetensors", flashface.model)
    net, vae = load_face_fusion(path), random_vae(4)
    size = flashface.net.reference_size
    return Fusion(flashface.model, net, vae, flashface.positive, flashface.negative, size)


def rows(fusion: Fusion, model, batch: int = 1, cfg: float = 7.5, size=(16, 16)) -> dict:
    """What the network itself says at one step: 0 of the positive rows, 1 of the negative ones."""
    model, seen = observe(model)
    x = noisy(model, noise(7, batch, *size), STEP)
    guided(classic(model, fusion.positive, fusion.negative, cfg), x, STEP)
    return seen.rows()


def hidden_states(fusion: Fusion, images, current: bool, model=None) -> list[dict]:
    """norm2 of every block for each photo, (L, C), and which tokens show it, bool (L,)."""
    model = model or fusion.model
    comfy.model_management.load_models_gpu([model])
    device, unet, results = model.load_device, model.model.diffusion_model, []
    for reference in identity(images).references:
        square = pad_to_square(reference.crop, fusion.size)[None] / 255
        latent = fusion.vae.encode(square)
        latent = model.get_model_object("latent_format").process_in(latent).float()
        x, step = latent, 0.0
        if current:
            sigma, step = sigma_of(model, STEP), float(STEP)
            seeded = type("Photo", (), {"content": reference.content, "latent": latent})
            x = (latent + sigma * noise_of(seeded)) / (1 + sigma**2) ** 0.5
        y = None
        if unet.num_classes is not None:
            sizes = torch.tensor([fusion.size, fusion.size, 0, 0, fusion.size, fusion.size])
            sizes = timestep_embedding(sizes, 256).flatten()[None]
            y = torch.cat([fusion.negative[0][1]["pooled_output"], sizes], 1)
        maps, hooks = {}, []
        for site, block in cross_attention_blocks(model).items():
            hooks.append(block.norm2.register_forward_hook(_keep(maps, site)))
        # The MODEL's reference attention is on the photo itself.
        options = model.model_options["transformer_options"].get("patches", {})
        unet(
            x.to(device),
            torch.tensor([step], device=device),
            fusion.negative[0][0].to(device),
            None if y is None else y.to(device),
            transformer_options={"patches": options},
        )
        for hook in hooks:
            hook.remove()
        results.append({site: (seen, _shown(reference, len(seen))) for site, seen in maps.items()})
    return results


def _keep(maps: dict, site):
    return lambda _module, _inputs, output: maps.__setitem__(site, output[0].cpu())


def _shown(reference, tokens: int) -> torch.Tensor:
    """The photo in the middle of its black square; a token that has any of it counts."""
    side, (height, width) = math.isqrt(tokens), reference.crop.shape[:2]
    lines = []
    for length in (height, width):
        shown = round(length / max(height, width) * 1000)
        first = (1000 - shown) / 2
        edges = torch.linspace(0, 1000, side + 1)
        lines.append((edges[1:] > first + 1) & (edges[:-1] < first + shown - 1))
    return (lines[0][:, None] & lines[1][None]).flatten()


def written_out(fusion: Fusion, seen: list[dict], logs: list[float], project):
    """MODEL with one softmax over text and face tokens, by core's own replacement of attention.

    logs: added to the logits of every photo. project: site and (L, C) to keys and values.
    """
    model = fusion.model.clone()

    def make(site):
        keys, values, bias = [], [], []
        for photo, log in zip(seen, logs, strict=True):
            hidden, shown = photo[site]
            k, v = project(site, hidden)
            keys, values = [*keys, k], [*values, v]
            bias.append(torch.full((len(k),), log).masked_fill(~shown, -torch.inf))

        def joint(q, k, v, extra_options):
            heads, text = extra_options["n_heads"], k.shape[1]
            device = q.device
            q, k, v = (t.cpu().double() for t in (q, k, v))
            k = torch.cat([k, torch.cat(keys).double().expand(len(k), -1, -1)], 1)
            v = torch.cat([v, torch.cat(values).double().expand(len(v), -1, -1)], 1)
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            logits = logits + torch.cat([torch.zeros(text), *bias])
            return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2).to(device, torch.float32)

        return joint

    for site in seen[0]:
        model.set_model_attn2_replace(make(site), *site)
    return model
