"""torch.compile as core's node does it: the same pictures, whatever was compiled before.

Core drops every guard on transformer_options, so what a compiled network reads there as a Python
value is that of the first picture for ever.
"""

import shutil
from functools import partial

import pytest
import torch
import torch._inductor.config
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from safetensors.torch import load_file, save_file
from support.compiled import compile_node, pytorch_attention, without_guards_on_options
from support.control import seeded_like
from support.face_fusion import write_file
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.models import community_model
from support.systems import (
    FLASHFACE,
    FUSION,
    OWN_ATTENTION,
    STUDIO,
    SYSTEMS,
    Bench,
    Graph,
    half,
    in_halves,
)

EQUAL = 1e-5
SEEN = 1e-3  # what a value changes in a picture at least, when it is a value at all


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A UNet of one size: Dynamo traces every block."""
    with pytorch_attention():
        yield Bench(tmp_path_factory.mktemp("compiled"), multipliers=(1,))


@pytest.fixture
def processor_at_its_word():
    """Inductor compiles no program for everything that the processor may be able to do."""
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}):
        yield


def photos(*weights: float, seeds=(1, 2)):
    return person(*seeds, weights=weights or (1.0, 1.0))


# What one picture has other than the one before: people, and settings of `Bench.graph`.
OTHER_PEOPLE = {
    "other photos": (photos(seeds=(3, 4)),),
    "two people anywhere": (person(1), person(3)),
    "two people in halves": in_halves(),
    "the two in each other's place": in_halves(2, 1),
}
OTHER_PLACES = {
    "inside a half": (person(1, 2, place=half(True)),),
    "inside the other half": (person(1, 2, place=half(False)),),
    "a weaker place": (person(1, 2, place=half(True, strength=0.3)),),
    "other photo weights": (photos(0.2, 1.8),),
}
ONE = (photos(),)
# Without face guidance a step in the window and one outside of it have equally many rows.
WINDOWS = {"only late steps": dict(start=0.3), "only early steps": dict(end=0.3)}


def variants(system: str) -> dict[str, tuple[tuple, dict]]:
    """By name: people, and settings."""
    found = {name: (people, {}) for name, people in OTHER_PEOPLE.items()}
    if system == STUDIO:
        return found
    found |= {name: (people, {}) for name, people in OTHER_PLACES.items()}
    if system == FUSION:
        windows = {name: (ONE, window) for name, window in WINDOWS.items()}
        return found | windows | {"another strength": (ONE, dict(strength=0.4))}
    alike = dict(face_guidance=0.0, guidance_rescale=0.0)
    settings = {
        "a place as a hint": None,
        "other strengths": Guidance(0.4, early_strength=0.3),
        "other levels": Guidance(coarse=0.2, medium=0.5, fine=1.5),
        "no face guidance": Guidance(**alike),
        "only late steps": Guidance(**alike, start_percent=0.3),
        "only early steps": Guidance(**alike, end_percent=0.3),
        "nearly all steps": Guidance(start_percent=0.02, end_percent=0.9),
    }
    found |= {name: (ONE, dict(guidance=g)) for name, g in settings.items() if g is not None}
    if system == FLASHFACE:
        found["a place as a hint"] = ((person(1, 2, place=half(True, inside=False)),), {})
    return found


def errors(pairs: dict[str, tuple[Graph, Graph]], draw=Graph.sample) -> dict[str, float]:
    """By name, of (compiled, as it is): relative errors that are too large."""
    found = {name: relative_error(*map(draw, pair)) for name, pair in pairs.items()}
    return {name: round(error, 6) for name, error in found.items() if not error <= EQUAL}


def graphs(bench: Bench, system: str, is_first: bool, cases: dict) -> dict:
    """By name, compiled and as it is. is_first: Apply before the compile node."""
    compiled = compile_node(bench.model)
    pairs = {}
    for name, (people, settings) in cases.items():
        plain = bench.graph(system, *people, **settings)
        if is_first:
            pairs[name] = plain.patched(compile_node), plain
        else:
            pairs[name] = bench.graph(system, *people, model=compiled, **settings), plain
    return pairs


ORDERS = {True: "Apply before", False: "Apply after"}
both_orders = pytest.mark.parametrize("is_first", ORDERS, ids=ORDERS.values())
every_system = pytest.mark.parametrize("system", SYSTEMS)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_case_here_draws_a_picture_of_its_own(bench, system):
    cases = {"one": (ONE, {}), **variants(system)}
    drawn = {
        name: bench.graph(system, *people, **settings).sample()
        for name, (people, settings) in cases.items()
    }
    drawn["nobody"] = bench.plain().sample()
    names = sorted(drawn)
    alike = {
        (one, other)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        if relative_error(drawn[one], drawn[other]) < SEEN
    }
    assert alike == set()


@both_orders
@every_system
def test_what_comes_after_another_picture_is_drawn_with_its_own_values(bench, system, is_first):
    """Nobody's picture too: after the others, or before them by the very same compiled network."""
    people = {"one": (ONE, {}), **variants(system)}
    if is_first:
        pairs = graphs(bench, system, is_first, people)
        pairs["nobody"] = bench.plain(compile_node(bench.model)), bench.plain()
        assert errors(pairs, partial(Graph.sample, batch=3)) == {}
    else:
        pairs = graphs(bench, system, is_first, {"nobody": ((), {}), **people})
        assert errors(pairs) == {}


