"""A piece of the picture that a node has computed by itself, in the middle of a step.

Where the piece lies nobody knows. So it is drawn without places, and without people who are bound
to a region, of whom it may be another's; the log says so, once.
"""

from collections.abc import Callable

import comfy.samplers
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.place import Place
from support.core_calls import context_windows
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.sampling import classic, guided, noise, noisy
from support.systems import (
    EARLY,
    FLASHFACE,
    FUSION,
    LATE,
    OWN_ATTENTION,
    STUDIO,
    SYSTEMS,
    Graph,
    half,
    in_halves,
)

EQUAL = 5e-5
SEEN = 1e-3
# All rows alike: a call within a step sees what the step's own rows see, at both timesteps.
ALIKE = Guidance(feature_strength=1.2, early_strength=1.2, face_guidance=0.0, guidance_rescale=0.0)
PIECES = {
    "top left": (slice(0, 8), slice(0, 8)),
    "bottom right": (slice(8, 16), slice(8, 16)),
    "right half": (slice(0, 16), slice(8, 16)),
    "larger": None,  # the picture twice as large
}
PEOPLE = {
    "one person": (person(1, 2),),
    "a place": (person(1, 2, place=Place((0.25, 0.25, 0.25, 0.25))),),
    "inside a half": (person(1, 2, place=half(True)),),
    "two in halves": in_halves(),
    "one in a half, one anywhere": (person(1, place=half(True)), person(2)),
}
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_people = pytest.mark.parametrize("people", PEOPLE)
every_step = pytest.mark.parametrize("timestep", [EARLY, LATE], ids=["above", "below launch"])


def cut(x: torch.Tensor, piece: str) -> torch.Tensor:
    where = PIECES[piece]
    if where is None:
        return torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest-exact")
    return x[(..., *where)]


def looking_at(model, piece: str, found: list, cond: str = "cond"):
    """MODEL with a node that has a piece of the picture computed with the positive prompt, as
    sliding-window guidance does."""

    def look(args):
        found[:] = comfy.samplers.calc_cond_batch(
            args["model"],
            [args[cond]],
            cut(args["input"], piece),
            args["sigma"],
            args["model_options"],
        )
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(look)
    return model


def pieces(graph: Graph, piece: str, timestep: int, batch: int, **options):
    """What the node sees of the piece at one step, and what is drawn, or the error's sentence."""
    found: list[torch.Tensor] = []
    x = noisy(graph.model, noise(7, batch), timestep)
    model = looking_at(graph.model, piece, found, **options)
    try:
        drawn = guided(classic(model, graph.positive, graph.negative), x, timestep)
    except FlashFaceError as error:
        return str(error), None
    return found[0], drawn


KNOWN: dict = {}


def once(name: tuple, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What does not depend on all that a test is parametrised with is drawn once."""
    if name not in KNOWN:
        KNOWN[name] = draw()
    return KNOWN[name]


def alone(graph: Graph, piece: str, timestep: int, batch: int) -> torch.Tensor:
    """The positive prompt's prediction of the piece as a picture of its own."""
    x = cut(noisy(graph.model, noise(7, batch), timestep), piece)
    return guided(classic(graph.model, graph.positive, graph.negative, 1.0), x, timestep)


def seen_without_places(system: str, people: tuple) -> tuple:
    """Of those bound to a region nobody; with FaceStudio everybody."""
    return tuple(
        one.with_place(None)
        for one in people
        if system == STUDIO or one.place is None or not one.place.inside_region
    )


def warnings(caplog) -> list[str]:
    found = [
        record.getMessage()
        for record in caplog.records
        if record.name == "flashface" and record.levelname == "WARNING"
    ]
    caplog.clear()
    return found


@pytest.mark.parametrize("piece", PIECES)
@every_step
@every_people
@every_system
def test_a_piece_has_nobodys_region_and_no_place(bench, system, people, timestep, piece, caplog):
    group, batch = PEOPLE[people], 1 if timestep == EARLY else 3
    if system == STUDIO and people in ("a place", "inside a half"):
        pytest.skip("a place of one person alone means nothing to FaceStudio")
    graph = bench.graph(system, *group, guidance=ALIKE)
    warnings(caplog)
    got, drawn = pieces(graph, piece, timestep, batch)
    said = warnings(caplog)
    is_told = people not in ("one person", "a place") or (people, system) == ("a place", FLASHFACE)
    if isinstance(got, str):
        assert is_told, got
        return
    assert drawn is not None
    seen = seen_without_places(system, group)
    photos = tuple(tuple(photo.content for photo in one.references) for one in seen)

    def without_places():
        return alone(bench.graph(system, *seen, guidance=ALIKE), piece, timestep, batch)

    expected = once((system, photos, timestep, piece), without_places)
    assert relative_error(got, expected) <= EQUAL
    if is_told:
        assert len(said) == 1, said
    # The step itself goes on as if nobody had looked.
    unwatched = once((system, people, timestep), lambda: graph.step(timestep, batch))
    assert torch.equal(drawn, unwatched)


@every_system
def test_a_piece_in_every_step_is_told_once_a_run(bench, system, caplog):
    graph = bench.graph(system, *in_halves(), guidance=ALIKE)
    watching = graph.patched(lambda model: looking_at(model, "top left", []))
    for _ in range(2):
        warnings(caplog)
        watching.sample(steps=3)
        assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("piece", ["top left", "bottom right"])
@every_system
def test_the_photos_of_somebody_bound_to_a_region_are_not_in_a_piece(bench, system, piece):
    """FaceStudio's people are all there, as core's joint attention has it."""
    if system == STUDIO:
        pytest.skip("everybody is seen everywhere")
    one, other = (
        pieces(bench.graph(system, *in_halves(1, right), guidance=ALIKE), piece, LATE, 1)[0]
        for right in (2, 3)
    )
    if not isinstance(one, str):
        assert torch.equal(one, other)


@every_step
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION, FUSION])
def test_a_piece_keeps_the_strengths_of_its_rows(bench, system, timestep):
    """People of the whole image: the positive prompt's rows see them as those of the step do."""
    people, settings = (person(1, 2),), dict(guidance=Guidance(), strength=0.7)
    got, _ = pieces(bench.graph(system, *people, **settings), "top left", timestep, 1)
    strength = 0.0 if timestep == LATE else Guidance().early_strength
    alike = Guidance(strength, face_guidance=0.0, early_strength=strength, guidance_rescale=0.0)
    settings["guidance"] = alike
    # Below launch the guider's own rows are without the face.
    expected = bench.graph(system, *people, **settings)
    assert relative_error(got, alone(expected, "top left", timestep, 1)) <= EQUAL


