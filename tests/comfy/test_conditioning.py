"""Areas, masks, timestep ranges, prompts that cannot be joined, and rows that run one by one."""

from dataclasses import replace

import comfy.model_management
import pytest
import torch
from comfy.hooks import set_default_conds_and_combine
from support.harness import (
    Guidance,
    Place,
    WrappersMP,
    apply_features,
    looks_on,
    relative_error,
)
from support.sampling import (
    NEGATIVE,
    POSITION,
    POSITIVE,
    STRENGTH,
    TOKENS,
    classic,
    face_step,
    guided,
    noise,
    noisy,
    prompt,
    watch_rows,
)

import nodes

GUIDANCE = Guidance()
LATE, EARLY = 501, 951
EQUAL = 1e-5
SIZE = (16, 24)
PLACE = Place((0.5, 0.2, 0.4, 0.4))


def area(conditioning, x, y, width, height):
    """In latent pixels."""
    pixels = (8 * n for n in (width, height, x, y))
    return nodes.ConditioningSetArea().append(conditioning, *pixels, 1.0)[0]


def masked(conditioning, area_of_mask="default"):
    mask = torch.zeros(1, *(8 * n for n in SIZE))
    mask[:, 32:96, 64:160] = 1.0
    return nodes.ConditioningSetMask().append(conditioning, mask, area_of_mask, 0.8)[0]


def ranged(conditioning, start, end):
    return nodes.ConditioningSetTimestepRange().set_range(conditioning, start, end)[0]


left, right = area(prompt(21), 0, 0, 12, 16), area(prompt(22), 10, 0, 14, 16)
# Cut at 40 % of sampling: the sigmas of both test steps lie well inside of one part.
early, late = ranged(prompt(23), 0.0, 0.4), ranged(prompt(24), 0.4, 1.0)
GRAPHS = {
    "an area beside a whole prompt": (POSITIVE + right, NEGATIVE),
    "areas in both prompts": (left + right, area(NEGATIVE, 0, 0, 12, 16) + NEGATIVE),
    "areas alone": (left + right, NEGATIVE),
    "mask": (masked(prompt(21)) + POSITIVE, NEGATIVE),
    "mask with its bounds as area": (masked(prompt(21), "mask bounds") + POSITIVE, NEGATIVE),
    "masked negative": (POSITIVE, masked(prompt(21)) + NEGATIVE),
    "timestep ranges": (early + late, NEGATIVE),
    "timestep ranges in the negative": (POSITIVE, early + late),
    "area in a timestep range": (POSITIVE + ranged(right, 0.4, 1.0), NEGATIVE),
    "a prompt for the rest of the picture": (
        set_default_conds_and_combine([masked(prompt(21))], [prompt(29)])[0],
        NEGATIVE,
    ),
    "5 times as long, which core runs apart": (POSITIVE, prompt(25, 5 * TOKENS)),
    "6 times as long, which core runs apart": (prompt(26, 6 * TOKENS), NEGATIVE),
    "2 against 3 times as long, which core joins": (prompt(27, 2 * TOKENS), prompt(28, 3 * TOKENS)),
}


def with_prompts(flashface, name):
    positive, negative = GRAPHS[name]
    return replace(flashface, positive=positive, negative=negative)


def result(flashface, features, timestep, model=None, batch=2):
    """One step of the patched MODEL, under classic guidance; the noise; what the UNet got."""
    model, calls = watch_rows(model or flashface.model)
    model = apply_features(model, features, GUIDANCE)
    x = noisy(model, noise(7, batch, *SIZE), timestep)
    return guided(classic(model, flashface.positive, flashface.negative), x, timestep), x, calls


@pytest.mark.parametrize(("timestep", "place"), [(EARLY, None), (LATE, PLACE)])
@pytest.mark.parametrize("name", GRAPHS)
def test_composed_prompts_guide_as_ever_and_the_face_is_added(flashface, name, timestep, place):
    graph = with_prompts(flashface, name)
    features = flashface.features(place=place)
    got, x, _ = result(graph, features, timestep)
    expected = face_step(graph, classic, features, GUIDANCE, x, timestep)
    assert relative_error(got, expected) <= EQUAL


