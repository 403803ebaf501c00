"""Equal to the official implementation, through the code that the nodes use."""

import json
from dataclasses import replace

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, SamplerCustomAdvanced
from flashface_pack.flashface_core.capture import feature_maps
from flashface_pack.flashface_core.comfy_adapter.photo_encoder import ANCHORS
from flashface_pack.flashface_core.faces.crop import crop_face, pad_to_square
from flashface_pack.flashface_core.flashface import reference_net
from flashface_pack.flashface_core.people.place import position_mask
from safetensors.torch import load_file
from support.golden import ROOT, golden_files
from support.harness import (
    Guidance,
    Place,
    apply_features,
    cond,
    make_features,
    observe,
    one_step,
    relative_error,
    sigma_of,
)

FEATURES, RAW, GUIDED, STEP = 2e-4, 2e-4, 5e-4, 1e-3


def test_golden_file(golden, networks, record):
    kind = golden.metadata.get("kind")
    assert kind in KINDS, f"{golden.name} is of unknown kind {kind!r}; known: {', '.join(KINDS)}"
    config = json.loads(golden.metadata.get("config", "{}"))
    KINDS[kind](golden, config, networks, record)


def test_there_are_golden_files():
    assert golden_files(), "no golden file was found, so nothing was compared"


def forward(golden, config, networks, record):
    model, net = networks(golden.metadata["topology"])
    data = golden.tensors()
    features = make_features(net, data["in.ref"], data["in.neg"], place=golden_place(data))
    for t in config["timesteps"]:
        taken = maps_taken(net, features, t)
        check_feature_maps(taken, net.network.sites, data, t, record)
        for lam in config["lams"]:
            rows = raw_rows(model, features, data, t, lam, face_branch=False)
            got = torch.cat([rows[0], rows[1]])
            record("raw", relative_error(got, data[f"t{t}.nd2.lam{lam}"]), RAW)
            if f"t{t}.nd3.lam{lam}" in data:
                rows = raw_rows(model, features, data, t, lam, face_branch=True)
                got = torch.cat([rows[2], rows[0], rows[1]])
                record("raw", relative_error(got, data[f"t{t}.nd3.lam{lam}"]), RAW)
    for index, setting in enumerate(config["guidance"]):
        check_guidance(model, features, data, index, setting, record)


def golden_place(data) -> Place | None:
    mask = data["in.mask"].bool()
    return Place((0, 0, 1, 1), mask) if mask.any() else None


def golden_guidance(setting) -> Guidance:
    return Guidance(
        feature_strength=setting["lam"],
        early_strength=setting["lam_before"],
        face_guidance=setting["face"],
        launch_timestep=setting["launch"],
        guidance_rescale=setting["rescale"] or 0.0,
    )


def raw_rows(model, features, data, t, lam, face_branch):
    """Raw UNet outputs per cond list with strength lam on all rows, or on y_ref alone."""
    if face_branch:
        guidance = Guidance(feature_strength=lam, face_guidance=1, launch_timestep=1000)
    else:
        guidance = Guidance(feature_strength=1, early_strength=lam, launch_timestep=-1)
    model, seen = observe(model)
    model = apply_features(model, features, guidance)
    one_step(model, data["in.x"], t, cond(data["in.cond"]), cond(data["in.neg"]), cfg=7.5)
    return seen.rows()


@torch.inference_mode()
def maps_taken(net, features, t):
    """The feature maps of the pass whose keys and values the steps at t will find kept."""
    passes = []

    def noted(*args, **options):
        passes.append(feature_maps(*args, **options))
        return passes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_net, "feature_maps", noted)
        net.step_references(features, t, comfy.model_management.get_torch_device())
    (maps,) = passes
    return maps


