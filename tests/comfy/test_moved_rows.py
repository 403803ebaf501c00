"""Packs that wrap the UNet call and handle every tensor of a row alike: repeat, turn, split, tile.

What goes with a row goes with it, or it is said; a face never lands on another row's account.
"""

from collections.abc import Callable

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.place import Place
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.row_movers import MOVERS, moved, tiles
from support.sampling import classic, guided, noise, noisy
from support.systems import EARLY, FLASHFACE, LATE, STUDIO, SYSTEMS, half, in_halves

EQUAL = 1e-4  # float32 in another batch, times what the guidances multiply it by: up to 6e-5 seen
SEEN = 1e-3
# The spread that a rescale restores is that of the whole picture, which no tile has.
NO_RESCALE = Guidance(guidance_rescale=0.0)
SIDE = 8  # of a tile, latent pixels
SPOT = Place((0.125, 0.125, 0.25, 0.25))  # a square in the tile at the top left
SPOT_IN_TILE = Place((0.25, 0.25, 0.5, 0.5))

PEOPLE = {
    "one person": (person(1, 2),),
    "a place": (person(1, 2, place=SPOT),),
    "inside a half": (person(1, 2, place=half(True)),),
    "two in halves": in_halves(),
    "one in a half, one anywhere": (person(1, place=half(True)), person(2)),
}
BATCHES = (1, 3)
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_people = pytest.mark.parametrize("people", PEOPLE)
every_step = pytest.mark.parametrize("timestep", [EARLY, LATE], ids=["above", "below launch"])


