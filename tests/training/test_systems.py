"""Face2Diffusion, FaceStudio and Face Fusion learn, and what is saved is what was trained."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE, FOLDER, load_tiny_clip
from flashface_core.face2diffusion.files import load_mapping
from flashface_core.flashface.checkpoint import read_checkpoint
from flashface_core.weights_file import read_state_dict
from training.batches import Sampling, draw_batch
from training.data import PeopleInMemory
from training.diffusion import add_noise
from training.face2diffusion import CLASS_PROMPT, FACE, Face2DiffusionNetworks
from training.face2diffusion import EXPRESSION_SEEN as EXPRESSION
from training.face_fusion import FaceFusionNetworks
from training.facestudio import (
    DROP_FACE,
    LINEAR,
    OTHER_PICTURES,
    STYLE,
    TOLD,
    TOLD_PEOPLE,
    TRANSFORMERS,
    WHOLE,
    WHOLE_PEOPLE,
    FaceStudioNetworks,
)
from training.facestudio import FACE as UNIT_FACE
from training.tiny.text import ToyText
from training.trainer import Recipe, Trainer

FACE_WIDTH, EXPRESSION_WIDTH, STYLE_WIDTH = 12, 4, 10
SYSTEMS = ("face2diffusion", "facestudio", "face_fusion")
RATES = {"face2diffusion": 1e-2, "facestudio": 1e-3, "face_fusion": 3e-3}


@pytest.fixture(scope="module")
def start():
    return read_checkpoint("tiny", *read_state_dict(FOLDER / FLASHFACE))


@pytest.fixture(scope="module")
def text():
    return ToyText()


@pytest.fixture
def people():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(6, *shape, generator=generator)

    seen = {
        FACE: random(FACE_WIDTH),
        EXPRESSION: random(EXPRESSION_WIDTH),
        UNIT_FACE: random(FACE_WIDTH),
        STYLE: random(STYLE_WIDTH),
    }
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(6, 4)
    told = [f"a portrait, number {i}" for i in range(6)]
    return PeopleInMemory(
        random(4, 16, 16), random(4, 8, 8), boxes, told, [[0, 1, 2], [3, 4, 5]], seen
    )


def make(system, start, text, class_guided=True):
    torch.manual_seed(0)
    if system == "face2diffusion":
        return Face2DiffusionNetworks(start, text, FACE_WIDTH, 32, EXPRESSION_WIDTH, class_guided)
    if system == "facestudio":
        return FaceStudioNetworks(start, STYLE_WIDTH, FACE_WIDTH)
    return FaceFusionNetworks(start)


def a_step(networks, people, text, **sampling):
    """A batch, noisy latents and texts, as the trainer hands them on."""
    options = {"drop_references": 0.0, "drop_text": 0.0, "drop_both": 0.0, **sampling}
    batch = draw_batch(people, Sampling(**options), 0, 0, range(2))
    told = networks.texts(batch)
    noisy = add_noise(batch.latents, batch.noise, batch.timesteps)
    return batch, noisy, text(told) if told else torch.empty(0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_only_what_belongs_to_the_system_learns_and_all_of_it(system, start, text, people):
    networks = make(system, start, text)
    networks.freeze_all_but(networks.parts)
    # Without a text to take all of an attention, so that gradients come from the photos everywhere.
    given = {"drop_text": 1.0} if system == "face_fusion" else {}
    predicted, target = networks(*a_step(networks, people, text, **given))
    (predicted - target).square().mean().backward()
    learning = {name for name, p in networks.named_parameters() if p.requires_grad}
    reached = {n for n, p in networks.named_parameters() if p.grad is not None and p.grad.any()}
    own = {"face2diffusion": "mapping.", "facestudio": ("linear.", "unet."), "face_fusion": "proj"}
    assert learning and all(name.startswith(own[system]) for name in learning)
    # The learned vector stands in for an expression in a fifth of the samples, perhaps in none.
    assert learning - reached <= {"mapping.null_exp"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_loss_falls_on_a_few_pictures(system, start, text, people, tmp_path):
    networks = make(system, start, text)
    told = dict(drop_references=0, drop_text=0, drop_both=0, favoured=(500, 501, 1.0))
    recipe = Recipe(
        steps=30,
        groups=2,
        learning_rate=RATES[system],
        warmup_steps=1,
        train=networks.parts,
        ema=0,
        save_every=30,
        sampling=Sampling(**told),
    )

    @torch.no_grad()
    def loss() -> float:
        """With the same noise, before and after."""
        predicted, target = networks(*a_step(networks, people, text, **told))
        return float((predicted - target).square().mean())

    before = loss()
    Trainer(networks, people, text, recipe, tmp_path).run()
    assert loss() < 0.95 * before


def test_class_guidance_asks_for_the_noise_on_the_face_and_the_class_elsewhere(start, text, people):
    networks = make("face2diffusion", start, text).eval()
    batch, noisy, texts = a_step(networks, people, text)
    _, target = networks(batch, noisy, texts)
    of_class = networks.predict(
        noisy, batch.timesteps, text([CLASS_PROMPT]).expand(len(noisy), -1, -1)
    )
    face = batch.region.bool().expand_as(target)
    assert torch.equal(target[face], batch.noise[face])
    torch.testing.assert_close(target[~face], of_class[~face])
    without = make("face2diffusion", start, text, class_guided=False).eval()
    assert torch.equal(without(batch, noisy, texts)[1], batch.noise)


def test_a_word_in_training_is_the_word_in_comfyui(start, people, text, tmp_path):
    """The saved network gives the same S*, and the text model does with it what training did."""
    from flashface_core.face2diffusion.prompt import keep_together, put_word
    from flashface_core.tiny_text import embeddings

    networks = make("face2diffusion", start, text).eval()
    networks.save(tmp_path / "mapping.safetensors", torch.float32)
    mapping = load_mapping(tmp_path / "mapping.safetensors")
    word = mapping(people.seen[FACE][:1])
    assert torch.equal(word, networks.mapping(people.seen[FACE][:1]))
    prompt = "a portrait of f l by the sea"
    clip = load_tiny_clip()
    tokens = clip.tokenize(prompt)
    tokens["l"] = put_word(keep_together(tokens["l"]), word[0].detach(), embeddings()[1])
    expected = clip.encode_from_tokens(tokens)
    torch.testing.assert_close(
        text.with_word(prompt, word), expected, rtol=0, atol=1e-2
    )  # core keeps it in fp16


@pytest.mark.parametrize("system", [*SYSTEMS, "facestudio with other pictures"])
def test_rows_with_a_face_are_those_whose_prediction_it_changes(start, text, people, system):
    if system.endswith("other pictures"):
        system, people.seen[WHOLE] = "facestudio", people.seen[STYLE].flip(0)
    networks = make(system, start, text).eval()
    batch, noisy, texts = a_step(networks, people, text, targets_per_group=2, drop_references=0.5)
    batch = batch._replace(chances=torch.tensor([[0.9, 0.05], [0.9, 0.2], [0.9, 0.6], [0.1, 0.95]]))
    references = batch.references._replace(latents=batch.references.latents.roll(1, dims=-1))
    faces = {name: batch.seen[name] + 1 for name in (FACE, UNIT_FACE)}
    other = batch._replace(references=references, seen=batch.seen | faces)
    with torch.no_grad():
        (one, _), (another, _) = (networks(given, noisy, texts) for given in (batch, other))
    changed = (one - another).flatten(1).abs().amax(dim=1) > 1e-6
    rows = torch.nonzero(changed).flatten().tolist()
    assert rows and networks.rows_with_face(batch) == rows


def test_rows_without_a_face_are_the_plain_unet(start, text, people):
    networks = make("face_fusion", start, text)
    batch, noisy, texts = a_step(networks, people, text)
    one = batch.references._replace(slots=batch.references.slots[1:2], rows=[1])
    predicted, _ = networks(batch._replace(references=one), noisy, texts)
    plain = networks.predict(noisy, batch.timesteps, texts[1:])
    torch.testing.assert_close(predicted[:1], plain[:1], rtol=1e-4, atol=1e-5)
    assert (predicted[1] - plain[1]).abs().max() > 1e-3
    nobody = batch.references._replace(slots=batch.references.slots[:0], rows=[])
    alone, _ = networks(batch._replace(references=nobody), noisy, texts)
    torch.testing.assert_close(alone, plain, rtol=1e-4, atol=1e-5)


def test_projections_begin_as_the_self_attention_and_are_saved_by_site(start, text, tmp_path):
    networks = make("face_fusion", start, text)
    networks.save(tmp_path / "fusion.safetensors", torch.float32)
    saved = load_file(tmp_path / "fusion.safetensors")
    attention = networks.sites["input", 1, 0].attn1
    assert torch.equal(saved["input.1.0.k.weight"], attention.to_k.weight)
    assert torch.equal(saved["input.1.0.v.weight"], attention.to_v.weight)
    assert len(saved) == 2 * len(networks.sites) == 14


def test_dropped_embeddings_are_the_null_condition(start, text, people):
    networks = make("facestudio", start, text)
    batch, noisy, _ = a_step(networks, people, text)
    assert networks.texts(batch) == []
    dropped = batch._replace(chances=torch.zeros_like(batch.chances))
    predicted, _ = networks(dropped, noisy, torch.empty(0))
    null = networks.linear.branch(None, None).expand(len(noisy), -1, -1)
    torch.testing.assert_close(predicted, networks.predict(noisy, batch.timesteps, null))
    kept = batch._replace(chances=torch.ones_like(batch.chances))
    context = networks.linear.branch(batch.seen[STYLE], batch.seen[UNIT_FACE])
    torch.testing.assert_close(
        networks(kept, noisy, torch.empty(0))[0], networks.predict(noisy, batch.timesteps, context)
    )


@pytest.mark.parametrize("has_face", [False, True])
def test_some_samples_have_the_style_of_the_whole_picture(start, text, people, has_face):
    people.seen[WHOLE] = people.seen[STYLE].flip(0)
    networks = make("facestudio", start, text)
    batch, noisy, _ = a_step(networks, people, text)
    chance = DROP_FACE + OTHER_PICTURES * has_face
    other = batch._replace(chances=torch.tensor([[0.0, chance], [1.0, chance + 0.1]]))
    face = batch.seen[UNIT_FACE] if has_face else None
    context = networks.linear.branch(batch.seen[WHOLE], face)
    torch.testing.assert_close(
        networks(other, noisy, torch.empty(0))[0], networks.predict(noisy, batch.timesteps, context)
    )


@pytest.mark.parametrize("name", [TOLD, WHOLE])
def test_some_samples_have_the_style_of_the_text_where_it_was_seen(start, text, people, name):
    people.seen[WHOLE] = people.seen[STYLE].flip(0)
    people.seen[name] = people.seen[STYLE].flip(1)
    networks = make("facestudio", start, text)
    batch, noisy, _ = a_step(networks, people, text)
    first = DROP_FACE + OTHER_PICTURES + WHOLE_PEOPLE
    chances = torch.tensor([[0.0, first + 0.01], [1.0, first + TOLD_PEOPLE - 0.01]])
    context = networks.linear.branch(batch.seen[name], batch.seen[UNIT_FACE])
    torch.testing.assert_close(
        networks(batch._replace(chances=chances), noisy, torch.empty(0))[0],
        networks.predict(noisy, batch.timesteps, context),
    )


@pytest.mark.parametrize("has_face", [False, True])
def test_all_others_have_that_of_the_picture_without_the_face(start, text, people, has_face):
    people.seen[WHOLE] = people.seen[STYLE].flip(0)
    networks = make("facestudio", start, text)
    batch, noisy, _ = a_step(networks, people, text)
    whole = DROP_FACE + OTHER_PICTURES + WHOLE_PEOPLE + TOLD_PEOPLE
    chance = whole if has_face else DROP_FACE - 0.01
    other = batch._replace(chances=torch.tensor([[1.0, chance], [1.0, chance]]))
    face = batch.seen[UNIT_FACE] if has_face else None
    context = networks.linear.branch(batch.seen[STYLE], face)
    torch.testing.assert_close(
        networks(other, noisy, torch.empty(0))[0], networks.predict(noisy, batch.timesteps, context)
    )


def test_facestudio_saves_what_was_trained_and_its_encoders(start, text, tmp_path):
    networks = make("facestudio", start, text)
    networks.freeze_all_but(["linear"])
    networks.save(tmp_path / "linear.safetensors", {"prior.0.bias": torch.ones(3)}, {"a": "b"})
    state, metadata = read_state_dict(tmp_path / "linear.safetensors")
    assert set(state) == {"linear.weight", "linear.bias", "prior.0.bias"}
    assert metadata == {"tokens": "4", "a": "b"}
    names = {f"unet.{name}" for name, _ in networks.unet.named_parameters()}
    blocks = {name for name in names if "transformer_blocks" in name}
    for parts, expected in ((networks.parts, names), (["linear", "transformers"], blocks)):
        networks.freeze_all_but(parts)
        networks.save(tmp_path / "all.safetensors", {}, {})
        saved = {key for key in load_file(tmp_path / "all.safetensors") if key.startswith("unet.")}
        assert saved == expected


def test_a_later_stage_keeps_what_an_earlier_one_trained(start, tmp_path):
    """The recipe of the last stage trains no residual blocks."""
    first, last = tmp_path / "first.safetensors", tmp_path / "last.safetensors"
    networks = FaceStudioNetworks(start, STYLE_WIDTH, 512)
    networks.freeze_all_but(networks.parts)
    networks.save(first, {}, {})
    networks = FaceStudioNetworks(start, STYLE_WIDTH, 512)
    networks.load(first)
    networks.freeze_all_but([LINEAR, TRANSFORMERS])
    networks.save(last, {}, {})
    before, after = load_file(first), load_file(last)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_encoders_saw_comes_with_the_targets(people):
    batch = draw_batch(people, dataclasses.replace(Sampling(), targets_per_group=2), 0, 0, range(2))
    for row, latent in enumerate(batch.latents):
        (index,) = [i for i, one in enumerate(people.latents) if torch.equal(one, latent)]
        assert torch.equal(batch.seen[STYLE][row], people.seen[STYLE][index])
    assert batch.chances.shape == (4, 2)
