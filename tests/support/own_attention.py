"""MODELs that look at photos themselves, and the same written out with core's own patches."""

from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.sd
import torch
from comfy.ldm.modules.attention import attention_basic
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from flashface_pack.nodes.from_model import ReferenceNetFromModel

from support.control import lora_state
from support.harness import Guidance, apply_features, cond, make_features, observe
from support.sampling import classic, guided, ksampler, noise, noisy

GUIDANCE = Guidance()
LATE = 501


@dataclass(frozen=True)
class Own:
    """A MODEL, its REFERENCE_NET, and prompts for it."""

    family: str
    model: Any
    net: Any
    positive: list
    negative: list

    def features(self, count=2, weights=None, place=None, seed=100):
        context, options = self.negative[0]
        features = make_features(self.net, noise(seed, count, 8, 8), context, weights, place)
        return replace(features, pooled=options.get("pooled_output"))

    def people(self, *people):
        return replace(people[0], people=tuple(p for person in people for p in person.people))

    def sample(self, model, **options):
        return ksampler(model, self.positive, self.negative, **options)

    def drawn(self, *, guidance=GUIDANCE, sampled=None, **features):
        model = apply_features(sampled or self.model, self.features(**features), guidance)
        return self.sample(model)


def from_node(model):
    return ReferenceNetFromModel.execute(model).args[0]


def sdxl_prompt(seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    embedding, pooled = (torch.randn(s, generator=generator) for s in ((1, 77, 2048), (1, 1280)))
    return cond(embedding, pooled_output=pooled)


def attentive(model):
    """Random attention looks everywhere alike; trained attention does not."""
    for name, weight in model.model.diffusion_model.named_parameters():
        if ".attn1.to_" in name:
            weight.data *= 2 if "to_q" in name or "to_k" in name else 4
    return model


def with_lora(model):
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora_state(model, ""), 0.5, 0)
    assert len(patched.patches) > 0
    return patched


def later_blocks(model) -> dict:
    """Transformer blocks of the middle and the decoder, by (name, index, depth)."""
    unet = model.model.diffusion_model
    parts = [("middle", 0, unet.middle_block)]
    parts += [("output", i, layers) for i, layers in enumerate(unet.output_blocks)]
    return {
        (name, i, depth): block
        for name, i, layers in parts
        for layer in layers
        if type(layer).__name__ == "SpatialTransformer"
        for depth, block in enumerate(layer.transformer_blocks)
    }


def what_the_network_sees(own: Own, model, count: int) -> dict:
    """norm1 of every block of middle and decoder for clean photos, (1, photos * L, C)."""
    comfy.model_management.load_models_gpu([model])
    context, options = own.negative[0]
    y = None
    if own.family == "SDXL":
        sizes = torch.tensor([512, 512, 0, 0, 512, 512])
        sizes = timestep_embedding(sizes, 256).flatten()[None]
        y = torch.cat([options["pooled_output"], sizes], 1).expand(count, -1)
    maps, hooks = {}, []
    for site, block in later_blocks(model).items():
        keep = lambda _m, _i, output, site=site: maps.__setitem__(site, output)  # noqa: E731
        hooks.append(block.norm1.register_forward_hook(keep))
    device, steps = model.load_device, torch.full((count,), float(LATE))
    inputs = (noise(100, count, 8, 8), steps, context.expand(count, -1, -1), y)
    model.model.diffusion_model(*(None if one is None else one.to(device) for one in inputs))
    for hook in hooks:
        hook.remove()
    return {site: y.flatten(0, 1)[None] for site, y in maps.items()}


def written_out(model, maps: dict, strength: float):
    """MODEL whose attention is s SA(y, [y; photos]) + (1 - s) SA(y, y), by core's own patches."""
    model = model.clone()

    def longer(n, context, value, extra_options):
        site = (*extra_options["block"], extra_options["block_index"])
        if site in maps:
            context = value = torch.cat([n, maps[site].to(n).expand(len(n), -1, -1)], 1)
        return n, context, value

    def mixed(q, k, v, extra_options):
        heads, own = extra_options["n_heads"], q.shape[1]
        joint = attention_basic(q, k, v, heads)
        alone = attention_basic(q, k[:, :own], v[:, :own], heads)
        return strength * joint + (1 - strength) * alone

    model.set_model_attn1_patch(longer)
    for name, index, depth in maps:
        model.set_model_attn1_replace(mixed, name, index, depth)
    return model


def one_step(own: Own, model, batch=1):
    """What the network itself says of every row."""
    model, seen = observe(model)
    x = noisy(model, noise(7, batch), LATE)
    guided(classic(model, own.positive, own.negative), x, LATE)
    return seen.eps[-1]
