"""Places in real sampling: a mask per sample, regions, several people."""

import pytest
import torch
from flashface_pack.flashface_core import row_references
from flashface_pack.flashface_core.comfy_adapter import row_conds, step
from support.harness import Guidance, Place, apply_features, relative_error
from support.sampling import POSITION, classic, guided, ksampler, noise, noisy, watch_rows
from support.scores import CountedScores
from support.systems import EARLY, FLASHFACE, FUSION, LATE, OWN_ATTENTION, SYSTEMS, in_halves

ALL_ROWS = Guidance(feature_strength=1.2, early_strength=1.2, face_guidance=0, guidance_rescale=0)


def rectangles(size, *boxes) -> torch.Tensor:
    """bool masks (M, H, W) at latent size times 8; boxes are x1, y1, x2, y2 in latent pixels."""
    masks = torch.zeros(len(boxes), 8 * size[0], 8 * size[1], dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[8 * y1 : 8 * y2, 8 * x1 : 8 * x2] = True
    return masks


THREE = ((1, 1, 7, 9), (8, 2, 15, 8), (4, 9, 12, 16))


def sampled(flashface, masks, samples, inside):
    """Latents of some samples out of a batch: their noise is the same in any company."""
    place = Place((0, 0, 1, 1), masks, inside_region=inside)
    model = apply_features(flashface.model, flashface.features(place=place), Guidance())
    latent = {"samples": torch.zeros(len(samples), 4, 16, 16), "batch_index": list(samples)}
    return ksampler(model, flashface.positive, flashface.negative, latent)


@pytest.mark.parametrize("inside", [False, True], ids=["whole image", "inside the region"])
def test_every_sample_of_a_batch_has_its_own_mask(flashface, inside):
    masks = rectangles((16, 16), *THREE)
    batch = sampled(flashface, masks, (0, 1, 2), inside)
    for i in range(3):
        alone = sampled(flashface, masks[i : i + 1], (i,), inside)
        assert relative_error(batch[i], alone[0]) <= 2e-5
    moved = sampled(flashface, masks[[1]], (0,), inside)
    assert relative_error(batch[0], moved[0]) > 1e-3  # the place is seen


def test_fewer_masks_than_samples_repeat(flashface):
    masks = rectangles((16, 16), *THREE[:2])
    fewer = sampled(flashface, masks, (0, 1, 2), inside=True)
    written_out = sampled(flashface, masks[[0, 1, 0]], (0, 1, 2), inside=True)
    assert torch.equal(fewer, written_out)


def test_one_mask_serves_the_whole_batch(flashface):
    masks = rectangles((16, 16), THREE[0])
    one = sampled(flashface, masks, (0, 1, 2), inside=True)
    assert torch.equal(one, sampled(flashface, masks[[0, 0, 0]], (0, 1, 2), inside=True))


def test_several_places_are_joined_in_the_position_channel(flashface):
    left, right = Place((0.0, 0.2, 0.3, 0.3)), Place((0.6, 0.4, 0.3, 0.3))
    both = flashface.people(flashface.features(place=left), flashface.features(place=right))
    model, calls = watch_rows(flashface.model)
    model = apply_features(model, both, ALL_ROWS)
    x = noisy(model, noise(7), EARLY)
    guided(classic(model, flashface.positive, flashface.negative), x, EARLY)
    union = torch.maximum(left.position_mask(16, 16), right.position_mask(16, 16))
    (call,) = calls
    assert torch.equal(call[POSITION], union[None].expand(call["rows"], -1, -1, -1))


def attention_calls(flashface, features, size):
    """Per RA site of one UNet call: module, arguments, output."""
    model = apply_features(flashface.model, features, ALL_ROWS)
    calls = {}
    hooks = [
        flashface.net.network.attention_at(site).register_forward_hook(
            lambda module, args, output, site=site: calls.__setitem__(site, (module, args, output))
        )
        for site in flashface.net.network.sites
    ]
    try:
        x = noisy(model, noise(7, 2, *size), EARLY)
        guided(classic(model, flashface.positive, flashface.negative), x, EARLY)
    finally:
        for hook in hooks:
            hook.remove()
    assert set(calls) == set(flashface.net.network.sites)
    return calls


def tokens_wholly(inside: bool, masks: torch.Tensor, count: int) -> torch.Tensor:
    """bool (M, L): tokens of a site all of whose picture lies in the masks, or out of them."""
    height, width = masks.shape[-2:]
    # Sites halve, rounding up; the footprint of a token reaches one latent pixel further.
    h, w = next(
        (h, w)
        for h, w in ((-(-height // 8 // s), -(-width // 8 // s)) for s in (1, 2, 4))
        if h * w == count
    )
    if not inside:
        masks = ~masks
    ok = torch.ones(len(masks), h, w, dtype=torch.bool)
    for row in range(h):
        for column in range(w):
            y1, y2 = int(row * height / h) - 8, int((row + 1) * height / h) + 8
            x1, x2 = int(column * width / w) - 8, int((column + 1) * width / w) + 8
            part = masks[:, max(0, y1) : y2, max(0, x1) : x2]
            ok[:, row, column] = part.flatten(1).all(1)
    return ok.flatten(1)


def with_other_references(calls, other_calls, site):
    """RA at a site on the same picture tokens, with the references of another run."""
    module, (y, *_, attention), output = calls[site]
    references, strength, rows = other_calls[site][1][1:4]
    return module(y, references, strength, rows, attention), output


SIZES = [(16, 24), (17, 23), (33, 19)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outside_the_region_nobody_looks_at_the_photos(flashface, size):
    height, width = size
    masks = rectangles(size, (2, 3, 14, 14), (7, 1, width - 1, height - 2))
    place = Place((0, 0, 1, 1), masks, inside_region=True)
    calls = attention_calls(flashface, flashface.features(place=place, seed=100), size)
    others = attention_calls(flashface, flashface.features(place=place, seed=200), size)
    seen_inside = 0
    for site in calls:
        changed, output = with_other_references(calls, others, site)
        count = output.shape[1]
        outside = tokens_wholly(False, masks, count).repeat(2, 1)  # two rows of each sample
        inside = tokens_wholly(True, masks, count).repeat(2, 1)
        assert outside.any() and torch.equal(changed[outside], output[outside]), site
        differs = (changed != output).any(-1)
        assert differs[inside].all(), site
        seen_inside += int(inside.sum())
    assert seen_inside > 0


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_photos_of_one_person_do_not_touch_the_region_of_another(flashface, size):
    height, width = size
    half = width // 2
    left = rectangles(size, (0, 0, half, height))
    right = rectangles(size, (half, 0, width, height))

    def people(seed):
        anna = Place((0, 0, 1, 1), left, inside_region=True)
        berta = Place((0, 0, 1, 1), right, inside_region=True)
        return flashface.people(
            flashface.features(place=anna, seed=seed), flashface.features(place=berta, seed=300)
        )

    calls = attention_calls(flashface, people(100), size)
    others = attention_calls(flashface, people(200), size)
    for site in calls:
        changed, output = with_other_references(calls, others, site)
        count = output.shape[1]
        hers = tokens_wholly(True, right, count).expand(len(output), -1)
        mine = tokens_wholly(True, left, count).expand(len(output), -1)
        assert hers.any() and torch.equal(changed[hers], output[hers]), site
        assert (changed != output).any(-1)[mine].all(), site


def test_tokens_that_no_region_covers_see_nobody(flashface):
    """They get what RA gives on the picture alone."""
    masks = rectangles((16, 24), (2, 3, 14, 14))
    place = Place((0, 0, 1, 1), masks, inside_region=True)
    calls = attention_calls(flashface, flashface.features(place=place), (16, 24))
    for site, (module, (y, *_), output) in calls.items():
        outside = tokens_wholly(False, masks, output.shape[1]).expand(len(output), -1)
        alone = module(y)
        error = relative_error(output[outside], alone[outside])
        assert error <= 1e-5, site


def test_regions_make_no_difference_when_they_cover_everything(flashface):
    everything = rectangles((16, 16), (0, 0, 16, 16))
    results = [sampled(flashface, everything, (0, 1), inside=inside) for inside in (False, True)]
    assert relative_error(*results) <= 1e-5


def test_the_strength_of_a_place_multiplies_the_feature_strength(flashface):
    def result(strength, feature_strength):
        place = Place((0.2, 0.2, 0.4, 0.4), strength=strength)
        settings = Guidance(feature_strength, early_strength=0, launch_timestep=1000)
        model = apply_features(flashface.model, flashface.features(place=place), settings)
        return ksampler(model, flashface.positive, flashface.negative)

    assert relative_error(result(0.5, 1.2), result(1.0, 0.6)) <= 1e-6
    assert relative_error(result(0.5, 1.2), result(1.0, 1.2)) > 1e-3


def test_masks_are_cut_to_the_latents_at_hand(flashface):
    """65 x 89: no power of two divides it."""
    features = flashface.features(place=Place((0.3, 0.1, 0.3, 0.3), inside_region=True))
    places = row_conds.place_tensors(features, torch.zeros(1, 4, 65, 89))
    position, regions = places.position, places.regions
    assert position is not None and regions is not None
    assert position.shape == (1, 1, 65, 89) and regions.shape == (1, 1, 65, 89)


def test_people_with_different_numbers_of_masks_repeat_their_own(flashface):
    """A with two masks and B with three in a batch of six: A's are 0 1 0 1 0 1."""
    two = Place((0, 0, 1, 1), rectangles((16, 16), *THREE[:2]), inside_region=True)
    three = Place((0, 0, 1, 1), rectangles((16, 16), *THREE), inside_region=True)
    both = flashface.people(flashface.features(place=two), flashface.features(place=three))
    regions = row_conds.place_tensors(both, torch.zeros(6, 4, 16, 16)).regions
    assert regions is not None
    for person, place in enumerate((two, three)):
        own = place.region(16, 16)
        assert torch.equal(regions[:, person], own.repeat(6 // len(own), 1, 1))


def test_two_people_in_two_halves_cost_as_much_as_one_who_is_everywhere(flashface):
    """In a whole step of the network: their photos meet the tokens of their own half alone."""
    width = 16
    halves = rectangles((16, width), (0, 0, 8, 16), (8, 0, width, 16))
    inside = [Place((0, 0, 1, 1), half[None], inside_region=True) for half in halves]

    def cost(*places) -> int:
        people = flashface.people(
            *(flashface.features(place=p, seed=100 * i) for i, p in enumerate(places))
        )
        model = apply_features(flashface.model, people, ALL_ROWS)
        x = noisy(model, noise(7), EARLY)
        guider = classic(model, flashface.positive, flashface.negative)
        guided(guider, x, EARLY)  # the photos are looked at once
        with CountedScores() as counted:
            guided(guider, x, EARLY)
        return counted.count

    one = cost(Place((0, 0, 1, 1)))
    assert cost(*inside) == one
    assert cost(inside[0]) < one < cost(Place((0, 0, 1, 1)), Place((0, 0, 1, 1)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_where_people_are_is_worked_out_once_per_run(bench, system, monkeypatch):
    """Masks are resized and copied there, and do not change from step to step."""
    graph, worked_out = bench.graph(system, *in_halves()), []
    region = Place.region

    def counted(place, *size):
        worked_out.append(size)
        return region(place, *size)

    monkeypatch.setattr(Place, "region", counted)
    graph.sample(steps=3)
    assert worked_out == [(16, 16)] * 2
    graph.sample(size=(16, 24), steps=3)
    assert worked_out[2:] == [(16, 24)] * 2


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("system", (FLASHFACE, OWN_ATTENTION, FUSION))
def test_which_tokens_are_covered_is_asked_once_per_run_and_size(bench, system, steps, monkeypatch):
    """To ask a tensor on a GPU is to wait for it."""
    graph, asked = bench.graph(system, *in_halves()), []
    covered_tokens = row_references.covered_tokens

    def counted(regions, size):
        asked.append(size)
        return covered_tokens(regions, size)

    for module in (row_references, step):
        monkeypatch.setattr(module, "covered_tokens", counted)
    graph.sample(batch=3, steps=steps)
    assert sorted(asked) == [(8, 8), (16, 16)]


def test_rows_are_not_asked_for_their_strength_where_nobody_moves_them(bench, monkeypatch):
    graph, known = bench.graph(FLASHFACE, *in_halves()), []

    class Spy(row_references.Known):
        def __new__(cls, strengths=None, *others):
            known.append(strengths)
            return super().__new__(cls, strengths, *others)

    monkeypatch.setattr(row_conds, "Known", Spy)
    graph.step(EARLY), graph.step(LATE)
    early, lam = Guidance().early_strength, Guidance().feature_strength
    assert [sorted(strengths) for strengths in known] == [[early, early], [0.0, 0.0, lam]]
