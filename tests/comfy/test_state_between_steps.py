"""What other nodes keep in model_options from step to step stays, and nothing of ours does."""

from functools import cache

import comfy.samplers
import pytest
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    KSamplerSelect,
    SamplerCustom,
    SplitSigmas,
)
from support.facestudio import person
from support.harness import relative_error
from support.sampling import empty_latent
from support.systems import STUDIO, SYSTEMS, in_halves

STEPS = 4
KEY = "test_state"
PEOPLE = {"one person": (person(1, 2),), "two in halves": in_halves()}


def in_options(options: dict) -> dict:
    return options


def in_transformer_options(options: dict) -> dict:
    return options["transformer_options"]


def inside(options: dict) -> dict:
    """A dictionary of the node's own, in transformer_options."""
    return options["transformer_options"].setdefault("test_own", {})


PLACES = {"model_options": in_options, "transformer_options": in_transformer_options, "own": inside}


class Counts:
    """A node that counts its steps in the options of the run; seen: the numbers at each step."""

    def __init__(self) -> None:
        self.seen = {place: [] for place in PLACES}

    def count(self, options: dict) -> None:
        for place, where in PLACES.items():
            found = where(options)
            found[KEY] = found.get(KEY, 0) + 1
            self.seen[place].append(found[KEY])


def after_cfg(model, counts: Counts):
    def post(args):
        counts.count(args["model_options"])
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(post)


def before_cfg(model, counts: Counts):
    def pre(args):
        counts.count(args["model_options"])
        return args["conds_out"]

    model.set_model_sampler_pre_cfg_function(pre)


def instead_of_cfg(model, counts: Counts):
    def cfg(args):
        counts.count(args["model_options"])
        return args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])

    model.set_model_sampler_cfg_function(cfg)


def around_the_step(model, counts: Counts):
    def predict(executor, x, timestep, model_options, *args, **kwargs):
        result = executor(x, timestep, model_options, *args, **kwargs)
        counts.count(model_options)
        return result

    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict)


def instead_of_the_batch(model, counts: Counts):
    def calc(args):
        counts.count(args["model_options"])
        lists, x, sigma = args["conds"], args["input"], args["sigma"]
        options = {**args["model_options"]}
        options.pop("sampler_calc_cond_batch_function")
        return comfy.samplers.calc_cond_batch(args["model"], lists, x, sigma, options)

    model.set_model_sampler_calc_cond_batch_function(calc)


def around_the_batch(model, counts: Counts):
    def calc(executor, model, conds, x, timestep, options, *args, **kwargs):
        if len(conds) > 1:  # the step's own lists, not what nodes ask for beside them
            counts.count(options)  # twice, where y_ref is in a call of its own
        return executor(model, conds, x, timestep, options, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, calc)


NODES = {
    "post cfg": after_cfg,
    "pre cfg": before_cfg,
    "cfg": instead_of_cfg,
    "PREDICT_NOISE": around_the_step,
    "calc_cond_batch": instead_of_the_batch,
    "CALC_COND_BATCH": around_the_batch,
}
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_people = pytest.mark.parametrize("people", PEOPLE)
both_orders = pytest.mark.parametrize(
    "is_first", [True, False], ids=["Apply before", "Apply after"]
)


def with_node(bench, system, people, node, is_first: bool):
    """The graph with one more node on its MODEL, before or after Apply."""
    if is_first:
        return bench.graph(system, *PEOPLE[people]).patched(node)
    return bench.graph(system, *PEOPLE[people], model=node(bench.model))


@both_orders
@pytest.mark.parametrize("name", NODES)
@every_people
@every_system
def test_a_node_finds_what_it_left_in_the_step_before(bench, system, people, name, is_first):
    counts = Counts()

    def node(model):
        model = model.clone()
        NODES[name](model, counts)
        return model

    graph = with_node(bench, system, people, node, is_first)
    before = keys_of(graph.model.model_options)
    graph.sample(steps=STEPS)
    for place, seen in counts.seen.items():
        calls = len(seen)
        assert calls == STEPS or (name == "CALC_COND_BATCH" and STEPS < calls <= 2 * STEPS)
        assert seen == list(range(1, calls + 1)), place
    assert keys_of(graph.model.model_options) == before


