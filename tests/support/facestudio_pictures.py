"""FaceStudio's nodes on a MODEL: conditions of people in places, and what is made of them."""

import torch
from flashface_pack.flashface_core.comfy_adapter.facestudio.needs_apply import without_mark
from flashface_pack.flashface_core.people.identity import join_people
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.nodes.facestudio import FaceStudioApply, FaceStudioEncode

from .facestudio import person, style
from .sampling import basic, classic, guided, noise, noisy

LEFT, RIGHT = Place((0.0, 0.0, 0.5, 1.0)), Place((0.5, 0.0, 0.5, 1.0))
TOP, BOTTOM = Place((0.0, 0.0, 1.0, 0.5)), Place((0.0, 0.5, 1.0, 0.5))
STEP = 500


def apply(model, studio):
    return FaceStudioApply.execute(model, studio).args[0]


def encode(studio, *people, seed=50):
    """Positive and negative."""
    identity = people[0] if len(people) == 1 else join_people(people)
    return FaceStudioEncode.execute(studio, identity, 1.0, False, style(seed)).args


def two(studio, left=1, right=2, places=(LEFT, RIGHT)):
    pair = zip((left, right), places, strict=True)
    return encode(studio, *(person(seed, place=place) for seed, place in pair))


def for_any_model(conds):
    """Without the mark by which a MODEL without FaceStudioApply refuses them."""
    return [[[tokens, without_mark(options)] for tokens, options in cond] for cond in conds]


def predict(model, conds, batch=1, size=(16, 16), guider=None):
    x = noisy(model, noise(1, batch, *size), STEP)
    return guided((guider or classic)(model, *conds), x, STEP)


def attention_outputs(model, conds, size=(16, 16), batch=1):
    """What every cross-attention adds to its block, of the positive row: by site, of fixed inputs.

    The blocks are given the same input whatever came before, so that only attention is compared.
    """
    model, outputs = model.clone(), {}
    steady = torch.Generator().manual_seed(3)
    inputs: dict = {}

    def same_input(n, context, value, extra_options):
        key = (*extra_options["block"], tuple(n.shape))
        if key not in inputs:
            inputs[key] = torch.randn(n.shape, generator=steady)
        return inputs[key].to(n), context, value

    def note(n, extra_options):
        block = extra_options["block"]
        outputs[block] = (n.clone(), tuple(extra_options["activations_shape"][-2:]))
        return n

    options = model.model_options["transformer_options"]
    patches = options["patches"] = dict(options["patches"])
    patches["attn2_patch"] = [same_input, *patches["attn2_patch"]]
    model.set_model_attn2_output_patch(note)
    predict(model, conds[:1], batch, size, guider=basic)
    return outputs


def halves(out, size):
    """Left and right half of (B, h * w, C)."""
    tokens = out.unflatten(1, size)
    return tokens[:, :, : size[1] // 2], tokens[:, :, size[1] // 2 :]
