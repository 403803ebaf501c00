"""FlashFaceTinyModels in core's own graphs.

How well they were trained is not tested here: effects may be small, but computations of the same
shape with the same input give the same bits, so any difference comes from what was changed.
"""

import shutil
import sys

import comfy.model_management
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface import tiny
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from support.harness import Guidance, apply_features, relative_error
from support.photos import identity, photos, placed
from support.sampling import empty_latent, ksampler
from support.snapshot import differences, snapshot
from support.tools import ROOT

import nodes

PROMPT = "a portrait of a child, smiling, wearing a red sweater, in a forest, flat colours"
GUIDANCE = Guidance(launch_timestep=1000)


class Tiny:
    """The node's four outputs, and core's nodes behind them."""

    def __init__(self) -> None:
        self.model, self.net, self.clip, self.vae = FlashFaceTinyModels.execute().args
        self.positive, self.negative = self.text(PROMPT), self.text("")

    def text(self, words: str):
        return nodes.CLIPTextEncode().encode(self.clip, words)[0]

    def with_face(self, seed: int = 0):
        """MODEL that draws a person whose photos are noise."""
        person = placed(identity(photos(4, seed)))
        features = self.net.encode(person, self.vae, self.negative)
        return apply_features(self.model, features, GUIDANCE)

    def sample(self, model, latent=None, steps: int = 2, cfg: float = 3.0, positive=None):
        return ksampler(
            model, positive or self.positive, self.negative, latent, steps=steps, cfg=cfg
        )

    def decode(self, samples) -> torch.Tensor:
        return nodes.VAEDecode().decode(self.vae, {"samples": samples})[0]


@pytest.fixture(scope="module")
def models() -> Tiny:
    with torch.inference_mode():
        return Tiny()


def test_cores_nodes_make_a_picture_that_the_prompt_changes(models):
    samples = models.sample(models.model)
    picture = models.decode(samples)
    assert picture.shape == (1, 128, 128, 3)
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.05
    other = models.sample(models.model, positive=models.text("a portrait of an elder, sad"))
    assert not torch.equal(other, samples)


def test_the_vae_takes_a_picture_there_and_back(models):
    picture = torch.full((1, 64, 64, 3), 0.2)
    picture[:, :, 32:] = 0.8
    (latent,) = nodes.VAEEncode().encode(models.vae, picture)
    assert latent["samples"].shape == (1, 4, 8, 8)
    again = models.decode(latent["samples"])
    assert again[:, :, 32:].mean() > again[:, :, :32].mean() + 0.2


def test_the_face_changes_the_picture_and_a_bypass_leaves_the_plain_model(models):
    before, state = models.sample(models.model), snapshot(models.model)
    one, again, other = (models.sample(models.with_face(seed)) for seed in (0, 0, 1))
    assert torch.equal(again, one)
    assert not torch.equal(other, one)
    assert not torch.equal(one, before)
    assert differences(state, snapshot(models.model)) == []
    assert torch.equal(models.sample(models.model), before)


@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_odd_sizes_batches_and_cfg_1(models, cfg):
    latent = empty_latent(3, 17, 15)
    samples, other = (models.sample(models.with_face(seed), latent, cfg=cfg) for seed in (0, 1))
    assert samples.shape == (3, 4, 17, 15) and samples.isfinite().all()
    assert relative_error(samples[1], samples[0]) > 0.1
    assert not torch.equal(other, samples)
    assert models.decode(samples).shape == (3, 136, 120, 3)


@pytest.mark.parametrize("name", [tiny.FLASHFACE, tiny.VAE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "a note in its place"])
def test_a_damaged_installation_is_told_in_one_sentence(tmp_path, monkeypatch, name, damage):
    folder = tmp_path / "tiny_models"
    shutil.copytree(tiny.FOLDER, folder)
    monkeypatch.setattr(tiny, "FOLDER", folder)
    file = folder / name
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    else:  # as version control leaves, where large files are kept apart
        file.write_text("version 1\nsize 18715888\n")
    with pytest.raises(FlashFaceError, match=rf"{name}.*again\.") as caught:
        FlashFaceTinyModels.execute()
    assert "\n" not in str(caught.value)


def test_clip_is_the_text_encoder_of_the_training(models, monkeypatch):
    # Last: the pack's own nodes/ must not hide ComfyUI's nodes module.
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from toy_world.scenes import Scenes, captions
    from training.tiny.text import ToyText

    told = ["", *captions(Scenes.draw_from(0, "test", 3))]
    got = torch.cat([models.text(text)[0][0] for text in told])
    torch.testing.assert_close(got.float(), ToyText()(told), rtol=1e-3, atol=1e-3)


def test_two_loads_share_nothing_that_one_could_change(models):
    expected = models.decode(models.sample(models.with_face()))
    second = Tiny()
    parts = (
        second.model.model,
        second.net.network,
        second.clip.cond_stage_model,
        second.vae.first_stage_model,
    )
    for part in parts:
        for parameter in part.parameters():
            parameter.zero_()
    comfy.model_management.unload_all_models()
    again = Tiny.__new__(Tiny)
    again.__dict__.update(models.__dict__)
    again.positive = models.text(PROMPT)
    assert torch.equal(models.decode(models.sample(again.with_face())), expected)
    assert torch.equal(again.positive[0][0], models.positive[0][0])
