"""Nodes and packs that tell the rows of a UNet call from each other find those they know.

With a face so weak that it draws nothing, the picture is that of the other node alone: what the
face adds is the difference of two branches, and a node that lands on one of them alone is in it.
"""

import comfy.sd
import pytest
from flashface_pack.flashface_core.errors import FlashFaceError
from support.attention_packs import PACKS
from support.core_calls import core_version
from support.core_nodes import TRIED, Core, bypass_lora, classes, patch, reason
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.systems import (
    EARLY,
    FLASHFACE,
    FUSION,
    LATE,
    OWN_ATTENTION,
    STUDIO,
    SYSTEMS,
    Graph,
    in_halves,
)

WEAK = 1e-5
WEAK_FUSION = 1e-6  # its random projections are loud
GUIDANCE = Guidance(feature_strength=WEAK, early_strength=WEAK, guidance_rescale=0.0)
SHARE = 1e-3  # of the other node's own effect
ROUNDING = 2e-5  # of float32 in a batch of another size, times both guidances
TESTED_CORE = (0, 33, 0)
PEOPLE = (person(1, 2),)
ANY_NODE = Core(side=16)
MORE_ROWS = ("attention couple", "negative attention")

every_system = pytest.mark.parametrize("system", SYSTEMS)


def weak(bench, system: str, model=None) -> Graph:
    """People of whom nothing is seen, with all that belongs to them.

    FaceStudio: two people in their halves, who are one.
    """
    people = in_halves(1, 1) if system == STUDIO else PEOPLE
    return bench.graph(system, *people, model=model, guidance=GUIDANCE, strength=WEAK_FUSION)


def without(bench, system: str) -> Graph:
    """The same picture without what belongs to them."""
    if system == STUDIO:
        return bench.graph(STUDIO, person(1))
    return bench.plain()


def check(bench, system: str, node, name: str, core: Core = ANY_NODE) -> None:
    """The picture of `node` beside the weak face is its picture without, in both orders.

    The node is made anew for every picture: some keep things in themselves. name: of the node.
    """

    def before():
        return weak(bench, system, node(bench.model))

    def after():
        return weak(bench, system).patched(node)

    batches = (1, 3) if core.takes_batches else (1,)
    for batch, orders in {1: [before], batches[-1]: [before, after]}.items():
        for drawn, draw in draws(batch, core).items():
            bare, own = known(bench, system, drawn, draw)
            expected = alone(bench, system, name, node, drawn, draw)
            effect = (expected - bare).norm()
            allowed = SHARE * effect + 3 * own + ROUNDING * expected.norm()
            for graph in orders:
                difference = (draw(graph()) - expected).norm()
                assert difference <= allowed, (drawn, float(difference / effect))


def draws(batch: int, core: Core) -> dict:
    """What makes a picture of a graph, by name."""
    size = (core.side, core.side)
    if core.run is None:
        return {
            (batch, size, t): lambda graph, t=t: graph.step(t, batch, size) for t in (EARLY, LATE)
        }
    options = {key: value() if callable(value) else value for key, value in core.run.items()}
    return {(batch, size, str(core.run)): lambda graph: graph.sample(batch, size, **options)}


KNOWN: dict = {}


def known(bench, system: str, drawn: tuple, draw) -> tuple:
    """The picture without any other node, and how much the weak face changes of it."""
    if (system, drawn) not in KNOWN:
        bare = draw(without(bench, system))
        own = (draw(weak(bench, system)) - bare).norm()
        assert own <= 1e-4 * bare.norm()  # it draws nothing
        KNOWN[system, drawn] = bare, own
    return KNOWN[system, drawn]


def alone(bench, system: str, name: str, node, drawn: tuple, draw):
    """The node's picture without the face: the same for all systems but FaceStudio."""
    key = (system == STUDIO, name, drawn)
    if key not in KNOWN:
        KNOWN[key] = draw(without(bench, system).patched(node))
    return KNOWN[key]


