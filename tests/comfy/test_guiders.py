"""Every guider and CFG node of core speaks first, with y; the face is added after it."""

import comfy.samplers
import pytest
from comfy_extras import nodes_cfg, nodes_mahiro, nodes_tcfg
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_custom_sampler import DualCFGGuider
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_perpneg import PerpNeg, PerpNegGuider
from comfy_extras.nodes_sag import SelfAttentionGuidance
from support.harness import Guidance, Place, apply_features, relative_error
from support.sampling import (
    CFG,
    STRENGTH,
    add_face,
    basic,
    classic,
    count_rows,
    everywhere,
    face_step,
    guided,
    noise,
    noisy,
    prompt,
    watch_rows,
)

EMPTY = prompt(3)
GUIDANCE = Guidance()
LATE, EARLY = 501, 951
EQUAL = 1e-5


def dual(style, cfg1=5.0, cfg2=CFG):
    def guider(model, positive, negative):
        return DualCFGGuider.execute(model, positive, EMPTY, negative, cfg1, cfg2, style).args[0]

    return guider


def perp_neg(cfg, scale):
    def guider(model, positive, negative):
        return PerpNegGuider.execute(model, positive, negative, EMPTY, cfg, scale).args[0]

    return guider


def at_cfg(cfg):
    return lambda model, positive, negative: classic(model, positive, negative, cfg)


GUIDERS = {
    "BasicGuider": lambda model, positive, negative: basic(model, positive),
    "CFG": at_cfg(CFG),
    "CFG 1": at_cfg(1.0),
    "PerpNegGuider": perp_neg(CFG, 1.0),
    "PerpNegGuider without negative": perp_neg(1.0, 0.0),
    "DualCFG regular": dual("regular"),
    "DualCFG regular at 1": dual("regular", 1.0, 1.0),
    "DualCFG nested": dual("nested"),
}
# node that patches MODEL, and the guider it is used with
PATCHES = {
    "PerpNeg, deprecated": (lambda m: PerpNeg.execute(m, EMPTY, 1.0).args[0], "CFG"),
    "RescaleCFG": (lambda m: RescaleCFG().patch(m, 0.7)[0], "CFG"),
    "PAG": (lambda m: PerturbedAttentionGuidance.execute(m, 3.0).args[0], "CFG"),
    "PAG at CFG 1": (lambda m: PerturbedAttentionGuidance.execute(m, 3.0).args[0], "CFG 1"),
    "PAG in nested DualCFG": (
        lambda m: PerturbedAttentionGuidance.execute(m, 3.0).args[0],
        "DualCFG nested",
    ),
    "SAG": (lambda m: SelfAttentionGuidance.execute(m, 0.5, 2.0).args[0], "CFG"),
    "APG": (lambda m: APG.execute(m, 0.5, 15.0, 0.0).args[0], "CFG"),
    "TCFG": (lambda m: nodes_tcfg.TCFG.execute(m).args[0], "CFG"),
    "Mahiro": (lambda m: nodes_mahiro.Mahiro.execute(m).args[0], "CFG"),
    "CFGNorm": (lambda m: nodes_cfg.CFGNorm.execute(m, 1.0).args[0], "CFG"),
    "CFGZeroStar": (lambda m: nodes_cfg.CFGZeroStar.execute(m).args[0], "CFG"),
}


