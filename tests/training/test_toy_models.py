"""Fresh networks, the text encoder made by rule, and drawn people as the trainer reads them."""

import comfy.sd
import pytest
import torch
from people import encode_text, random_people
from safetensors.torch import save_file
from support.harness import load_flashface

from flashface_core.comfy_adapter.flashface.tiny import load_tiny_clip, load_vae
from flashface_core.flashface.checkpoint import published_state_dict, read_checkpoint
from flashface_core.tiny_text import clip_state_dict
from flashface_core.weights_file import read_state_dict
from toy_world.draw import draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.initial import fresh_checkpoint
from training.networks import FlashFaceNetworks, References
from training.paired import paired_losses
from training.publish import publish
from training.tiny.autoencoder import (
    SlimAutoencoder,
    load_autoencoder,
    reconstruct,
    save_autoencoder,
)
from training.tiny.autoencoder import train as train_autoencoder
from training.tiny.encode import encode_people, join_people
from training.tiny.text import ToyText


def test_the_text_encoder_is_cores_clip_with_weights_made_by_rule():
    clip = comfy.sd.load_text_encoder_state_dicts(
        [clip_state_dict()], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
    )
    texts = ["", *captions(Scenes.draw_from(0, "test", 3))]
    expected = torch.cat([clip.encode_from_tokens(clip.tokenize(text)) for text in texts])
    made = ToyText()(texts)
    torch.testing.assert_close(made, expected.float(), rtol=2e-3, atol=2e-3)


def test_two_layers_give_what_twelve_do():
    whole, short = load_tiny_clip(), load_tiny_clip(layers=2)
    assert len(short.cond_stage_model.clip_l.transformer.text_model.encoder.layers) == 2
    tokens = whole.tokenize("an elder, (smiling:1.2), in a library")
    assert torch.equal(short.encode_from_tokens(tokens), whole.encode_from_tokens(tokens))


def test_a_caption_longer_than_clip_takes_is_an_error():
    with pytest.raises(ValueError, match="longer than one chunk"):
        ToyText()(["face " * 80])


@pytest.mark.parametrize(
    ("multipliers", "blocks", "sites"), [((1, 2), 1, 5), ((1, 2, 4), 2, 10), ((1,), 1, 3)]
)
def test_fresh_networks_of_any_depth_are_whole_checkpoints(tmp_path, multipliers, blocks, sites):
    fresh = fresh_checkpoint("fresh", 32, multipliers, blocks, heads=1)
    path = tmp_path / "fresh.safetensors"
    state = {key: value.contiguous() for key, value in published_state_dict(fresh).items()}
    sizes = {"num_heads": "1", "reference_size": "64", "picture_size": "128"}
    save_file(state, path, metadata=sizes)
    model, net = load_flashface(path, "fp32")
    assert len(net.network.sites) == sites
    assert net.reference_size == 64
    attention = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1
    copied = net.network.attention_at(("middle", 0, 0))
    assert torch.equal(attention.to_q.weight, copied.q.weight)
    assert torch.equal(attention.to_out[0].bias, copied.o.bias)
    assert read_checkpoint("again", state, sizes).heads == 1


def test_fresh_networks_predict_nothing_and_every_tensor_but_the_ends_has_values():
    networks = FlashFaceNetworks(fresh_checkpoint("fresh"))
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    references = References(torch.randn(1, 4, 8, 8), t[:1], torch.zeros(1, 4).long(), [0])
    with torch.no_grad():
        predicted = networks.predict(
            x, t, torch.randn(2, 77, 768), torch.randn(1, 77, 768), references, None
        )
    assert not predicted.any()
    empty = [name for name, p in networks.target.named_parameters() if p.ndim > 1 and not p.any()]
    assert all(
        name.endswith(("out_layers.3.weight", "proj_out.weight", "out.2.weight")) for name in empty
    )
    other = fresh_checkpoint("other", seed=1).target["input_blocks.0.0.weight"]
    assert not torch.equal(networks.target.input_blocks[0][0].weight, other)


@pytest.fixture
def autoencoder():
    """With values in every layer: the residual blocks of a fresh one begin as the identity."""
    torch.manual_seed(0)
    model = SlimAutoencoder().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.02
    return model