def test_every_node_of_core_that_patches_a_model_is_tried_or_has_a_reason():
    unknown = [name for name in classes() if name not in TRIED and not reason(name)]
    if core_version() > TESTED_CORE and unknown:
        pytest.skip(f"newer than {TESTED_CORE}, has {', '.join(unknown)}")
    assert unknown == []


@pytest.mark.parametrize("name", TRIED)
@every_system
def test_a_node_of_core_draws_what_it_draws_alone(bench, system, name):
    if name not in classes():
        pytest.skip("not in this version of core")
    if (system, name) == (STUDIO, "ModelMergeSimple"):
        pytest.skip("what is merged after Apply is merged into its tensors, before it is not")
    check(bench, system, lambda model: patch(name, model), name, TRIED[name])


@pytest.mark.parametrize("name", TRIED)
def test_every_node_of_core_that_is_tried_draws_something(bench, name):
    if name not in classes():
        pytest.skip("not in this version of core")
    graph, core = bench.plain(), TRIED[name]
    changed = graph.patched(lambda model: patch(name, model))
    batch = 3 if core.takes_batches else 1
    effects = [relative_error(draw(changed), draw(graph)) for draw in draws(batch, core).values()]
    assert max(effects) > 1e-3


@pytest.mark.parametrize("is_first", [True, False], ids=["Apply before", "Apply after"])
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION])
def test_steps_that_easycache_skips_as_the_face_comes_in_are_drawn_from_the_prompt(
    bench, system, is_first
):
    """It has no difference yet of the branch that launch brings, and hands on what came in."""
    launch = Guidance(WEAK, early_strength=WEAK, launch_timestep=300, guidance_rescale=0.0)

    def easy(model):
        return patch("EasyCache", model)

    if is_first:
        graph = bench.graph(system, *PEOPLE, guidance=launch).patched(easy)
    else:
        graph = bench.graph(system, *PEOPLE, model=easy(bench.model), guidance=launch)
    expected = bench.plain(easy(bench.model)).sample(steps=8)
    assert relative_error(graph.sample(steps=8), expected) <= 1e-3


@every_system
def test_a_lora_beside_the_weights_draws_what_it_draws_alone(bench, system):
    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("not in this version of core")
    check(bench, system, bypass_lora, "LoRA beside the weights")


@pytest.mark.parametrize("name", PACKS)
@every_system
def test_a_pack_that_finds_its_rows_by_number_draws_what_it_draws_alone(bench, system, name):
    if name in MORE_ROWS and system in (FUSION, STUDIO):
        pytest.skip("refused in a sentence")
    met = []

    def node(model):
        model, seen = PACKS[name](model)
        met.append(seen)
        return model

    check(bench, system, node, name)
    for seen in met:
        if seen.calls:
            seen.check()
    assert any(seen.calls for seen in met)


@pytest.mark.parametrize("name", MORE_ROWS)
@pytest.mark.parametrize("system", [FUSION, STUDIO])
def test_more_rows_in_cross_attention_are_refused_where_the_face_is_in_it(bench, system, name):
    people = in_halves() if system == STUDIO else PEOPLE
    graph = bench.graph(system, *people, model=PACKS[name](bench.model)[0])
    with pytest.raises(FlashFaceError, match="attention couple.* rows in cross-attention from"):
        graph.step(LATE)


@pytest.mark.parametrize("guider_cfg", [1.0, 7.5])
@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION])
def test_a_face_of_full_strength_beside_a_pack_is_drawn(bench, system, name, guider_cfg):
    """No pack meets a number twice, and both the face and the pack are in the picture."""
    model, seen = PACKS[name](bench.model)
    both = bench.graph(system, *PEOPLE, model=model)
    face, pack = bench.graph(system, *PEOPLE), bench.plain(model)
    for timestep in (EARLY, LATE):
        seen.calls.clear()
        drawn = both.step(timestep, 2, cfg=guider_cfg)
        seen.check()
        assert drawn.isfinite().all()
        for other in (face, pack):
            if other is face and guider_cfg == 1.0 and name == "contrasted attention":
                continue  # needs the negative rows
            assert relative_error(drawn, other.step(timestep, 2, cfg=guider_cfg)) > 1e-3