@every_system
def test_the_negative_prompt_of_a_piece_is_as_it_is_in_the_step(bench, system):
    graph = bench.graph(system, *in_halves(), guidance=ALIKE)
    got, _ = pieces(graph, "top left", LATE, 1, cond="uncond")
    if isinstance(got, str):
        return
    group = seen_without_places(system, in_halves())
    if system == FUSION:  # its photos are for the positive prompt alone
        group = ()
    plain = bench.graph(system, *group, guidance=ALIKE)
    turned = Graph(plain.model, plain.negative, plain.negative)
    assert relative_error(got, alone(turned, "top left", LATE, 1)) <= EQUAL


@every_system
def test_an_area_of_a_prompt_in_a_piece_is_nobodys_region_either(bench, system):
    """Core would cut it out of the whole picture's regions at the piece's coordinates, which are
    another person's there."""

    def in_area(*people):
        graph = bench.graph(system, *people, guidance=ALIKE)
        ((embedding, options),) = graph.positive
        options = {**options, "area": (8, 4, 0, 4), "set_area_to_bounds": False}
        graph = Graph(graph.model, [[embedding, options]], graph.negative)
        return pieces(graph, "bottom right", EARLY, 1)[0]

    both, other_left, other_right = (
        in_area(*in_halves(*pair)) for pair in ((1, 2), (3, 2), (1, 3))
    )
    if any(isinstance(one, str) for one in (both, other_left, other_right)):
        return
    for other in (other_left, other_right):
        # FaceStudio's people are all seen.
        assert torch.equal(both, other) == (system != STUDIO)


@pytest.mark.parametrize("people", ["two in halves", "one in a half, one anywhere"])
@every_system
def test_context_windows_say_where_they_lie(bench, system, people):
    """Windows beside each other, one a half: each is its own person's alone."""
    group = PEOPLE[people]
    graph = bench.graph(system, *group, guidance=ALIKE)
    windows = graph.patched(lambda model: context_windows(model, 8, 0, 3))
    drawn = windows.step(EARLY, size=(16, 16))
    x = noisy(graph.model, noise(7), EARLY)
    halves = {
        "two in halves": [(person(1),), (person(2),)],
        "one in a half, one anywhere": [(person(1), person(2)), (person(2),)],
    }[people]
    if system == STUDIO and people != "two in halves":
        halves[0] = (person(1),)
    if system == FLASHFACE:  # the squares of a half cover the whole picture
        everywhere = Place((0, 0, 1, 1))
        halves = [tuple(one.with_place(everywhere) for one in those) for those in halves]
    for part, those in zip((slice(0, 8), slice(8, 16)), halves, strict=True):
        expected = bench.graph(system, *those, guidance=ALIKE)
        own = guided(
            classic(expected.model, expected.positive, expected.negative), x[..., part], EARLY
        )
        assert relative_error(drawn[..., part], own) <= EQUAL