def keys_of(options: dict) -> set:
    """Paths of all keys of nested dictionaries."""
    found = set()
    for key, value in options.items():
        found.add((str(key),))
        if isinstance(value, dict):
            found |= {(str(key), *rest) for rest in keys_of(value)}
    return found


@both_orders
@every_people
@every_system
def test_after_a_step_nothing_of_ours_is_in_the_options(bench, system, people, is_first):
    """Of the run that is going on: a wrapper around all of ours looks at them between steps."""
    found = []

    def look(executor, x, timestep, model_options, *args, **kwargs):
        before = keys_of(model_options)
        result = executor(x, timestep, model_options, *args, **kwargs)
        found.append(keys_of(model_options) ^ before)
        return result

    def node(model):
        model = model.clone()
        kind = WrappersMP.PREDICT_NOISE
        model.wrappers[kind] = {"test_look": [look], **model.wrappers.get(kind, {})}
        return model

    with_node(bench, system, people, node, is_first).sample(steps=STEPS)
    assert len(found) == STEPS and not any(found), found


def momentum(model, strength: float = 0.6):
    """Momentum of the guidance, kept in model_options as packs do."""
    model = model.clone()

    def post(args):
        options = args["model_options"]
        change = args["denoised"] - args["input"]
        last = options["transformer_options"].get("test_momentum")
        if last is not None and last.shape == change.shape:
            change = change * (1 - strength) + last * strength
        options["transformer_options"]["test_momentum"] = change
        return args["input"] + change

    model.set_model_sampler_post_cfg_function(post)
    return model


@pytest.fixture(scope="module")
def bare(bench):
    """The picture without any other node, by system, people and batch; each is drawn once."""

    @cache
    def draw(system, people, batch):
        return bench.graph(system, *PEOPLE[people]).sample(batch, steps=STEPS)

    return draw


@both_orders
@every_people
@every_system
def test_momentum_that_is_kept_in_the_options_has_its_effect(bench, bare, system, people, is_first):
    """Equal to the same node that keeps its number in itself."""
    graph = with_node(bench, system, people, momentum, is_first)
    kept: dict = {}

    def in_itself(model, strength=0.6):
        model = model.clone()

        def post(args):
            change = args["denoised"] - args["input"]
            last = kept.get("last")
            if last is not None and last.shape == change.shape:
                change = change * (1 - strength) + last * strength
            kept["last"] = change
            return args["input"] + change

        model.set_model_sampler_post_cfg_function(post)
        return model

    expected = with_node(bench, system, people, in_itself, is_first)
    for batch in (1, 3):
        kept.clear()
        wanted = expected.sample(batch, steps=STEPS)
        assert relative_error(graph.sample(batch, steps=STEPS), wanted) <= 1e-6
        assert relative_error(wanted, bare(system, people, batch)) > 1e-3


@every_system
def test_one_noise_level_left_says_nothing_of_a_guider(bench, system, caplog):
    """The tail of SplitSigmas: no step is there for the face to be in."""
    people = PEOPLE["two in halves" if system == STUDIO else "one person"]
    graph = bench.graph(system, *people)
    sigmas = BasicScheduler.execute(graph.model, "simple", 2, 1.0).args[0]
    tail = SplitSigmas.execute(sigmas, 2).args[1]
    assert len(tail) == 1
    sampler = KSamplerSelect.execute("euler").args[0]
    SamplerCustom.execute(
        graph.model, True, 1, 7.5, graph.positive, graph.negative, sampler, tail, empty_latent()
    )
    assert "had no effect" not in caplog.text
