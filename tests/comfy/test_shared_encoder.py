"""Below launch the UNet's encoder runs once for y and y_ref, and nobody sees it in the picture."""

import comfy.model_management
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter import shared_encoder
from support.control import random_controlnet
from support.harness import Place, WrappersMP, looks_on, relative_error
from support.sampling import prompt
from support.systems import (
    EARLY,
    FLASHFACE,
    FUSION,
    LATE,
    OWN_ATTENTION,
    STUDIO,
    Bench,
    Graph,
    in_halves,
    person,
)

import nodes

EQUAL = 1e-5
PLACE = Place((0.3, 0.1, 0.4, 0.4), strength=0.8)


def with_control(graph: Graph) -> Graph:
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    prompts = nodes.ControlNetApplyAdvanced().apply_controlnet(
        graph.positive, graph.negative, random_controlnet(graph.model), hint, 1.0, 0.0, 1.0
    )
    return Graph(graph.model, *prompts)


def with_areas(graph: Graph) -> Graph:
    """Two prompts, one of them in a part of the picture, and a long negative one."""
    area = nodes.ConditioningSetArea().append(prompt(21), 64, 96, 32, 0, 1.0)[0]
    return Graph(graph.model, graph.positive + area, prompt(5, tokens=154))


def plain(graph: Graph) -> Graph:
    return graph


CASES = {"plain": plain, "ControlNet": with_control, "areas": with_areas}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Core's ControlNet has heads of 64 channels."""
    return Bench(tmp_path_factory.mktemp("systems"), width=64)


@pytest.fixture
def apart(monkeypatch):
    """Lets every row through the encoder."""

    def switch() -> None:
        monkeypatch.setattr(shared_encoder, "shared_rows", lambda *_: None)

    return switch


class Counted:
    """How many rows come to a module, call by call."""

    def __init__(self, module) -> None:
        self.rows: list[int] = []
        self._hook = module.register_forward_pre_hook(
            lambda _, args: self.rows.append(len(args[0]))
        )

    def __enter__(self) -> list[int]:
        return self.rows

    def __exit__(self, *_) -> None:
        self._hook.remove()


def rows_of(graph: Graph, timestep: int, batch: int = 1) -> tuple[int, int]:
    """Rows of the second block, and of the last, in the last call of a step."""
    unet = graph.model.model.diffusion_model
    with Counted(unet.input_blocks[1][0]) as first, Counted(unet.out) as last:
        graph.step(timestep, batch)
    return first[-1], last[-1]


@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_that_of_all_rows_through_the_encoder(bench, apart, system, batch, case):
    people = in_halves() if case == "areas" else (person(1, 2, place=PLACE),)
    graph = CASES[case](bench.graph(system, *people))
    shared = graph.step(LATE, batch)
    with Counted(graph.model.model.diffusion_model.input_blocks[1][0]) as rows:
        graph.step(LATE, batch)
    apart()
    assert relative_error(shared, graph.step(LATE, batch)) < EQUAL
    with Counted(graph.model.model.diffusion_model.input_blocks[1][0]) as all_rows:
        graph.step(LATE, batch)
    assert sum(rows) < sum(all_rows)


@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
def test_two_rows_of_three_go_through_the_encoder_below_launch(bench, system):
    graph = bench.graph(system, person(1))
    assert rows_of(graph, LATE) == (2, 3)
    assert rows_of(graph, LATE, batch=3) == (6, 9)
    assert rows_of(graph, EARLY) == (2, 2)


def test_every_row_goes_through_the_encoder_where_y_comes_in_another_call(bench, monkeypatch):
    """Memory for one row at a time: core makes a call of each."""
    graph = bench.graph(FLASHFACE, person(1))
    together = graph.step(LATE)
    free_memory = comfy.model_management.get_free_memory

    def none_for_a_batch(device=None, torch_free_too=False):  # attention asks for both numbers
        return free_memory(device, True) if torch_free_too else 0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", none_for_a_batch)
    assert rows_of(graph, LATE) == (1, 1)
    assert relative_error(graph.step(LATE), together) < EQUAL


def test_every_row_goes_through_the_encoder_beside_patches_that_come_later(bench):
    """Inside of the call, long after it was decided to make it one."""

    def patch_rows(n, context, value, extra_options):
        return n, context, value

    patch_rows.__module__ = "some_pack"

    def late(executor, model, conds, x_in, timestep, model_options, *args, **kwargs):
        options = model_options["transformer_options"]
        patches = {**options["patches"], "attn2_patch": [patch_rows]}
        model_options = {**model_options, "transformer_options": {**options, "patches": patches}}
        return executor(model, conds, x_in, timestep, model_options, *args, **kwargs)

    graph = bench.graph(FLASHFACE, person(1))
    model = graph.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "late", looks_on(late))
    assert rows_of(graph, LATE) == (2, 3)
    assert rows_of(Graph(model, graph.positive, graph.negative), LATE) == (3, 3)


@pytest.mark.parametrize("other", (FUSION, STUDIO))
def test_every_row_goes_through_the_encoder_beside_another_system(bench, other):
    """Which adds to cross-attention, by the rows of the call."""
    people = (person(1, 2),)
    graph = bench.graph(other, *people)
    both = bench.graph(FLASHFACE, *people, model=graph.model)
    assert rows_of(Graph(both.model, graph.positive, graph.negative), LATE) == (3, 3)


@pytest.mark.parametrize(
    ("twins", "kept", "source"),
    (
        ([1, 0, -1], [0, 1], [0, 1, 0]),
        ([-1, 0, 1], [1, 2], [1, 0, 1]),
        ([-1, -1, 0, 0, 1, 1], [2, 3, 4, 5], [2, 3, 0, 1, 2, 3]),
        ([-2, -1, 2, 1], [2, 3], [0, 1, 0, 1]),
        ([-1, 0, 2, -2], [0, 1, 2], [0, 1, 2, 2]),
    ),
)
def test_a_reference_row_is_that_of_its_own_y(twins, kept, source):
    shared = shared_encoder.shared_rows(twins, torch.device("cpu"))
    assert shared is not None
    assert shared.kept.tolist() == kept
    assert shared.source.tolist() == source


def test_rows_without_a_twin_in_the_call_are_not_shared():
    for twins in ([0, -1], [1, 0], [1, -1, -1], [0, 0]):
        assert shared_encoder.shared_rows(twins, torch.device("cpu")) is None
