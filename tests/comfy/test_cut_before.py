"""A node that has the picture computed in pieces instead of the guider: tiles, or to save memory
one sample at a time.

y and y_ref of face guidance are those of the whole picture all the same.
"""

import comfy.samplers
import pytest
import torch
from support.facestudio import person
from support.harness import relative_error
from support.systems import EARLY, FLASHFACE, LATE, OWN_ATTENTION, SYSTEMS

EQUAL = 1e-5
every_step = pytest.mark.parametrize("timestep", [EARLY, LATE], ids=["above", "below launch"])


def cut_up(dim: int, size: int):
    """A node: pieces of `size` along `dim`, 0 for samples, 3 for columns."""

    def in_pieces(args):
        x, outs = args["input"], [torch.zeros_like(args["input"]) for _ in args["conds"]]
        for at in range(0, x.shape[dim], size):
            sigma = args["sigma"][at : at + size] if dim == 0 else args["sigma"]
            piece = x.narrow(dim, at, size).contiguous()
            given = args["model"], args["conds"], piece, sigma, args["model_options"]
            for out, part in zip(outs, comfy.samplers.calc_cond_batch(*given), strict=True):
                out.narrow(dim, at, size).copy_(part)
        return outs

    def node(model):
        model = model.clone()
        model.set_model_sampler_calc_cond_batch_function(in_pieces)
        return model

    return node


@every_step
@pytest.mark.parametrize("system", SYSTEMS)
def test_one_sample_at_a_time_is_what_all_at_once_are(bench, system, timestep):
    graph = bench.graph(system, person(1, 2))
    got = graph.patched(cut_up(0, 1)).step(timestep, 2)
    assert relative_error(got, graph.step(timestep, 2)) <= EQUAL


@every_step
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION])
def test_tiles_get_the_face_of_the_whole_picture(bench, system, timestep):
    graph = bench.graph(system, person(1, 2))
    drawn = graph.patched(cut_up(3, 8)).step(timestep)
    assert drawn.isfinite().all()
    assert relative_error(drawn, bench.plain().patched(cut_up(3, 8)).step(timestep)) > 1e-3
