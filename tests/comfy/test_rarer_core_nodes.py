"""Rarer nodes of core in one graph with every system: GLIGEN, inpainting models, hooks that change
weights, prompts for the rest of the picture, and a sampler that enlarges the picture as it goes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.gligen
import comfy.hooks
import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras import nodes_hooks as hook_nodes
from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale
from comfy_extras.nodes_custom_sampler import BasicScheduler
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import load_tiny_clip
from flashface_pack.flashface_core.people.identity import join_people
from safetensors.torch import save_file
from support.control import seeded_like
from support.face_fusion import PARTS, cross_attention_blocks
from support.facestudio import person, style
from support.harness import Guidance, WrappersMP, looks_on, relative_error
from support.models import community_model, inpainting_model
from support.sampling import (
    CFG,
    NEGATIVE,
    basic,
    classic,
    euler,
    face_step,
    guided,
    noise,
    noisy,
    prompt,
)
from support.systems import (
    FLASHFACE,
    LATE,
    OWN_ATTENTION,
    STUDIO,
    SYSTEMS,
    Bench,
    Graph,
    in_halves,
)

import nodes

EQUAL = 1e-5
SIZE = (8, 8)
FAINT = 1e-7  # a strength that draws nothing
# Without the rescale, which looks at the whole picture, every pixel is on its own.
GUIDANCE = Guidance(guidance_rescale=0)


def step(graph: Graph) -> torch.Tensor:
    return graph.step(LATE, size=SIZE)


@dataclass(frozen=True)
class Made:
    """What the nodes are given. others: weights of another MODEL."""

    gligen: Any
    clip: Any
    vae: Any
    inpainting: Any
    others: dict[str, torch.Tensor]

    def hooks(self, strength: float = 0.6):
        """As core's node *Create Hook Model as LoRA* makes them of a file; core's reader of
        checkpoints knows none as narrow as this."""
        return comfy.hooks.create_hook_model_as_lora(self.others, None, strength, 0.0)


@pytest.fixture(scope="module")
def made(bench) -> Made:
    clip = load_tiny_clip(layers=2)
    return Made(gligen(bench), clip, bench.vae, inpainting(bench), other_attention(bench))


def gligen(bench: Bench):
    """A GLIGEN of random weights with open gates, by core's loader."""
    state = comfy.gligen.PositionNet(768, 768).state_dict(prefix="position_net.")
    for (part, index, depth), block in cross_attention_blocks(bench.model).items():
        width = block.norm2.normalized_shape[0]
        layer = "1" if part == "middle" else f"{index}.1"
        prefix = f"{PARTS[part]}.{layer}.transformer_blocks.{depth}.fuser."
        fuser = comfy.gligen.GatedSelfAttentionDense(width, 768, 8, width // 8)
        state |= fuser.state_dict(prefix=prefix)
    state = seeded_like(state, 51)
    state |= {key: torch.tensor(0.8) for key in state if ".alpha_" in key}
    path = Path(folder_paths.get_folder_paths("gligen")[0], "small.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return nodes.GLIGENLoader().load_gligen(path.name)[0]


def inpainting(bench: Bench):
    """A MODEL of nine input channels, with FlashFace's attention on the picture itself."""
    model = inpainting_model(bench.model)
    unet = model.model.diffusion_model
    unet.load_state_dict(seeded_like(unet.state_dict(), 52, norms=0.0))
    return bench.net.attach(model)


def other_attention(bench: Bench) -> dict[str, torch.Tensor]:
    """Only attention is another, for core is slow with many tensors."""
    state = community_model(bench.model, 53).model.state_dict()
    return {key: value for key, value in state.items() if ".attn" in key}


def with_box(graph: Graph, made: Made) -> Graph:
    """Core gives the negative prompt GLIGEN without a box."""
    (positive,) = nodes.GLIGENTextBoxApply().append(
        graph.positive, made.clip, made.gligen, "a red hat", 32, 24, 8, 16
    )
    return replace(graph, positive=positive)


def left(scale: int = 8) -> torch.Tensor:
    """MASK of the left five eighths, `scale` pixels for each of the latent."""
    mask = torch.zeros(1, *(scale * side for side in SIZE))
    mask[..., : 5 * scale] = 1
    return mask


def inpainted(graph: Graph, made: Made) -> Graph:
    """Each prompt has a picture and a mask of its own."""
    encode = nodes.InpaintModelConditioning().encode
    first, second = style(61, size=64), style(62, size=64)
    positive, _, _ = encode(graph.positive, [], first, made.vae, left())
    _, negative, _ = encode([], graph.negative, second, made.vae, 1 - left())
    return Graph(graph.model, positive, negative)


def with_properties(graph: Graph, **properties) -> Graph:
    set_properties = hook_nodes.PairConditioningSetProperties().set_properties
    prompts = set_properties(graph.positive, graph.negative, 1.0, "default", **properties)
    return Graph(graph.model, *prompts)


def hooked(graph: Graph, made: Made) -> Graph:
    return with_properties(graph, hooks=made.hooks())


def others(graph: Graph) -> Graph:
    """Prompts of nobody for the same MODEL."""
    return replace(graph, positive=prompt(21), negative=prompt(22))


def with_defaults(graph: Graph, made: Made) -> Graph:
    """The prompts on the left; other ones, with another model, draw the rest."""
    here, rest = with_properties(graph, mask=left()), others(graph)
    prompts = hook_nodes.PairConditioningSetDefaultAndCombine().set_default_and_combine(
        here.positive, here.negative, rest.positive, rest.negative, hooks=made.hooks()
    )
    return Graph(graph.model, *prompts)


NODES = {
    "GLIGEN": with_box,
    "inpainting model": inpainted,
    "model as LoRA": hooked,
    "default prompts": with_defaults,
}
# The two others refuse a MODEL of nine channels.
TRIED = [
    (name, system)
    for name in NODES
    for system in SYSTEMS
    if name != "inpainting model" or system in (FLASHFACE, STUDIO)
]
every_node = pytest.mark.parametrize(("name", "system"), TRIED)
every_system = pytest.mark.parametrize("system", SYSTEMS)


def model_of(bench: Bench, name: str, made: Made):
    return made.inpainting if name == "inpainting model" else bench.model


@pytest.mark.parametrize("name", NODES)
def test_without_a_face_the_node_does_something(bench, made, name):
    graph = bench.plain(model_of(bench, name, made))
    assert relative_error(step(NODES[name](graph, made)), step(graph)) > 1e-2


@every_node
def test_beside_a_face_that_draws_nothing_the_node_draws_what_it_draws_alone(
    bench, made, name, system
):
    """Over two steps. FaceStudio knows no strength: there it is one person, once without a place
    and once in both halves."""
    model, change = model_of(bench, name, made), NODES[name]
    if system == STUDIO:
        graph = bench.graph(system, *in_halves(1, 1), model=model)
        alone = bench.graph(system, person(1), model=model)
    else:
        people = (person(1, 2),) if system == FLASHFACE else in_halves()
        guidance = replace(GUIDANCE, feature_strength=FAINT, early_strength=FAINT)
        graph = bench.graph(system, *people, model=model, guidance=guidance, strength=FAINT)
        alone = bench.plain(model)
    got, expected = (change(one, made).sample(size=SIZE) for one in (graph, alone))
    assert relative_error(got, expected) <= EQUAL


@pytest.mark.parametrize(("name", "system"), [t for t in TRIED if t[0] != "default prompts"])
def test_the_face_is_added_to_what_the_node_draws(bench, made, name, system):
    """From runs in which every row has the same strength, or of one prompt at a time. Default
    prompts have a test of their own."""
    model, change = model_of(bench, name, made), NODES[name]
    bare, x = change(bench.plain(model), made), noisy(model, noise(7, 1, *SIZE), LATE)
    graph = change(bench.graph(system, *in_halves(), model=model, guidance=GUIDANCE), made)
    if system in (FLASHFACE, OWN_ATTENTION):
        net = bench.own_net if system == OWN_ATTENTION else bench.net
        features = net.encode(join_people(in_halves()), bench.vae, NEGATIVE)
        expected = face_step(bare, classic, features, GUIDANCE, x, LATE)
    else:
        y = guided(basic(graph.model, graph.positive), x, LATE)
        model = graph.model if system == STUDIO else model
        u = guided(classic(model, graph.positive, graph.negative, 0.0), x, LATE)
        expected = u + CFG * (y - u)
    got = step(graph)
    assert relative_error(got, expected) <= EQUAL
    assert relative_error(got, step(bare)) > 1e-3


@every_system
@pytest.mark.parametrize("is_hooked", (False, True))
def test_default_prompts_draw_the_rest_as_they_draw_the_whole_picture(
    bench, made, system, is_hooked
):
    graph = bench.graph(system, *in_halves(), guidance=GUIDANCE)
    positive = with_properties(graph, mask=left()).positive
    hooks = made.hooks() if is_hooked else None
    combine = hook_nodes.ConditioningSetDefaultAndCombine().set_default_and_combine
    (positive,) = combine(positive, others(graph).positive, hooks)
    got = step(replace(graph, positive=positive))
    rest = others(graph)
    rest = hooked(rest, made) if is_hooked else rest
    rest = replace(rest, negative=graph.negative)
    expected = torch.where(left(1) > 0, step(graph), step(rest))
    assert relative_error(got, expected) <= EQUAL


@every_system
def test_hooks_follow_their_keyframes_and_are_off_while_photos_are_looked_at(bench, made, system):
    """A run of three steps, and the same as a run for each, with hooks that have no keyframes."""
    graph = bench.graph(system, *in_halves())
    model, create = graph.model, hook_nodes.CreateHookKeyframe().create_hook_keyframe
    (frames,) = create(0.6, 0.4, *create(0.2, 0.0))
    (hooks,) = hook_nodes.SetHookKeyframes().set_hook_keyframes(made.hooks(1.0), frames)
    prompts = with_properties(graph, hooks=hooks)
    (sigmas,) = BasicScheduler.execute(model, "simple", 3, 1.0).args
    guider, start = classic(model, prompts.positive, prompts.negative), noise(9, 1, *SIZE)
    sampler = comfy.samplers.sampler_object("euler")
    drawn = guider.sample(start, torch.zeros_like(start), sampler, sigmas)

    def predict(x, t):
        prompts = with_properties(graph, hooks=made.hooks(0.2 if t > 600 else 0.6))
        return guided(classic(model, prompts.positive, prompts.negative), x, t)

    x = euler(model, predict, start * (1 + sigmas[0] ** 2) ** 0.5, sigmas)
    assert relative_error(drawn, model.model.process_latent_out(x)) <= EQUAL


@every_system
def test_every_step_of_a_growing_picture_is_that_of_a_picture_of_its_size(bench, system):
    model, steps = bench.model.clone(), []

    def watch(executor, x, *args, **kwargs):
        result = executor(x, *args, **kwargs)
        steps.append((x.clone(), result.clone()))
        return result

    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "test_steps", looks_on(watch))
    graph, plain = bench.graph(system, *in_halves(), model=model), bench.plain()
    guider = classic(graph.model, graph.positive, graph.negative)
    bare = classic(plain.model, plain.positive, plain.negative)
    (sigmas,) = BasicScheduler.execute(model, "simple", 3, 1.0).args
    (sampler,) = SamplerLCMUpscale.execute(2.0, 2, "bislerp").args
    start = noise(9, 1, 8, 12)
    guider.sample(start, torch.zeros_like(start), sampler, sigmas)
    assert [tuple(x.shape[2:]) for x, _ in steps] == [(8, 12), (12, 18), (16, 24)]
    for (x, got), t in zip(list(steps), (999, 666, 333), strict=True):
        assert relative_error(got, guided(guider, x, t)) <= EQUAL
        assert relative_error(got, guided(bare, x, t)) > 1e-4
