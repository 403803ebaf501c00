"""The computations that are compared: plain, as the official code does it, and ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from comfyui_version import __version__

from flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_core.comfy_adapter.flashface.reference_net import ReferenceNet, cache_bytes
from flashface_core.comfy_adapter.photo_encoder import content_hash
from flashface_core.features import FaceFeatures, FeatureCache, Person, ReferenceLatent
from flashface_core.flashface.guidance import Guidance
from flashface_core.people.place import Place
from tools.rule_weights import write_rule_checkpoint

from .naive import naive_rows
from .timing import BASES, MIB, Case, machine, timed

BELOW, ABOVE = 501, 901  # timesteps, of launch
GUIDANCE = Guidance()  # of the node
LEFT, RIGHT = Place((0, 0, 0.5, 1), inside_region=True), Place((0.5, 0, 0.5, 1), inside_region=True)


@dataclass
class StepCase:
    """rows: of the plain UNet that it is measured by. passes: photos that went through the
    ReferenceNet in its last run."""

    timing: Case
    rows: int
    passes: int = 0


def load(checkpoint: Path | None, topology: str, dtype: str, folder: Path) -> "Bench":
    if checkpoint is None:
        checkpoint = folder / f"{topology}.safetensors"
        write_rule_checkpoint(checkpoint, topology)
    return Bench(*load_flashface(checkpoint, dtype), dtype)


class Bench:
    def __init__(self, model, net: ReferenceNet, dtype: str) -> None:
        self.model, self.net, self.dtype = model, net, dtype
        self.device: torch.device = model.load_device
        self.passed = 0  # photos through the ReferenceNet
        net.network.unet.input_blocks[0][0].register_forward_hook(self._pass)
        self.positive, self.negative = ([[_random((1, 77, 768), seed), {}]] for seed in (1, 2))

    def _pass(self, _module, inputs, _output) -> None:
        self.passed += len(inputs[0])

    def machine(self) -> dict[str, str]:
        return {"ComfyUI": __version__, **machine(self.device), "dtype": self.dtype}

    def features(self, photos: int, *places: Place | None) -> FaceFeatures:
        """Of one person for every place."""
        side = self.net.reference_size // 8
        people = []
        for number, place in enumerate(places):
            latents = _random((photos, 4, side, side), 10 + number).split(1)
            references = (ReferenceLatent(one, content_hash(one), 1.0) for one in latents)
            people.append(Person(tuple(references), place))
        context = self.negative[0][0]
        return FaceFeatures(self.net, tuple(people), context, content_hash(context))

    def cache_mib(self, photos: int) -> float:
        """Keys and values of one person at one timestep."""
        self.net.cache = FeatureCache(cache_bytes())
        self.net.step_references(self.features(photos, None), BELOW, self.device)
        return self.net.cache.bytes / MIB

    def cases(self, size: tuple[int, int], photos: int) -> dict[str, StepCase]:
        comfy.model_management.load_models_gpu([self.model, self.net.patcher])
        one = self.features(photos, None)
        placed = self.features(photos, Place((0.3, 0.1, 0.4, 0.4)))
        halves = self.features(photos, LEFT, RIGHT)
        both = self.features(photos, None, None)
        found = {name: StepCase(self._plain(size, rows), rows) for rows, name in BASES.items()}
        found["loader's MODEL without Apply"] = StepCase(self._step(self.model, size, BELOW), 2)
        found["official way, below launch"] = StepCase(self._naive(size, one), 3)
        for name, features, timestep, rows in (
            ("below launch", one, BELOW, 3),
            ("below launch, a place as a hint", placed, BELOW, 3),
            ("below launch, two people in halves", halves, BELOW, 3),
            ("below launch, two people anywhere", both, BELOW, 3),
            ("above launch", one, ABOVE, 2),
        ):
            applied = apply_features(self.model, features, GUIDANCE)

            def remember(features=features, timestep=timestep) -> None:
                self.net.step_references(features, float(timestep), self.device)

            cached = self._step(applied, size, timestep, remember)
            found[f"{name}, cached"] = StepCase(cached, rows)
            if features is one:
                first = self._step(applied, size, timestep, self._forget)
                found[f"{name}, first run"] = StepCase(first, rows)
        for case in found.values():
            self._count_passes(case)
        return found

    def _count_passes(self, case: StepCase) -> None:
        run = case.timing.run

        def counted() -> float:
            before = self.passed
            seconds = run()
            case.passes = self.passed - before
            return seconds

        case.timing.run = counted

    def _plain(self, size: tuple[int, int], rows: int) -> Case:
        dtype = self.net.compute_dtype
        unet = self.model.model.diffusion_model
        x = _random((rows, 4, *size), 3).to(self.device, dtype)
        context = _random((rows, 77, 768), 4).to(self.device, dtype)
        timesteps = torch.full((rows,), float(BELOW), device=self.device)
        return self._timed(lambda: unet(x, timesteps, context=context))

    def _naive(self, size: tuple[int, int], features: FaceFeatures) -> Case:
        dtype = self.net.compute_dtype
        (person,) = features.people
        photos = torch.cat([reference.latent for reference in person.references])
        inputs = [
            tensor.to(self.device, dtype)
            for tensor in (photos, features.context, _random((3, 4, *size), 3))
        ]
        context = _random((3, 77, 768), 4).to(self.device, dtype)
        network, unet = self.net.network, self.model.model.diffusion_model
        strengths = (GUIDANCE.feature_strength, 0.0, 0.0)
        return self._timed(
            lambda: naive_rows(unet, network, *inputs, float(BELOW), context, strengths)
        )

    def _timed(self, work: Callable[[], Any]) -> Case:
        return Case(lambda: timed(work, self.device))

    def _step(self, model, size: tuple[int, int], timestep: int, before=None) -> Case:
        """One call of the guider, as a sampler makes it; what is around a run is not timed."""
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(7.5)
        sigma = model.get_model_object("model_sampling").sigmas[timestep].cpu()
        x = _random((1, 4, *size), 3) * (1 + sigma**2) ** 0.5
        seconds = []

        def one_call(wrapped, noise, sigmas, extra_args=None, callback=None, disable=None):
            options = {key: extra_args[key] for key in ("model_options", "seed")}
            inputs = x.to(noise.device), sigma.expand(1).to(noise.device)
            seconds.append(timed(lambda: wrapped.inner_model(*inputs, **options), self.device))
            return noise

        def run() -> float:
            zeros = torch.zeros_like(x)
            guider.sample(zeros, zeros, comfy.samplers.KSAMPLER(one_call), sigma.view(1))
            return seconds.pop()

        return Case(run) if before is None else Case(run, before)

    def _forget(self) -> None:
        self.net.cache = FeatureCache(cache_bytes())


def _random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
