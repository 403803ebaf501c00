"""Below launch the UNet's encoder runs once for y and y_ref, its start once for all prompts of one
picture, and nobody sees it in the picture."""

import itertools

import comfy.model_management
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample
from flashface_pack.flashface_core.comfy_adapter import shared_encoder
from flashface_pack.nodes.from_model import ReferenceNetFromModel
from support.control import random_controlnet
from support.harness import Place, WrappersMP, looks_on, relative_error
from support.models import reshaped_model
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


def with_control(graph: Graph, like=None) -> Graph:
    """like: a MODEL of the topology that the ControlNet has; None: of the graph's own."""
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    network = random_controlnet(like or graph.model)
    prompts = nodes.ControlNetApplyAdvanced().apply_controlnet(
        graph.positive, graph.negative, network, hint, 1.0, 0.0, 1.0
    )
    return Graph(graph.model, *prompts)


def with_areas(graph: Graph) -> Graph:
    """Two prompts, one of them in a part of the picture, and a long negative one."""
    area = nodes.ConditioningSetArea().append(prompt(21), 64, 96, 32, 0, 1.0)[0]
    return Graph(graph.model, graph.positive + area, prompt(5, tokens=154))


def with_two_texts(graph: Graph) -> Graph:
    return Graph(graph.model, graph.positive + prompt(21), graph.negative)


def plain(graph: Graph) -> Graph:
    return graph


CASES = {
    "plain": plain,
    "two texts": with_two_texts,
    "ControlNet": with_control,
    "areas": with_areas,
}
ONE_PICTURE = ("plain", "two texts")  # whose rows differ in nothing but their text


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


def rows_of(graph: Graph, timestep: int, batch: int = 1) -> tuple[int, int, int]:
    """Rows of the second block, of the third, and of the last, in the last call of a step."""
    unet = graph.model.model.diffusion_model
    start, encoder = (unet.input_blocks[i][0] for i in (1, 2))
    with Counted(start) as first, Counted(encoder) as second, Counted(unet.out) as last:
        graph.step(timestep, batch)
    return first[-1], second[-1], last[-1]


@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
@pytest.mark.parametrize("timestep", (LATE, EARLY))
@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_that_of_all_rows_through_the_encoder(
    bench, apart, system, timestep, batch, case
):
    people = in_halves() if case == "areas" else (person(1, 2, place=PLACE),)
    graph = CASES[case](bench.graph(system, *people))
    is_shared = timestep == LATE or (batch == 1 and case in ONE_PICTURE)
    with Counted(graph.model.model.diffusion_model.input_blocks[1][0]) as rows:
        shared = graph.step(timestep, batch)
    apart()
    with Counted(graph.model.model.diffusion_model.input_blocks[1][0]) as all_rows:
        assert relative_error(shared, graph.step(timestep, batch)) < EQUAL
    assert (sum(rows) < sum(all_rows)) is is_shared


@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
def test_two_rows_of_three_go_through_the_encoder_below_launch(bench, system):
    """And one of them through its start, where the batch is one picture."""
    graph = bench.graph(system, person(1))
    assert rows_of(graph, LATE) == (1, 2, 3)
    assert rows_of(graph, LATE, batch=3) == (6, 6, 9)
    assert rows_of(graph, EARLY) == (1, 2, 2)
    assert rows_of(graph, EARLY, batch=3) == (6, 6, 6)


def test_what_tells_the_pictures_of_prompts_apart_keeps_their_start_apart(bench):
    """Core gives what an inpainting model sees to each prompt, and it may be another for each."""
    graph = bench.graph(FLASHFACE, person(1))
    ((_, text),) = graph.negative
    masked = [[graph.negative[0][0], {**text, "mask": torch.ones(1, 16, 16), "strength": 0.5}]]
    assert rows_of(Graph(graph.model, graph.positive, masked), EARLY) == (1, 2, 2)
    cond = {"model_conds": {"c_crossattn": None}}
    x = torch.zeros(1, 4, 16, 16)
    assert shared_encoder.is_one_picture([[cond], [cond, cond], None], x)
    assert not shared_encoder.is_one_picture([[cond], [cond]], torch.zeros(2, 4, 16, 16))
    for other in (
        {**cond, "area": (8, 8, 0, 0)},
        {**cond, "control": object()},
        {"model_conds": {**cond["model_conds"], "c_concat": None}},
    ):
        assert not shared_encoder.is_one_picture([[cond], [other]], x)


def test_every_row_goes_through_the_encoder_where_y_comes_in_another_call(bench, monkeypatch):
    """Memory for one row at a time: core makes a call of each."""
    graph = bench.graph(FLASHFACE, person(1))
    together = graph.step(LATE)
    free_memory = comfy.model_management.get_free_memory

    def none_for_a_batch(device=None, torch_free_too=False):  # attention asks for both numbers
        return free_memory(device, True) if torch_free_too else 0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", none_for_a_batch)
    assert rows_of(graph, LATE) == (1, 1, 1)
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
    assert rows_of(graph, LATE) == (1, 2, 3)
    assert rows_of(Graph(model, graph.positive, graph.negative), LATE) == (3, 3, 3)