@pytest.mark.parametrize(
    "name", ["an area beside a whole prompt", "mask", "2 against 3 times as long, which core joins"]
)
def test_a_full_graphics_card_runs_one_prompt_at_a_time_with_the_same_result(
    flashface, name, monkeypatch
):
    graph, features = with_prompts(flashface, name), flashface.features(place=PLACE)
    joined, _, calls = result(graph, features, LATE)
    free_memory = comfy.model_management.get_free_memory

    def none_for_a_batch(device=None, torch_free_too=False):  # attention asks for both numbers
        return free_memory(device, True) if torch_free_too else 0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", none_for_a_batch)
    apart, _, single_calls = result(graph, features, LATE)
    assert all(len(call["branches"]) == 1 for call in single_calls)
    assert sum(call["rows"] for call in single_calls) == sum(call["rows"] for call in calls)
    assert len(calls) < len(single_calls)
    assert relative_error(apart, joined) <= EQUAL


def test_the_rows_of_prompts_that_core_cannot_join_come_in_calls_of_their_own(flashface):
    graph = with_prompts(flashface, "5 times as long, which core runs apart")
    _, _, calls = result(graph, flashface.features(), LATE)
    assert sorted(sorted(call["branches"]) for call in calls) == [[0, 2], [1]]


def test_a_positive_area_that_core_copies_into_the_negative_counts_as_negative(flashface):
    """The copy has the uuid of the positive entry, so nothing may go by uuid."""
    graph = with_prompts(flashface, "an area beside a whole prompt")
    lists = []

    def watch_lists(executor, model, conds, *args):
        lists.append([[(c["uuid"], c.get("area")) for c in conds_of_one] for conds_of_one in conds])
        return executor(model, conds, *args)

    model = flashface.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test_lists", looks_on(watch_lists))
    _, _, calls = result(graph, flashface.features(), LATE, model, batch=1)
    positive, negative = lists[0]
    assert set(negative) & set(positive), "core no longer copies; this test has lost its trap"

    strengths = {0: [], 1: [], 2: []}
    for call in calls:
        for branch, strength in zip(call["branches"], call[STRENGTH], strict=True):
            strengths[branch].append(round(float(strength), 6))
    lam = GUIDANCE.feature_strength
    assert strengths == {0: [0.0, 0.0], 1: [0.0, 0.0], 2: [lam, lam]}


def test_rows_of_an_area_get_their_part_of_the_position_mask(flashface):
    graph = with_prompts(flashface, "areas in both prompts")
    _, _, calls = result(graph, flashface.features(place=PLACE), LATE, batch=1)
    whole = PLACE.position_mask(*SIZE)
    parts = {whole[:, 0:16, 0:12], whole[:, 0:16, 10:24], whole}
    shapes = {tuple(part.shape[1:]): part for part in parts}
    assert len(shapes) == 3
    seen = set()
    for call in calls:
        for x, position in zip(call["x"], call[POSITION], strict=True):
            assert position.shape[1:] == x.shape[1:]
            assert torch.equal(position, shapes[tuple(x.shape[1:])])
            seen.add(tuple(x.shape[1:]))
    assert seen == set(shapes)


def test_inside_an_area_the_network_works_as_on_that_part_alone(flashface):
    """The rows of an area equal a run on the cropped latent with the cropped place."""
    crop = (slice(None), slice(None), slice(0, 16), slice(10, 24))
    person = Place((0, 0, 1, 1), PLACE.position_mask(*SIZE).bool(), inside_region=True)
    cropped = Place((0, 0, 1, 1), person.mask[:, crop[2], crop[3]], inside_region=True)
    guidance = Guidance(launch_timestep=-1, guidance_rescale=0)
    alone = prompt(22)
    x = noisy(flashface.model, noise(7, 2, *SIZE), EARLY)

    whole = apply_features(flashface.model, flashface.features(place=person), guidance)
    part = apply_features(flashface.model, flashface.features(place=cropped), guidance)
    got = guided(classic(whole, area(alone, 10, 0, 14, 16), flashface.negative, 1.0), x, EARLY)
    expected = guided(classic(part, alone, flashface.negative, 1.0), x[crop], EARLY)
    assert relative_error(got[crop], expected) <= EQUAL