def check_feature_maps(maps, sites, data, t, record):
    compared = 0
    for (part, block, _), got in maps.items():
        name = "middle_1" if part == "middle" else f"decoder_{block}"
        key = f"t{t}.feat.{name}"
        if f"{key}.shape" not in data:
            continue
        assert list(got.shape) == data[f"{key}.shape"].tolist()
        flat = got.flatten()
        stride = flat[:: max(1, flat.numel() // 61)][:61]
        stats = torch.stack([flat.mean(), flat.std(), flat.norm(), flat.abs().max()])
        expected = data[f"{key}.stats"]
        # mean is near 0: measured against the spread
        error = (stats - expected).abs() / torch.stack([expected[1], *expected[1:]])
        record("features", float(error.max()), FEATURES)
        record("features", relative_error(stride, data[f"{key}.stride"]), FEATURES)
        record("features", relative_error(flat[:8], data[f"{key}.first8"]), FEATURES)
        if f"{key}.full" in data:
            record("features", relative_error(got, data[f"{key}.full"]), FEATURES)
        compared += 1
    assert compared == len(sites)


def check_guidance(model, features, data, index, setting, record):
    model, seen = observe(model)
    model = apply_features(model, features, golden_guidance(setting))
    t, x = setting["t"], data["in.x"]
    x0 = one_step(model, x, t, cond(data["in.cond"]), cond(data["in.neg"]), setting["scale"])
    rows = seen.rows()
    raw = torch.cat([rows[i] for i in (2, 0, 1) if i in rows])
    record("raw", relative_error(raw, data[f"guid{index}.raw"]), RAW)
    sigma = sigma_of(model, t)
    eps = (x * (1 + sigma**2) ** 0.5 - x0) / sigma
    record("guided", relative_error(eps, data[f"guid{index}.eps"]), GUIDED)
    record("guided", relative_error(x0, data[f"guid{index}.x0"]), GUIDED)


def blocks(golden, config, networks, record):
    """The parts of single transformer blocks, read from the running networks by hooks."""
    model, net = networks(golden.metadata["topology"])
    data = golden.tensors()
    sites = sorted({key.split(".")[1] for key in data})
    name = golden.path.stem.removesuffix("_blocks") + ".safetensors"
    case = golden.path.with_name(name)
    if not case.exists():  # its inputs are those of the forward case, which is in our own copy
        (case,) = ROOT.rglob(name)

    inputs = load_file(case)
    features = make_features(net, inputs["in.ref"], inputs["in.neg"], place=golden_place(inputs))
    for name in sites:
        part, number = name.split("_")
        site = ("middle", 0, 0) if part == "middle" else ("output", int(number), 0)
        unet = model.model.diffusion_model
        layers = unet.middle_block if part == "middle" else unet.output_blocks[int(number)]
        block = layers[1].transformer_blocks[0]
        got: dict[str, torch.Tensor] = {}

        def keep(key, into=got):
            return lambda module, args, output: into.__setitem__(key, output.clone())

        def keep_input(module, args, into=got):
            into["block_in"] = args[0].clone()

        def keep_attention(module, args, output, into=got):
            into["ra_arguments"] = args

        hooks = [
            block.register_forward_pre_hook(keep_input),
            block.register_forward_hook(keep("block_out")),
            block.norm1.register_forward_hook(keep("y")),
            block.attn1.register_forward_hook(keep("sa")),
            net.network.attention_at(site).register_forward_hook(keep_attention),
        ]
        model_seen, seen = observe(model)
        patched = apply_features(
            model_seen, features, Guidance(feature_strength=1.2, launch_timestep=1000)
        )
        one_step(patched, inputs["in.x"], 301, cond(inputs["in.cond"]), cond(inputs["in.neg"]), 7.5)
        for hook in hooks:
            hook.remove()
        attention = net.network.attention_at(site)
        y, references, *_ = got.pop("ra_arguments")
        with torch.inference_mode():
            got["ra_self_only"] = attention(y)
            got["ra_with_ref"] = attention(y, references, y.new_ones(len(y), 1, 1))
        order = [seen.branches[-1].index(i) for i in (2, 0, 1)]  # official: y_ref, y, u
        for what, tensor in got.items():
            key = f"block.{name}.t301.nd3.lam1.2.{what}"
            if key in data:
                rows = tensor[order]
                expected = data[key]
                rows = rows[: expected.shape[0], : expected.shape[1]]
                record(what, relative_error(rows, expected), RAW)


class RecordedNoise:
    """NOISE for SamplerCustomAdvanced: the noise of the file."""

    seed = 0

    def __init__(self, noise):
        self.noise = noise

    def generate_noise(self, latent):
        return self.noise


def trailing_sigmas(model, steps: int) -> torch.Tensor:
    """The official timesteps 999 - k * 1000 / n, interpolated in log sigma, and a final 0."""
    timesteps = 999 - torch.arange(steps, dtype=torch.float64) * 1000 / steps
    sigmas = model.get_model_object("model_sampling").sigma(timesteps)
    return torch.cat([sigmas.float(), torch.zeros(1)])


def trajectory(golden, config, networks, record):
    model, net = networks(golden.metadata["topology"])
    data = golden.tensors()
    features = make_features(net, data["in.ref"], data["in.neg"], place=golden_place(data))
    final, seen, used = drawn(model, features, data, config)
    assert used.tolist() == data["out.t_used"].tolist()
    assert [len(branches) for branches in seen.branches] == data["out.branches"].tolist()
    assert len(seen.denoised) == config["steps"]
    for got, expected in zip(seen.denoised, data["out.x0"], strict=True):
        record("x0", relative_error(got, expected), STEP)
    record("z0", relative_error(final, data["out.z0"]), STEP)


@torch.inference_mode()
def drawn(model, features, data, config):
    """The last latent of a recorded trajectory, what was seen on the way, and its timesteps."""
    model, seen = observe(model)
    model = apply_features(model, features, golden_guidance(config["guidance"]))
    scale = config["guidance"]["scale"]
    (guider,) = CFGGuider.execute(model, cond(data["in.cond"]), cond(data["in.neg"]), scale).args
    sigmas = trailing_sigmas(model, config["steps"])
    latent = {"samples": torch.zeros_like(data["in.noise"])}
    sampler = comfy.samplers.sampler_object("euler")
    result = SamplerCustomAdvanced.execute(
        RecordedNoise(data["in.noise"]), guider, sampler, sigmas, latent
    )
    used = model.get_model_object("model_sampling").timestep(sigmas[:-1])
    return result.args[0]["samples"] * model.model.latent_format.scale_factor, seen, used


@torch.inference_mode()
def plain(golden, config, networks, record):
    """The target UNet without reference attention and mask: the key mapping alone."""
    model, _ = networks(golden.metadata["topology"])
    data = golden.tensors()
    outputs = {key: value for key, value in data.items() if key.startswith("out.t")}
    assert outputs
    comfy.model_management.load_models_gpu([model])
    device = comfy.model_management.get_torch_device()
    for key, expected in outputs.items():
        t = torch.tensor([float(key.removeprefix("out.t"))])
        inputs = [tensor.to(device) for tensor in (data["in.x"], t, data["in.ctx"])]
        got = model.model.diffusion_model(*inputs)
        record("raw", relative_error(got, expected), RAW)


def schedule(golden, config, networks, record):
    model, _ = networks("mini")
    data = golden.tensors()
    sampling = model.get_model_object("model_sampling")
    sigmas = sampling.sigmas.double()
    vp = sigmas / (1 + sigmas**2) ** 0.5
    record("sigmas", relative_error(vp, data["sigmas_vp_1000"]), 1e-5)
    record("sigmas", relative_error(1 / (1 + sigmas**2) ** 0.5, data["alphas_1000"]), 1e-5)
    for key in (key for key in data if key.endswith(".sigma_ve")):
        name = key.removesuffix(".sigma_ve")
        steps = int(name.removeprefix("steps"))
        trailing = trailing_sigmas(model, steps)[:-1]
        record("trailing", relative_error(trailing, data[key]), 1e-5)
        assert sampling.timestep(trailing).tolist() == data[f"{name}.t_used"].tolist()
        if 1000 % steps == 0:  # core's own scheduler is then the official spacing
            simple = comfy.samplers.calculate_sigmas(sampling, "simple", steps)[:-1]
            record("simple", relative_error(simple, data[key]), 1e-5)


def preprocess(golden, config, networks, record):
    data = golden.tensors()
    for key in (key for key in data if key.endswith(".latent96")):
        box = data[key.replace("latent96", "bbox")].tolist()
        if any(box):
            assert torch.equal(position_mask(tuple(box), 96, 96), data[key].float())
        else:  # no box: no place, which is the all-zero mask
            assert not data[key].any()
    for key in (key for key in data if key.endswith(".img")):
        name = key.removesuffix(".img")
        left, right = (tuple(eye) for eye in data[f"{name}.eyes"].double().tolist())
        box = tuple(data[f"{name}.box"].double().tolist())
        crop = crop_face(data[key], box, (left, right))
        assert torch.equal(crop, data[f"{name}.crop"])
        square = pad_to_square(crop, 224)
        assert torch.equal(square, data[f"{name}.sq224"])
        normed = square.float() / 127.5 - 1
        stats = torch.stack([normed.min(), normed.max(), normed.mean(), normed.std()])
        record("crop", float((stats - data[f"{name}.norm_stats"]).abs().max()), 1e-5)


KINDS = {
    "forward": forward,
    "blocks": blocks,
    "trajectory": trajectory,
    "plain": plain,
    "schedule": schedule,
    "preprocess": preprocess,
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


MINI_TRAJECTORIES = [
    golden
    for golden in golden_files()
    if golden.metadata.get("kind") == "trajectory" and golden.metadata["topology"] == "mini"
]


@pytest.mark.parametrize("recorded", MINI_TRAJECTORIES, ids=lambda recorded: recorded.path.stem)
def test_anchors_stay_near_the_recorded_trajectories(recorded, networks):
    """Nearer the more there are; without a face, all that the photos do is missing."""
    model, net = networks("mini")
    data, config = recorded.tensors(), json.loads(recorded.metadata["config"])
    features = make_features(net, data["in.ref"], data["in.neg"], place=golden_place(data))
    errors = {}
    for name, anchors in ANCHORS.items():
        final, *_ = drawn(model, replace(features, anchors=anchors), data, config)
        errors[name] = relative_error(final, data["out.z0"])
    nobody = replace(features, people=())
    final, *_ = drawn(model, nobody, data, config)
    without = relative_error(final, data["out.z0"])
    print({**errors, "without photos": without})
    assert errors["exact"] < STEP
    assert errors["exact"] < errors["9 anchors"] < errors["5 anchors"] < without / 4