@pytest.mark.parametrize("other", (FUSION, STUDIO))
def test_every_row_goes_through_the_encoder_beside_another_system(bench, other):
    """Which adds to cross-attention, by the rows of the call."""
    people = (person(1, 2),)
    graph = bench.graph(other, *people)
    both = bench.graph(FLASHFACE, *people, model=graph.model)
    assert rows_of(Graph(both.model, graph.positive, graph.negative), LATE) == (3, 3, 3)


UNETS = {
    "no attention in the encoder": dict(transformer_depth=[0, 0]),
    "the first in the second level": dict(transformer_depth=[0, 1]),
    "two in a row": dict(transformer_depth=[2, 1]),
    "no middle": dict(transformer_depth_middle=-2),
}


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("has_control", (False, True))
def test_the_start_ends_where_the_unet_has_its_first_attention(bench, apart, name, has_control):
    """Without a middle block, what comes out of the encoder and what is added to it are one."""
    model = reshaped_model(bench.model, 9, **UNETS[name])
    own = bench.using(own_net=ReferenceNetFromModel.execute(model).args[0])
    graph = own.graph(OWN_ATTENTION, person(1), model=model)
    if has_control:
        graph = with_control(graph, like=bench.model)
    steps = list(itertools.product((LATE, EARLY), (7.5, 1.0)))
    drawn = [graph.step(timestep, cfg=cfg) for timestep, cfg in steps]
    apart()
    for (timestep, cfg), got in zip(steps, drawn, strict=True):
        assert relative_error(got, graph.step(timestep, cfg=cfg)) < EQUAL


def of_the_first_sample(forward):
    return lambda x, *args, **options: forward(x[:1].expand_as(x), *args, **options)


@pytest.fixture
def untouched():
    """The UNet without what a MODEL before has put there, which core leaves in it."""
    comfy.model_management.unload_all_models()


class Elsewhere(torch.nn.Sequential):
    """A layer in another's place, of a pack's class; its forward is PyTorch's."""


# What other nodes replace: where, and by what.
REPLACED = {
    "the UNet's blocks": ("diffusion_model._forward", of_the_first_sample),
    "a block": ("diffusion_model.input_blocks.1.0.forward", of_the_first_sample),
    "a layer": ("diffusion_model.input_blocks.1.0.skip_connection", Elsewhere),
}


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
def test_a_unet_in_which_something_is_replaced_sees_every_row(bench, system, name):
    where, by = REPLACED[name]

    def replaced(model):
        model = model.clone()
        model.add_object_patch(where, by(model.get_model_object(where)))
        return model

    for graph in (
        bench.graph(system, *in_halves()).patched(replaced),
        bench.graph(system, *in_halves(), model=replaced(bench.model)),
    ):
        assert [rows_of(graph, timestep)[0] for timestep in (LATE, EARLY)] == [3, 2]
    comfy.model_management.unload_all_models()  # and core puts back what was there
    graph = bench.graph(system, *in_halves())
    assert [rows_of(graph, timestep)[0] for timestep in (LATE, EARLY)] == [1, 1]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION))
def test_a_class_of_which_a_pack_replaces_forward_sees_every_row(bench, system, monkeypatch):
    """For every UNet there is, as some do when they are loaded."""
    graph, forward = bench.graph(system, *in_halves()), Downsample.forward
    rows = [rows_of(graph, timestep)[0] for timestep in (LATE, EARLY)]
    monkeypatch.setattr(Downsample, "forward", lambda *args, **options: forward(*args, **options))
    assert rows == [1, 1]
    assert [rows_of(graph, timestep)[0] for timestep in (LATE, EARLY)] == [3, 2]


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
    shared = shared_encoder.shared_rows(twins, False, torch.device("cpu"))
    assert shared is not None
    assert shared.kept.tolist() == kept
    assert shared.source.tolist() == source


@pytest.mark.parametrize(
    ("twins", "kept", "source"),
    (([0, 0], [0, 1], [0, 1]), ([1, 0, -1], [0, 1], [0, 1, 0]), ([-1, 1], [1], [0, 0])),
)
def test_rows_of_one_picture_begin_as_one(twins, kept, source):
    shared = shared_encoder.shared_rows(twins, True, torch.device("cpu"))
    assert shared is not None
    assert [numbers.tolist() for numbers in shared] == [kept[:1], kept, source]
    assert shared_encoder.shared_rows([0], True, torch.device("cpu")) is None


def test_rows_without_a_twin_in_the_call_are_not_shared():
    for twins in ([0, -1], [1, 0], [1, -1, -1], [0, 0]):
        assert shared_encoder.shared_rows(twins, False, torch.device("cpu")) is None