@both_orders
@every_system
def test_another_model_of_the_same_shape_has_weights_of_its_own(bench, system, is_first):
    """Core's compiled code fits every network of one shape."""
    community = community_model(bench.model, 31)
    pairs = {}
    for name, model in (("community", community), ("own", bench.model)):
        plain = bench.graph(system, *ONE, model=model)
        if is_first:
            pairs[name] = plain.patched(compile_node), plain
        else:
            pairs[name] = bench.graph(system, *ONE, model=compile_node(model)), plain
    order = sorted(pairs, reverse=not is_first)
    assert errors({name: pairs[name] for name in order}) == {}


@both_orders
def test_two_checkpoints_of_one_shape_have_reference_attention_of_their_own(
    bench, is_first, tmp_path
):
    state = load_file(bench.checkpoint)
    for key, value in seeded_like(state, 17).items():
        state[key] = (state[key].float() + 0.2 * value).to(state[key].dtype)
    metadata = {"num_heads": "2", "reference_size": "64", "picture_size": "128"}
    save_file(state, tmp_path / "other.safetensors", metadata)
    other, net = load_flashface(tmp_path / "other.safetensors")
    pairs = {}
    for name, model, reference_net in (("one", bench.model, bench.net), ("other", other, net)):
        using = bench.using(net=reference_net)
        plain = using.graph(FLASHFACE, *ONE, model=model)
        if is_first:
            pairs[name] = plain.patched(compile_node), plain
        else:
            pairs[name] = using.graph(FLASHFACE, *ONE, model=compile_node(model)), plain
        bare = Graph(model, plain.positive, plain.negative)
        pairs[f"{name}, bare"] = bare.patched(compile_node), bare
    assert errors(pairs) == {}


@both_orders
def test_two_face_fusion_files_have_projections_of_their_own(bench, is_first, tmp_path):
    other = load_face_fusion(write_file(tmp_path / "other.safetensors", bench.model, seed=5))
    pairs = {}
    for name, using in (("one", bench), ("other", bench.using(fusion=other))):
        pairs[name] = graphs(using, FUSION, is_first, {"": (ONE, {})})[""]
    assert errors(pairs) == {}


@both_orders
def test_all_systems_on_one_model_are_compiled_together(bench, is_first):
    def everybody(model, weights):
        people = (person(1, 2, weights=weights),)
        graph = bench.graph(STUDIO, *in_halves(), model=model)
        graph = bench.graph(FUSION, *people, model=graph.model).model, graph
        return Graph(
            bench.graph(FLASHFACE, *people, model=graph[0]).model,
            graph[1].positive,
            graph[1].negative,
        )

    compiled = compile_node(bench.model)
    pairs = {}
    for weights in ((1.0, 1.0), (0.2, 1.8)):
        plain = everybody(bench.model, weights)
        later = plain.patched(compile_node) if is_first else everybody(compiled, weights)
        pairs[str(weights)] = later, plain
    assert errors(pairs) == {}


@pytest.mark.parametrize("name", ["forward", "_forward", "output_blocks.1.1.forward"])
@every_system
def test_a_forward_that_another_pack_has_compiled(bench, system, name):
    """In core's place, not by core's wrapper; packs drop guards as core does. Where our marks are
    read, nobody is drawn first; a pack that compiles what reads no other arguments has to keep its
    guards."""
    path, options = f"diffusion_model.{name}", {"guard_filter_fn": without_guards_on_options}
    forward = bench.model.get_model_object(path)
    compiled = torch.compile(forward, backend="eager", options=options)

    def put(model):
        model = model.clone()
        model.add_object_patch(path, compiled)
        return model

    bare = {"nobody": bench.plain()} if name == "forward" else {}
    plain = bare | {"people": bench.graph(system, *in_halves())}
    pairs = {name: (graph.patched(put), graph) for name, graph in plain.items()}
    assert errors(pairs) == {}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no compiler")
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION, FUSION])
def test_inductor_draws_the_same_within_its_own_rounding(bench, system, processor_at_its_word):
    model = compile_node(bench.model, "inductor")
    plain = bench.plain()
    rounding = relative_error(bench.plain(model).sample(), plain.sample())
    for weights in ((1.0, 1.0), (0.2, 1.8)):
        people = (person(1, 2, weights=weights),)
        expected = bench.graph(system, *people).sample()
        got = bench.graph(system, *people, model=model).sample()
        # Face guidance multiplies what two branches differ by.
        assert relative_error(got, expected) <= max(20 * rounding, EQUAL)
