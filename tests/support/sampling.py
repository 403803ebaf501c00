"""One step of any guider, seeded inputs, and the arithmetic of the face term written out again."""

from collections.abc import Callable

import comfy.samplers
import torch
from comfy_extras.nodes_custom_sampler import BasicGuider, CFGGuider

import nodes

from .harness import (
    FLASHFACE,
    Guidance,
    WrappersMP,
    apply_features,
    cond,
    looks_on,
    sigma_of,
)

CFG = 7.5
STRENGTH, POSITION, REGION = FLASHFACE.per_row
TOKENS, WIDTH = 77, 768


def noise(seed: int, batch: int = 1, height: int = 16, width: int = 16) -> torch.Tensor:
    """Standard normal latents; sample i does not depend on the size of the batch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, 4, height, width, generator=generator) for _ in range(batch)])


def prompt(seed: int, tokens: int = TOKENS, **options) -> list:
    """CONDITIONING with one random entry."""
    generator = torch.Generator().manual_seed(seed)
    return cond(torch.randn(1, tokens, WIDTH, generator=generator), **options)


POSITIVE, NEGATIVE = prompt(1), prompt(2)


def empty_latent(batch: int = 1, height: int = 16, width: int = 16) -> dict:
    return {"samples": torch.zeros(batch, 4, height, width)}


def ksampler(
    model,
    positive,
    negative,
    latent=None,
    seed: int = 1,
    steps: int = 2,
    cfg: float = CFG,
    denoise: float = 1.0,
    scheduler: str = "simple",
) -> torch.Tensor:
    """The ordinary KSampler node with euler."""
    latent = latent or empty_latent()
    (out,) = nodes.KSampler().sample(
        model, seed, steps, cfg, "euler", scheduler, positive, negative, latent, denoise
    )
    return out["samples"]


def noisy(model, x: torch.Tensor, timestep: int) -> torch.Tensor:
    """Pure noise at the spread of a timestep."""
    return x * (1 + sigma_of(model, timestep) ** 2) ** 0.5


def guided(guider, x: torch.Tensor, timestep: int, off_by: float = 1.0) -> torch.Tensor:
    """What a guider predicts for the noisy latents x at a timestep: one call of a sampler.

    off_by: factor on the noise level, for one that lies between two timesteps.
    Nodes that draw random numbers draw the same ones in every call.
    """
    torch.manual_seed(0)
    sigma = sigma_of(guider.model_patcher, timestep) * off_by
    result = {}

    def one_call(wrapped, noise, sigmas, extra_args=None, callback=None, disable=None):
        batch_sigma = sigma.expand(len(x)).to(noise.device)
        options = {key: extra_args[key] for key in ("model_options", "seed")}
        result["x0"] = wrapped.inner_model(x.to(noise.device), batch_sigma, **options)
        return noise

    zeros = torch.zeros_like(x)
    guider.sample(zeros, zeros, comfy.samplers.KSAMPLER(one_call), sigma.view(1))
    return result["x0"].cpu()


def basic(model, positive):
    return BasicGuider.execute(model, positive).args[0]


def classic(model, positive, negative, cfg: float = CFG):
    return CFGGuider.execute(model, positive, negative, cfg).args[0]


def everywhere(model, features, strength: float):
    """MODEL with every row at one strength, and nothing else."""
    settings = dict(feature_strength=strength, early_strength=strength, face_guidance=0)
    return apply_features(model, features, Guidance(**settings, guidance_rescale=0))


def place_only(model, features):
    """MODEL with the position channel of the features, and nothing else."""
    settings = dict(feature_strength=0, early_strength=0, face_guidance=1)
    return apply_features(model, features, Guidance(**settings, guidance_rescale=0))


def face_step(flashface, make: Callable, features, guidance, x, timestep, patch=None):
    """What one step has to give, from networks in which every row has the same strength.

    make: MODEL, positive, negative to a guider. patch: MODEL to MODEL, a node of core.
    Below launch: rescale(guider without face + f (y_ref - y)); above, all rows carry the face.
    """
    if timestep > guidance.launch_timestep:
        network = everywhere(flashface.model, features, guidance.early_strength)
    elif all(person.place is None for person in features.people):
        network = flashface.model
    else:
        network = place_only(flashface.model, features)
    patched = patch(network) if patch else network
    plain = guided(make(patched, flashface.positive, flashface.negative), x, timestep)
    y = guided(basic(network, flashface.positive), x, timestep)
    if timestep > guidance.launch_timestep:
        return add_face(x, plain, y, None, guidance)
    strong = everywhere(flashface.model, features, guidance.feature_strength)
    y_ref = guided(basic(strong, flashface.positive), x, timestep)
    return add_face(x, plain, y, y_ref, guidance)


def euler(model, predict: Callable, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Euler's method over predict(x, timestep), in the sampler's units."""
    sampling = model.get_model_object("model_sampling")
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = predict(x, int(sampling.timestep(sigma)))
        x = x + (x - denoised) / sigma * (following - sigma)
    return x


def add_face(x, plain, y, y_ref, guidance: Guidance) -> torch.Tensor:
    """plain + f (y_ref - y), then the spread of the noise pulled to that of y, per sample."""
    out = []
    for i in range(len(x)):
        eps = x[i] - plain[i]
        if y_ref is not None:
            eps = eps + guidance.face_guidance * (y[i] - y_ref[i])
        r = guidance.guidance_rescale
        factor = r * float((x[i] - y[i]).std()) / float(eps.std()) + 1 - r
        out.append(x[i] - factor * eps)
    return torch.stack(out)


def watch_rows(model, key: str = "test_rows") -> tuple[object, list[dict]]:
    """A clone, and what comes into its UNet calls: cond lists, batch, timestep, row data."""
    model, calls, brought = model.clone(), [], {}

    def bring(executor, *args, **kwargs):
        brought.clear()
        brought.update({n: _kept(kwargs[n]) for n in FLASHFACE.per_row if n in kwargs})
        return executor(*args, **kwargs)

    def watch(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        branches = list(transformer_options["cond_or_uncond"])
        calls.append(
            dict(branches=branches, rows=len(x), x=_kept(x), timestep=float(timesteps[0]))
            | {name: _kept(value) for name, value in kwargs.items()}
            | brought
        )
        return executor(x, timesteps, context, y, control, transformer_options, **kwargs)

    # Outside of FlashFaceApply's, which takes the row data out.
    kind = WrappersMP.APPLY_MODEL
    model.wrappers[kind] = {key: [looks_on(bring)], **model.wrappers.get(kind, {})}
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, looks_on(watch))
    return model, calls


def _kept(value):
    """A copy of a tensor on the CPU, whatever is done to it later."""
    return value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def count_rows(run: Callable, model, *args) -> int:
    """UNet rows of run(model, ...)."""
    model, calls = watch_rows(model)
    run(model, *args)
    return sum(call["rows"] for call in calls)


class Counter:
    """Counts the forward passes of a module while it is open, or the rows that pass it."""

    def __init__(self, module: torch.nn.Module, of_rows: bool = False) -> None:
        self.module, self.of_rows, self.count = module, of_rows, 0

    def __enter__(self) -> "Counter":
        def counted(_module, inputs, _output) -> None:
            self.count += len(inputs[0]) if self.of_rows else 1

        self._hook = self.module.register_forward_hook(counted)
        return self

    def __exit__(self, *_) -> None:
        self._hook.remove()


def reference_passes(net) -> Counter:
    """Photos through the ReferenceNet, counted at its first convolution."""
    return Counter(net.network.unet.input_blocks[0][0], of_rows=True)