def test_encoded_people_are_those_drawn(autoencoder):
    shares = [
        encode_people(autoencoder, 5, "train", first, count=2, scenes_each=12) for first in (0, 2)
    ]
    people = join_people(5, "train", shares)
    assert len(people) == 4 and people.count(0) == 12
    picture = people.picture(2, 11)  # row 35: in the second share
    drawn, boxes = draw(People.draw_from(5, "train", [2]), Scenes.draw_from(5, "train", [35]))
    with torch.no_grad():
        (latent,) = autoencoder.taesd_encoder(drawn)
        (reference,) = autoencoder.taesd_encoder(face_crop(drawn, boxes))
    # Kept in half precision.
    torch.testing.assert_close(picture.latent.float(), latent, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(picture.reference.float(), reference, rtol=2e-3, atol=2e-3)
    assert picture.caption == captions(Scenes.draw_from(5, "train", [35]))[0]
    assert picture.box == pytest.approx(boxes[0].tolist(), abs=1e-5)


def test_a_killed_vae_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, caplog):
    whole = train_autoencoder(5, 0, batch=1)
    kept = tmp_path / "vae.pt"
    monkeypatch.setattr("training.tiny.autoencoder.KEEP_EVERY", 3)
    train_autoencoder(5, 0, batch=1, kept=kept)  # what it keeps is step 3
    caplog.set_level("INFO")
    again = train_autoencoder(5, 0, batch=1, kept=kept)
    assert "goes on from step 3" in caplog.text
    fresh = train_autoencoder(3, 0, batch=1)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-3, atol=1e-5)
    name = "taesd_decoder.1.weight"
    assert not torch.allclose(fresh.state_dict()[name], whole.state_dict()[name], atol=1e-5)


def test_the_slim_autoencoder_is_the_vae_that_core_loads(autoencoder, tmp_path):
    path = tmp_path / "vae.safetensors"
    save_autoencoder(autoencoder, path)
    halves = load_autoencoder(path)
    pictures = torch.rand(1, 32, 40, 3)
    vae = load_vae(path)
    with torch.no_grad():
        decoded, latents = reconstruct(halves, pictures.movedim(-1, 1))
        full, _ = reconstruct(autoencoder, pictures.movedim(-1, 1))
    torch.testing.assert_close(decoded, full, rtol=0.02, atol=0.02)
    scaled = vae.encode(pictures) * 0.18215
    torch.testing.assert_close(scaled, latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        vae.decode(scaled / 0.18215).movedim(-1, 1), decoded.clamp(0, 1), rtol=1e-3, atol=1e-3
    )


def test_a_fresh_autoencoder_begins_with_mean_colours():
    torch.manual_seed(0)
    pictures, _ = draw(People.draw_from(0, "test", 4), Scenes.draw_from(0, "test", 4))
    with torch.no_grad():
        decoded, latents = reconstruct(SlimAutoencoder().eval(), pictures)
    means = torch.nn.functional.avg_pool2d(pictures, 8)
    torch.testing.assert_close(latents[:, :3], means * 4 - 2, rtol=0, atol=1e-4)
    assert (decoded - pictures).square().mean() < pictures.var() / 2


def test_references_help_in_a_paired_loss_where_they_tell_something():
    """A network that reads its references: those of the person, of nobody and of somebody else."""
    networks = FlashFaceNetworks(fresh_checkpoint("fresh", 32, (1,), heads=1))
    people, text = random_people(count=3), encode_text
    before = paired_losses(networks, people, text, count=6)
    assert before.own == before.none == before.other  # fresh networks predict nothing
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter += torch.randn_like(parameter) * 0.05
    own, none, other = paired_losses(networks, people, text, count=6)
    assert len({own, none, other}) == 3
    assert paired_losses(networks, people, text, count=6) == (own, none, other)
    assert networks.training


def test_published_networks_load_as_they_are(tmp_path):
    networks = FlashFaceNetworks(fresh_checkpoint("fresh", 32, (1, 2), heads=1))
    path = tmp_path / "published.safetensors"
    publish(networks, path)
    _, net = load_flashface(path, "fp32")
    assert (net.reference_size, net.picture_size) == (64, 128)
    again = read_checkpoint("again", *read_state_dict(path))
    for key, value in networks.published_state_dict().items():
        torch.testing.assert_close(
            published_state_dict(again)[key].float(), value, atol=1e-3, rtol=1e-3
        )
