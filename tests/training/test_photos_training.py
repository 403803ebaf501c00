"""Prepared photographs to latents, to the trainer, to a checkpoint that the nodes load."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.harness import load_flashface
from support.tools import ROOT

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")
pytest.importorskip("webdataset", reason="preparing photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

from photographs import SIZES, prepared
from support.photographs import add, astronaut, cameraman, different, make_shard

from flashface_core.errors import FlashFaceError
from flashface_core.faces.detect import MtcnnDetector
from training import train
from training.batches import Sampling, draw_batch
from training.command_line import STOPPED
from training.initial import fresh_checkpoint
from training.networks import FlashFaceNetworks
from training.photos import encode
from training.photos.dataset import INDEX, PeopleInShards, people_in_folder
from training.tiny.text import ToyText


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_people_in_shards_are_the_photographs_encoded(data, source, vae):
    people = PeopleInShards(data)
    assert people.names == ["anna", "carl"]
    assert [people.count(person) for person in range(2)] == [3, 3]
    in_memory = people_in_folder(source, MtcnnDetector(), encode.load_encoder(vae), SIZES)
    for person in range(2):
        for index in range(3):
            got, expected = (p.picture(person, index) for p in (people, in_memory))
            assert got.caption == expected.caption == f"{people.names[person]} as {'abc'[index]}"
            assert got.box == pytest.approx(expected.box, abs=1e-6)
            assert got.latent.shape == (4, 16, 16) and got.reference.shape == (4, 8, 8)
            # Faces are stored without loss, pictures as JPEG.
            torch.testing.assert_close(got.reference.float(), expected.reference, rtol=0, atol=0.02)
            error = (got.latent - expected.latent).abs().mean() / expected.latent.abs().mean()
            assert error < 0.05


def test_photographs_in_memory_tell_what_is_left_out(vae, tmp_path, caplog):
    make_shard(tmp_path / "0.tar", {"anna": different(astronaut())})
    make_shard(tmp_path / "1.tar", {"carl": different(cameraman())}, cut=12_000)
    add(tmp_path, "anna/broken.png", b"no picture")
    with caplog.at_level("INFO"):
        people = people_in_folder(tmp_path, MtcnnDetector(), encode.load_encoder(vae), SIZES)
    assert [people.count(person) for person in range(len(people))] == [3, 2]
    assert "1.tar is left out: " in caplog.text
    assert "anna/broken.png is left out: " in caplog.text


def test_samples_from_shards_follow_from_seed_step_and_group(data):
    first, again = (
        draw_batch(PeopleInShards(data), Sampling(targets_per_group=2), 1, 7, range(3))
        for _ in range(2)
    )
    assert torch.equal(first.latents, again.latents) and first.captions == again.captions
    assert torch.equal(first.references.latents, again.references.latents)


def test_an_interrupted_encoding_goes_on_and_ends_in_the_same_bytes(
    data, source, vae, tmp_path, monkeypatch
):
    out = prepared(source, tmp_path / "out")
    with pytest.raises(FlashFaceError, match=f"holds no {INDEX}; run .*photos.encode"):
        PeopleInShards(out)
    calls = []

    def interrupted(data: bytes):
        calls.append(data)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return pixels(data)

    pixels = encode._pixels
    monkeypatch.setattr(encode, "_pixels", interrupted)
    arguments = [str(out), "--vae", str(vae), "--cpu"]
    with pytest.raises(SystemExit) as stopped:
        encode.main(arguments)
    assert stopped.value.code == STOPPED
    assert len(list(out.glob("latents-*.tar"))) == 1 and not (out / INDEX).exists()
    encode.main(arguments)
    assert files(out) == files(data)


def test_latents_of_another_vae_or_damaged_shards_are_an_error(data, source, vae, tmp_path):
    with pytest.raises(FlashFaceError, match="made by another VAE"):
        encode.encode_folder(data, encode.load_encoder(vae), "another")
    with pytest.raises(FlashFaceError, match="holds no finished photographs; run"):
        encode.encode_folder(source, encode.load_encoder(vae), "")
    out = prepared(source, tmp_path / "out")
    shard = out / "photos-00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000])
    with pytest.raises(FlashFaceError, match="photos-00001.tar is damaged .* run prepare again"):
        encode.encode_folder(out, encode.load_encoder(vae), "")
    shard.unlink()
    prepared(source, out)
    assert shard.read_bytes() == whole
    encode.encode_folder(out, encode.load_encoder(vae), "")
    latents = out / "latents-00000.tar"
    latents.write_bytes(latents.read_bytes()[:-512])
    with pytest.raises(FlashFaceError, match="latents-00000.tar is missing or has changed"):
        PeopleInShards(out)


def test_a_file_that_is_no_vae_is_an_error(weights):
    with pytest.raises(FlashFaceError, match="fresh.safetensors is not an SD1.5 VAE"):
        encode.load_encoder(weights)


def test_captions_are_cut_to_77_tokens_and_parentheses_are_text(clip, vae):
    encode_text = train.load_text_encoder(clip)
    texts = ["", "anna as a", "a red hat " * 60]
    embeddings = encode_text(texts)
    assert embeddings.shape == (3, 77, 768)
    torch.testing.assert_close(embeddings[:2], ToyText()(texts[:2]), rtol=0.02, atol=0.02)
    plain, weighted = encode_text(["hat:1.5", "(hat:1.5)"])
    assert not torch.allclose(plain[2:5], weighted[2:5], atol=0.1)
    with pytest.raises(FlashFaceError, match="vae.safetensors is not CLIP-L"):
        train.load_text_encoder(vae)


def arguments(data, weights, clip, out, *more) -> list[str]:
    options = ["--data", data, "--checkpoint", weights, "--clip", clip, "--out", out]
    recipe = "--steps 2 --groups 2 --log-every 1 --warmup-steps 1 --min-snr-gamma 5"
    recipe += " --targets-per-group 2 --favoured 300 900 0.5 --no-gradient-checkpointing"
    return [*map(str, options), *recipe.split(), *map(str, more)]


def losses(folder: Path) -> list[float]:
    with open(folder / "losses.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(data, weights, clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train.main(arguments(data, weights, clip, out, "--dtype", "fp16"))
    return out


def test_two_steps_of_training_give_a_checkpoint_that_the_nodes_load(trained, weights):
    assert len(losses(trained)) == 2 and all(np.isfinite(losses(trained)))
    recipe = json.loads((trained / "recipe.json").read_text())
    assert recipe["steps"] == 2 and recipe["sampling"]["favoured"] == [300, 900, 0.5]
    model, net = load_flashface(trained / "flashface.safetensors", "fp32")
    assert (net.reference_size, net.picture_size) == (64, 128)
    before, _ = load_flashface(weights, "fp32")
    assert any(
        not torch.equal(value, before.model.diffusion_model.state_dict()[key].half().float())
        for key, value in model.model.diffusion_model.state_dict().items()
    )


def test_a_run_goes_on_with_its_own_people_and_is_published_when_it_is_done(
    data, weights, clip, trained
):
    again = arguments(data, weights, clip, trained)
    with pytest.raises(SystemExit, match="a run whose held out is 0, and now it is 1; begin in"):
        train.main([*again, "--held-out", "1"])
    path = trained / "flashface.safetensors"
    before = path.read_bytes()
    path.unlink()
    train.main([*again, "--dtype", "fp16"])
    assert path.read_bytes() == before and len(losses(trained)) == 2


def test_a_few_photographs_train_without_being_prepared(source, weights, clip, vae, tmp_path):
    with pytest.raises(SystemExit, match="not made by training.photos.prepare; .* or give --vae"):
        train.main(arguments(source, weights, clip, tmp_path))
    more = ("--vae", vae, "--detector", "mtcnn", "--train", "reference_attention")
    train.main(arguments(source, weights, clip, tmp_path / "out", *more))
    assert (tmp_path / "out" / "flashface.safetensors").is_file()


def test_faces_of_another_size_than_the_networks_are_an_error(data, weights, clip, tmp_path):
    state, _ = train.read_state_dict(weights)
    path = tmp_path / "other.safetensors"
    save_file(state, path, metadata={"num_heads": "1", "reference_size": "224"})
    with pytest.raises(SystemExit, match="faces in .* are of 64 pixels, other.safetensors takes"):
        train.main(arguments(data, path, clip, tmp_path / "out"))


def test_groups_that_the_processes_cannot_share_are_one_sentence(data, weights, clip, tmp_path):
    with pytest.raises(SystemExit, match="2 groups cannot be shared by 1 processes in 3 parts"):
        train.main(arguments(data, weights, clip, tmp_path, "--accumulate", 3))


def test_sd15_starts_with_copies_of_its_own_parts(tmp_path):
    unet = fresh_checkpoint("unet", width=64, heads=8).target
    path = tmp_path / "sd15.safetensors"
    save_file({f"model.diffusion_model.{key}": v.half() for key, v in unet.items()}, path)
    networks = FlashFaceNetworks(train.load_start(path))
    target = networks.target
    attention = target.middle_block[1].transformer_blocks[0].attn1
    copied = networks.network.attention_at(("middle", 0, 0))
    assert torch.equal(attention.to_q.weight, copied.q.weight)
    assert not networks.network.position.weight.any()
    own, reference = target.input_blocks[1][0], networks.network.unet.input_blocks[1][0]
    assert own is not reference
    assert torch.equal(own.in_layers[2].weight, reference.in_layers[2].weight)
    unet["input_blocks.0.0.weight"] = torch.zeros(64, 9, 3, 3)
    with pytest.raises(FlashFaceError, match="not an SD1.5 checkpoint: .*expected four input"):
        train.from_sd15("inpainting", unet)


@pytest.mark.slow
def test_accelerate_launches_the_same_command(trained, data, weights, clip, tmp_path):
    launch = "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch.split(),
               "--main_process_port", "0", "-m", "training.train"]  # fmt: skip
    done = subprocess.run(
        [*command, *arguments(data, weights, clip, tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=1e-3)
