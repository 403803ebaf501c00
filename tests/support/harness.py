"""Small pieces of a ComfyUI run that several tests drive: one step, or a whole sampler."""

from dataclasses import dataclass, field

import comfy.patcher_extension
import comfy.samplers
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_pack.flashface_core.comfy_adapter.photo_encoder import content_hash
from flashface_pack.flashface_core.comfy_adapter.step import FLASHFACE
from flashface_pack.flashface_core.features import FaceFeatures, Person, ReferenceLatent
from flashface_pack.flashface_core.flashface.guidance import Guidance
from flashface_pack.flashface_core.people.place import Place

WrappersMP = comfy.patcher_extension.WrappersMP
OBSERVER = "test_observer"


def make_features(net, latents, context, weights=None, place=None) -> FaceFeatures:
    """FACE_FEATURES from reference latents (N, 4, h, w) that are already scaled."""
    weights = weights or [1.0] * len(latents)
    references = tuple(
        ReferenceLatent(latent[None], content_hash(latent), weight)
        for latent, weight in zip(latents, weights, strict=True)
        if weight > 0
    )
    return FaceFeatures(net, (Person(references, place),), context, content_hash(context))


def cond(tensor, **options):
    """CONDITIONING with one entry."""
    return [[tensor, options]]


@dataclass
class Seen:
    """What an observed MODEL did, in order."""

    eps: list[torch.Tensor] = field(default_factory=list)  # raw UNet outputs
    branches: list[list[int]] = field(default_factory=list)  # cond list of every chunk of rows
    denoised: list[torch.Tensor] = field(default_factory=list)  # after guidance, per step

    def rows(self, call: int = -1) -> dict[int, torch.Tensor]:
        """UNet output of one call by cond list: 0 positive, 1 negative, 2 y_ref."""
        chunks = self.eps[call].chunk(len(self.branches[call]))
        return dict(zip(self.branches[call], chunks, strict=True))


def looks_on(wrapper):
    """A wrapper that passes for one of the pack's own: it changes nothing, and the rows of other
    packs' wrappers are computed apart from ours."""
    wrapper.__module__ = apply_features.__module__
    return wrapper


def observe(model) -> tuple[object, Seen]:
    """A clone whose steps are recorded from outside of every other wrapper, for Apply to go on."""
    model, seen = model.clone(), Seen()

    def steps(executor, *args, **kwargs):
        result = executor(*args, **kwargs)
        seen.denoised.append(result.to("cpu", copy=True))
        return result

    def calls(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        result = executor(x, timesteps, context, y, control, transformer_options, **kwargs)
        seen.eps.append(result.to("cpu", torch.float32, copy=True))
        seen.branches.append(list(transformer_options["cond_or_uncond"]))
        return result

    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, OBSERVER, steps)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, OBSERVER, looks_on(calls))
    return model, seen


def sigma_of(model, timestep: int) -> torch.Tensor:
    """The noise level of a timestep, on the CPU: where tests make their noise."""
    return model.get_model_object("model_sampling").sigmas[timestep].cpu()


@torch.inference_mode()
def one_step(model, x, timestep: int, positive, negative, cfg: float) -> torch.Tensor:
    """The guided clean prediction for a network input x (variance preserving) at a timestep."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    sigma = sigma_of(model, timestep)
    result = {}

    def sample(wrapped, noise, sigmas, extra_args=None, callback=None, disable=None):
        noisy = (x * (1 + sigma**2) ** 0.5).to(noise.device)
        batch_sigma = sigma.expand(len(x)).to(noise.device)
        # Past KSAMPLER's inpainting layer, straight to the guider.
        options = {key: extra_args[key] for key in ("model_options", "seed")}
        result["x0"] = wrapped.inner_model(noisy, batch_sigma, **options)
        return noise

    guider.sample(
        torch.zeros_like(x), torch.zeros_like(x), comfy.samplers.KSAMPLER(sample), sigma.view(1)
    )
    return result["x0"].cpu()


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2."""
    got, expected = got.cpu().double(), expected.cpu().double()
    return float((got - expected).norm() / expected.norm())


__all__ = [
    "FLASHFACE",
    "Guidance",
    "Place",
    "Seen",
    "apply_features",
    "cond",
    "load_flashface",
    "looks_on",
    "make_features",
    "observe",
    "one_step",
    "relative_error",
    "sigma_of",
]
