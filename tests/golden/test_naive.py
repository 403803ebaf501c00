"""The baseline of benchmarks/ computes what the official code does."""

import json

import pytest
import torch
from support.golden import golden_files
from support.harness import relative_error

from benchmarks.naive import naive_rows

RAW = 2e-4


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(one, id=one.name)
        for one in golden_files()
        if one.metadata.get("kind") == "forward" and not one.is_full_width
    ],
)
@torch.inference_mode()
def test_the_naive_rows_are_the_official_ones(file, networks):
    model, net = networks(file.metadata["topology"])
    unet, data = model.model.diffusion_model, file.tensors()
    config = json.loads(file.metadata["config"])
    x, count = data["in.x"], len(data["in.x"])
    mask = data["in.mask"].float()[None].expand(count, -1, -1, -1)
    compared = 0
    for t in config["timesteps"]:
        for lam in config["lams"]:
            expected = data.get(f"t{t}.nd3.lam{lam}")
            if expected is None:
                continue
            # y_ref, y and the negative row, each for the whole batch.
            context = torch.cat([data["in.cond"], data["in.cond"], data["in.neg"]])
            got = naive_rows(
                unet,
                net.network,
                data["in.ref"],
                data["in.neg"],
                x.repeat(3, 1, 1, 1),
                float(t),
                context.repeat_interleave(count, 0),
                [lam] * count + [0.0] * 2 * count,
                mask.repeat(3, 1, 1, 1),
            )
            assert relative_error(got, expected) <= RAW
            compared += 1
    assert compared