def check_step(flashface, make, patch=lambda model: model, patch_first=True, place=None):
    features = flashface.features(place=place)
    x = noisy(flashface.model, noise(7, batch=2), LATE)
    expected = face_step(flashface, make, features, GUIDANCE, x, LATE, patch)
    if patch_first:
        model = apply_features(patch(flashface.model), features, GUIDANCE)
    else:
        model = patch(apply_features(flashface.model, features, GUIDANCE))
    got = guided(make(model, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL


@pytest.mark.parametrize("name", GUIDERS)
def test_a_guider_without_face_plus_the_face_term(flashface, name):
    check_step(flashface, GUIDERS[name])


@pytest.mark.parametrize("patch_first", [True, False], ids=["before Apply", "after Apply"])
@pytest.mark.parametrize("name", PATCHES)
def test_a_guidance_node_without_face_plus_the_face_term(flashface, name, patch_first):
    patch, guider = PATCHES[name]
    check_step(flashface, GUIDERS[guider], patch, patch_first)


@pytest.mark.parametrize("name", ["CFG", "PerpNegGuider", "DualCFG nested"])
def test_with_a_place_everything_else_stays_the_same(flashface, name):
    check_step(flashface, GUIDERS[name], place=Place((0.3, 0.1, 0.3, 0.3)))


def test_the_deprecated_perp_neg_node_gives_its_unmarked_rows_the_place(flashface):
    patch, guider = PATCHES["PerpNeg, deprecated"]
    check_step(flashface, GUIDERS[guider], patch, place=Place((0.3, 0.1, 0.3, 0.3)))


@pytest.mark.parametrize("inside", [False, True], ids=["whole image", "inside the region"])
def test_the_deprecated_perp_neg_node_equals_its_guider_above_launch(flashface, inside):
    """Its third prompt comes in the middle of a step, past the marks of the named lists."""
    features = flashface.features(place=Place((0.2, 0.3, 0.5, 0.4), inside_region=inside))
    model = apply_features(flashface.model, features, GUIDANCE)
    x = noisy(model, noise(7, batch=2), EARLY)
    prompts = flashface.positive, flashface.negative
    guider = guided(GUIDERS["PerpNegGuider"](model, *prompts), x, EARLY)
    node = guided(
        classic(PerpNeg.execute(model, EMPTY, 1.0).args[0], *prompts),
        x,
        EARLY,
    )
    assert relative_error(node, guider) <= EQUAL


@pytest.mark.parametrize("name", [*GUIDERS, *PATCHES])
def test_the_face_term_costs_one_row_per_sample(flashface, name):
    """Two, where a patch of the UNet is there that may tell rows apart: y_ref comes with the
    negative prompt once more."""
    patch, guider = PATCHES.get(name, (lambda model: model, name))
    prompts = flashface.positive, flashface.negative
    batch = 2
    x = noise(7, batch)

    def run(model, timestep):
        guided(GUIDERS[guider](model, *prompts), noisy(model, x, timestep), timestep)

    plain = count_rows(run, patch(flashface.model), LATE)
    model = apply_features(patch(flashface.model), flashface.features(), GUIDANCE)
    assert count_rows(run, model, LATE) == plain + batch * (2 if name == "SAG" else 1)
    assert count_rows(run, model, EARLY) == plain
    without_term = Guidance(face_guidance=0)
    model = apply_features(patch(flashface.model), flashface.features(), without_term)
    assert count_rows(run, model, LATE) == plain


def strengths_by_list(flashface, guider, guidance, timestep, batch=2) -> dict[int, set]:
    model, calls = watch_rows(flashface.model)
    model = apply_features(model, flashface.features(), guidance)
    x = noisy(model, noise(7, batch), timestep)
    guided(guider(model, flashface.positive, flashface.negative), x, timestep)
    found: dict[int, set] = {}
    for call in calls:
        assert len(call[STRENGTH]) == call["rows"] == batch * len(call["branches"])
        for place, branch in enumerate(call["branches"]):
            rows = call[STRENGTH][place * batch : (place + 1) * batch]
            found.setdefault(branch, set()).update(round(row, 6) for row in rows.tolist())
    return found


# guider: numbers of its cond lists, the positive one first; y_ref comes last
LISTS = {
    "CFG": (0, 1),
    "PerpNegGuider": (0, 1, 2),
    "DualCFG regular": (2, 0, 1),
    "DualCFG nested": (2, 0, 1),
}


@pytest.mark.parametrize("name", LISTS)
def test_rows_below_launch_carry_no_face_but_the_extra_one(flashface, name):
    lam, lists = GUIDANCE.feature_strength, LISTS[name]
    found = strengths_by_list(flashface, GUIDERS[name], GUIDANCE, LATE)
    assert found == {**{number: {0.0} for number in lists}, len(lists): {lam}}


@pytest.mark.parametrize("name", LISTS)
def test_rows_above_launch_all_carry_the_early_strength(flashface, name):
    found = strengths_by_list(flashface, GUIDERS[name], GUIDANCE, EARLY)
    assert found == {number: {GUIDANCE.early_strength} for number in LISTS[name]}


@pytest.mark.parametrize("name", LISTS)
def test_without_face_guidance_all_rows_carry_the_feature_strength(flashface, name):
    guidance = Guidance(face_guidance=0)
    found = strengths_by_list(flashface, GUIDERS[name], guidance, LATE)
    assert found == {number: {guidance.feature_strength} for number in LISTS[name]}


def test_launch_itself_belongs_to_the_later_phase(flashface):
    for launch, extra in ((LATE, True), (LATE - 1, False)):
        guidance = Guidance(launch_timestep=launch)
        found = strengths_by_list(flashface, GUIDERS["CFG"], guidance, LATE)
        assert (2 in found) == extra


def test_above_launch_the_result_is_classic_guidance_over_rows_with_face(flashface):
    features = flashface.features()
    strong = everywhere(flashface.model, features, GUIDANCE.early_strength)
    x = noisy(strong, noise(7, batch=2), EARLY)
    y = guided(basic(strong, flashface.positive), x, EARLY)
    u = guided(basic(strong, flashface.negative), x, EARLY)
    expected = add_face(x, u + CFG * (y - u), y, None, GUIDANCE)
    model = apply_features(flashface.model, features, GUIDANCE)
    got = guided(classic(model, flashface.positive, flashface.negative), x, EARLY)
    assert relative_error(got, expected) <= EQUAL


def test_a_guider_that_never_asks_for_the_positive_row_still_gets_the_face(flashface):
    """DualCFG nested at cfg2 0 would; here: a CFG node that answers with the negative alone."""
    features = flashface.features()
    x = noisy(flashface.model, noise(7), LATE)
    y = guided(basic(flashface.model, flashface.positive), x, LATE)
    u = guided(basic(flashface.model, flashface.negative), x, LATE)
    strong = everywhere(flashface.model, features, GUIDANCE.feature_strength)
    y_ref = guided(basic(strong, flashface.positive), x, LATE)

    model = apply_features(flashface.model, features, GUIDANCE)
    guider = classic(model, flashface.positive, flashface.negative)
    guider.predict_noise = only_negative(guider)
    expected = add_face(x, u, y, y_ref, GUIDANCE)
    assert relative_error(guided(guider, x, LATE), expected) <= EQUAL


def only_negative(guider):
    def predict_noise(x, timestep, model_options, seed=None):
        conds = [guider.conds["negative"]]
        return comfy.samplers.calc_cond_batch(
            guider.inner_model, conds, x, timestep, model_options
        )[0]

    return predict_noise


def test_guider_conds_are_restored_after_every_step(flashface):
    model = apply_features(flashface.model, flashface.features(), GUIDANCE)
    guider = classic(model, flashface.positive, flashface.negative)
    seen = []
    inner = guider.outer_predict_noise

    def watched(*args, **kwargs):
        before = guider.conds
        keys = [set(c["model_conds"]) for conds in before.values() for c in conds]
        result = inner(*args, **kwargs)
        after = [set(c["model_conds"]) for conds in guider.conds.values() for c in conds]
        seen.append(guider.conds is before and keys == after)
        return result

    guider.outer_predict_noise = watched
    for timestep in (EARLY, LATE):
        guided(guider, noisy(model, noise(7), timestep), timestep)
    assert seen == [True, True]