def masks(*boxes) -> torch.Tensor:
    """bool (M, 128, 128); boxes are x1, y1, x2, y2 in latent pixels of a picture of 16 x 16."""
    found = torch.zeros(len(boxes), 128, 128, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(found, boxes, strict=True):
        mask[8 * y1 : 8 * y2, 8 * x1 : 8 * x2] = True
    return found


KNOWN: dict = {}


def once(name: tuple, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    if name not in KNOWN:
        KNOWN[name] = draw()
    return KNOWN[name]


@pytest.mark.parametrize("name", MOVERS)
@every_people
@every_system
def test_rows_that_are_moved_keep_what_is_theirs(bench, system, people, name):
    graph = bench.graph(system, *PEOPLE[people])
    turned = graph.patched(lambda model: moved(model, MOVERS[name]))
    for batch in BATCHES:
        expected = once((system, people, batch), lambda batch=batch: graph.sample(batch))
        assert relative_error(turned.sample(batch), expected) <= EQUAL
        plain = once((batch,), lambda batch=batch: bench.plain().sample(batch))
        assert relative_error(plain, expected) > SEEN


@pytest.mark.parametrize("name", MOVERS)
@every_system
def test_every_sample_keeps_a_mask_of_its_own(bench, system, name):
    three = masks((1, 1, 7, 9), (8, 2, 15, 8), (4, 9, 12, 16))
    place = Place((0, 0, 1, 1), mask=three, inside_region=True)
    # FaceStudio puts one person wherever the others are not.
    people = (person(1, place=place), person(2)) if system == STUDIO else (person(1, place=place),)
    graph = bench.graph(system, *people)
    got = graph.patched(lambda model: moved(model, MOVERS[name])).sample(3)
    assert relative_error(got, graph.sample(3)) <= EQUAL


@pytest.mark.parametrize("name", MOVERS)
@every_system
def test_the_order_of_the_nodes_is_free(bench, system, name):
    people = PEOPLE["two in halves"]
    first = bench.graph(system, *people, model=moved(bench.model, MOVERS[name]))
    last = bench.graph(system, *people).patched(lambda model: moved(model, MOVERS[name]))
    assert relative_error(first.sample(), last.sample()) <= EQUAL


# Tiles

CORNERS = [(top, left) for top in (0, SIDE) for left in (0, SIDE)]
# Who is in the tiles at CORNERS, seen as pictures of their own.
IN_TILES = {
    "one person": [(person(1, 2),)] * 4,
    "a place": [(person(1, 2, place=SPOT_IN_TILE),)] + [(person(1, 2),)] * 3,
    "two in halves": [(person(1),), (person(2),)] * 2,
}


def noisy_picture(bench, timestep: int, batch: int) -> torch.Tensor:
    return noisy(bench.model, noise(7, batch), timestep)


def step(graph, x: torch.Tensor, timestep: int) -> torch.Tensor:
    return guided(classic(graph.model, graph.positive, graph.negative), x, timestep)


def by_hand(bench, system: str, people: list, timestep: int, batch: int) -> torch.Tensor:
    """One step of every tile as a picture of its own with its own people, joined."""
    whole = noisy_picture(bench, timestep, batch)
    out = torch.zeros_like(whole)
    for (top, left), those in zip(CORNERS, people, strict=True):
        where = (..., slice(top, top + SIDE), slice(left, left + SIDE))
        graph = bench.graph(system, *those, guidance=NO_RESCALE)
        out[where] = step(graph, whole[where], timestep)
    return out


def tiled(bench, system, people, timestep, batch, tile_batch, **kinds):
    """One step of the whole picture in tiles, or the sentence that says why not."""
    graph = bench.graph(system, *people, guidance=NO_RESCALE)
    graph = graph.patched(lambda model: moved(model, tiles(tile_batch, SIDE, **kinds)))
    try:
        return step(graph, noisy_picture(bench, timestep, batch), timestep)
    except FlashFaceError as error:
        return str(error)


def warnings(caplog) -> list[str]:
    """What the pack has said since the last time."""
    found = [
        record.getMessage()
        for record in caplog.records
        if record.name == "flashface" and record.levelname == "WARNING"
    ]
    caplog.clear()
    return found


@pytest.mark.parametrize("people", IN_TILES)
@every_step
@every_system
def test_tiles_that_cut_everything_have_their_part_of_the_place(
    bench, system, timestep, people, caplog
):
    in_tiles, batch = IN_TILES[people], 1 if timestep == EARLY else 3
    if people == "two in halves" and system == FLASHFACE:
        # The squares of both halves cover the whole picture in the position channel.
        everywhere = Place((0, 0, 1, 1), inside_region=True)
        in_tiles = [(one.with_place(everywhere),) for (one,) in in_tiles]
    expected = by_hand(bench, system, in_tiles, timestep, batch)
    warnings(caplog)
    for tile_batch in (1, 2, 4):
        got = tiled(bench, system, PEOPLE[people], timestep, batch, tile_batch)
        assert not isinstance(got, str), got
        assert relative_error(got, expected) <= EQUAL, tile_batch
        assert warnings(caplog) == []


def without_places(system: str, people: tuple) -> tuple:
    """Who is seen where nobody's place is known: of those bound to a region nobody, with
    FaceStudio everybody."""
    return tuple(
        one.with_place(None)
        for one in people
        if system == STUDIO or one.place is None or not one.place.inside_region
    )


# What packs do to tensors that they do not know.
LEAVES = {
    "masks whole": dict(cuts=lambda key: key == "c_concat"),
    "all as it was": dict(
        cuts=lambda key: key == "c_concat", repeats=lambda key: key == "c_crossattn"
    ),
}


@pytest.mark.parametrize("leaves", LEAVES)
@every_people
@every_step
@every_system
def test_tiles_that_leave_what_they_do_not_know_are_told_or_are_without_the_place(
    bench, system, timestep, people, leaves, caplog
):
    group = PEOPLE[people]
    if system == STUDIO and len(group) == 1:
        pytest.skip("a place of one person alone means nothing to FaceStudio")
    # The position channel is FlashFace's alone.
    is_told = people not in ("one person", "a place") or (people, system) == ("a place", FLASHFACE)
    batch = 3 if timestep == EARLY else 1
    alone = without_places(system, group)
    photos = tuple(tuple(photo.content for photo in one.references) for one in alone)
    expected = once(
        (system, photos, timestep), lambda: by_hand(bench, system, [alone] * 4, timestep, batch)
    )
    warnings(caplog)
    for tile_batch in (1, 2, 4):
        got = tiled(bench, system, group, timestep, batch, tile_batch, **LEAVES[leaves])
        said = warnings(caplog)
        if isinstance(got, str):
            # Nothing of ours is in the way of one tile at a time of a person who is anywhere.
            assert is_told or tile_batch > 1, got
            continue
        assert relative_error(got, expected) <= EQUAL, tile_batch
        if is_told:
            assert len(said) == 1, said
