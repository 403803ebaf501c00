"""Face Fusion beside FlashFace and core's nodes, its loader, its memory, and what it refuses."""

import gc
import weakref
from dataclasses import replace

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.sd
import folder_paths
import pytest
import torch
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from flashface_pack.flashface_core.comfy_adapter.face_fusion import photos as face_fusion
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import (
    FaceFusion,
    load_face_fusion,
)
from flashface_pack.flashface_core.comfy_adapter.flashface import from_model
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face_fusion.file import read_face_fusion
from flashface_pack.nodes import folders
from flashface_pack.nodes.apply import FlashFaceApply
from flashface_pack.nodes.face_fusion import FOLDER, FaceFusionLoader
from safetensors.torch import load_file, save_file
from support.control import lora_state, random_controlnet
from support.face_fusion import Fusion, cross_attention_blocks, on_flashface, rows, write_file
from support.harness import Guidance, apply_features, relative_error
from support.image_prompt import louder_prompt
from support.models import (
    WIDE,
    community_model,
    flux_model,
    inpainting_model,
    random_vae,
    wider_model,
)
from support.own_attention import from_node
from support.photos import identity, photos, placed
from support.sampling import basic, classic, guided, noise, noisy

import nodes


@pytest.fixture(scope="module")
def sizes():
    return WIDE


@pytest.fixture(scope="module")
def fusion(flashface, tmp_path_factory) -> Fusion:
    return on_flashface(flashface, tmp_path_factory.mktemp("fusion"))


@pytest.fixture
def with_flashface(flashface, fusion):
    """MODEL to MODEL with FlashFace's photos."""
    person = placed(identity(photos(2, 4)))
    features = flashface.net.encode(person, fusion.vae, flashface.negative)
    return lambda model: apply_features(model, features, Guidance())


def test_beside_flashface_the_order_of_the_nodes_changes_no_bit(fusion, with_flashface):
    """The third branch sees the faces of both, whoever came first."""
    both = fusion.sample(fusion.applied(model=with_flashface(fusion.model)))
    assert torch.equal(fusion.sample(with_flashface(fusion.applied())), both)
    alone = [fusion.drawn(), fusion.sample(with_flashface(fusion.model))]
    assert all(relative_error(both, one) > 1e-4 for one in alone)
    off = fusion.applied(model=with_flashface(fusion.model), strength=0.0)
    assert torch.equal(fusion.sample(off), alone[1])


def test_beside_flashface_positive_rows_of_both_branches_see_the_photos(fusion, with_flashface):
    model = with_flashface(fusion.model)
    plain, got = rows(fusion, model), rows(fusion, fusion.applied(model=model))
    # y and y_ref go to the network as the positive prompt twice.
    assert relative_error(got[0], plain[0]) > 1e-3
    assert relative_error(got[1], plain[1]) <= 1e-5  # with FlashFace alone, encoded with other rows


def test_beside_the_training_free_reference_net(fusion):
    net = from_node(fusion.model)
    features = net.encode(identity(photos(1, 4)), fusion.vae, fusion.negative)
    models = [
        FlashFaceApply.execute(fusion.applied(), features).args[0],
        fusion.applied(model=FlashFaceApply.execute(fusion.model, features).args[0]),
    ]
    assert torch.equal(*(fusion.sample(model) for model in models))


OTHERS = {
    "FreeU": lambda model: FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0],
    "HyperTile": lambda model: HyperTile.execute(model, 32, 2, 2, False)[0],
    "PAG": lambda model: PerturbedAttentionGuidance.execute(model, 3.0).args[0],
    "attn2 output patch": lambda model: louder_prompt(model, 0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_nodes_work_before_and_after(fusion, name):
    patch = OTHERS[name]
    before, after = fusion.applied(model=patch(fusion.model)), patch(fusion.applied())
    drawn = [fusion.sample(model) for model in (before, after)]
    assert relative_error(*drawn) <= 1e-6
    for alone in (fusion.sample(patch(fusion.model)), fusion.drawn()):
        assert relative_error(drawn[0], alone) > 1e-4
    off = fusion.applied(model=patch(fusion.model), strength=0.0)
    assert torch.equal(fusion.sample(off), fusion.sample(patch(fusion.model)))


def test_with_a_controlnet(fusion):
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    control = random_controlnet(fusion.model)
    prompts = nodes.ControlNetApplyAdvanced().apply_controlnet(
        fusion.positive, fusion.negative, control, image, 1.0, 0.0, 1.0
    )
    guided_by = replace(fusion, positive=prompts[0], negative=prompts[1])
    model = fusion.applied()  # its text has no ControlNet
    drawn = guided_by.sample(model)
    assert relative_error(drawn, fusion.sample(model)) > 1e-4
    assert relative_error(drawn, guided_by.sample()) > 1e-4


def area(conditioning, *latent):
    pixels = (8 * latent[2], 8 * latent[3], 8 * latent[0], 8 * latent[1])
    return nodes.ConditioningSetArea().append(conditioning, *pixels, 1.0)[0]


def test_rows_of_an_area_see_their_part_of_a_region(fusion):
    """Equal to a run on the cropped latent, with the region cropped in the same way."""
    left, right = torch.zeros(128, 128), torch.zeros(128, 64)
    left[:, 72:104], right[:, 8:40] = 1, 1
    inside = [
        replace_region(placed(identity(), attention="inside the region"), mask)
        for mask in (left, right)
    ]
    x = noisy(fusion.model, noise(7), 501)
    part = area(fusion.positive, 8, 0, 8, 16)
    whole = guided(classic(fusion.applied(inside[0]), part, fusion.negative, 1.0), x, 501)
    crop = guided(basic(fusion.applied(inside[1]), fusion.positive), x[..., 8:], 501)
    plain = guided(basic(fusion.model, fusion.positive), x[..., 8:], 501)
    assert relative_error(whole[..., 8:], crop) <= 1e-5
    assert relative_error(plain, crop) > 1e-3


def replace_region(person, mask):
    place = replace(person.place, mask=mask[None] > 0.5)
    return person.with_place(place)


def test_a_lora_of_one_prompt_alone_is_not_on_the_photos(fusion, monkeypatch):
    comfy.model_management.unload_all_models()
    query = cross_attention_blocks(fusion.model)["middle", 0, 0].attn1.to_q
    real, plain, on_photos = from_model.feature_maps, query.weight.clone(), []

    def watched(*arguments):
        on_photos.append(not torch.equal(query.weight.cpu(), plain))
        return real(*arguments)

    monkeypatch.setattr(from_model, "feature_maps", watched)
    hooks = comfy.hooks.create_hook_lora(lora_state(fusion.model, ""), 0.5, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(fusion.positive, hooks)
    replace(fusion, positive=hooked).sample(fusion.applied())
    assert on_photos and not any(on_photos)


def test_a_guider_that_goes_round_predict_noise_is_named(fusion, caplog):
    class Direct(comfy.samplers.CFGGuider):
        def __call__(self, x, timestep, model_options=None, seed=None):
            conds = [self.conds["positive"]]
            model_options = model_options or {}
            return comfy.samplers.calc_cond_batch(
                self.inner_model, conds, x, timestep, model_options
            )[0]

    guider = Direct(fusion.applied())
    guider.inner_set_conds({"positive": fusion.positive})
    x = noisy(fusion.model, noise(7), 501)
    got = guided(guider, x, 501)
    assert "Face Fusion Apply had no effect: Direct" in caplog.text
    assert torch.equal(got, guided(basic(fusion.model, fusion.positive), x, 501))


# Memory


class Stop(Exception):
    """Ends a run before anything is computed."""


def test_the_networks_are_loaded_and_room_is_made_for_keys_and_values(
    fusion, tmp_path, monkeypatch
):
    # Less than that is within what core takes for granted.
    metadata = {"reference_size": "224"}
    path = write_file(tmp_path / "sized.safetensors", fusion.model, metadata=metadata)
    fusion = replace(fusion, fusion=load_face_fusion(path), size=224)
    asked = []

    def watched(models, memory_required=0, **kwargs):
        asked.append((memory_required, [one.model for one in models]))
        raise Stop

    few, many = (fusion.applied(identity(photos(1).repeat(n, 1, 1, 1))) for n in (1, 200))
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "load_models_gpu", watched)
        for model in (fusion.model, few, many):
            with pytest.raises(Stop):
                fusion.sample(model)
    (plain, _), (least, loaded), (most, _) = asked
    assert fusion.fusion.patcher.model in loaded
    blocks = cross_attention_blocks(fusion.model)
    side = fusion.size // 8
    tokens = [side**2, side**2 // 4, side**2 // 16, side**2 // 64]
    smallest = sum(2 * tokens[-1] * b.norm2.normalized_shape[0] * 4 for b in blocks.values())
    assert plain < least < most and most - least >= 199 * smallest


# What does not fit


def test_models_that_are_no_sd15_or_sdxl_are_refused(fusion):
    free = replace(fusion, fusion=FaceFusion())
    with pytest.raises(FlashFaceError, match="Flux, no UNet.*Face Fusion Apply works with these"):
        free.applied(model=flux_model())
    with pytest.raises(FlashFaceError, match="9 input channels.*Face Fusion Apply needs 4"):
        free.applied(model=inpainting_model(fusion.model))


def test_a_file_for_another_unet_is_refused_with_both_named(fusion, flashface, tmp_path):
    both = "BaseModel. has 128 channels at block input 1 0, random.safetensors has 64"
    with pytest.raises(FlashFaceError, match=both):
        fusion.applied(model=wider_model(fusion.model))
    path = write_file(tmp_path / "shorter.safetensors", fusion.model)
    state = {key: value.clone() for key, value in load_file(path).items() if "middle" not in key}
    save_file(state, path)
    with pytest.raises(FlashFaceError, match="block middle 0 0, shorter.* has no cross-attention"):
        replace(fusion, fusion=load_face_fusion(path)).applied()
    community = community_model(flashface.model, seed=31)
    assert relative_error(fusion.sample(fusion.applied(model=community)), fusion.drawn()) > 1e-3


def test_photos_are_as_large_as_the_file_says_or_as_the_model_was_trained(fusion, tmp_path):
    def size(face_fusion, model=None):
        applied = replace(fusion, fusion=face_fusion).applied(model=model)
        (person,) = applied.get_attachment("face_fusion").people
        return 8 * person.references[0].latent.shape[-1]

    metadata = {"reference_size": "72"}
    path = write_file(tmp_path / "sized.safetensors", fusion.model, metadata=metadata)
    assert size(load_face_fusion(path)) == 72
    assert size(fusion.fusion) == fusion.size != 256
    assert size(FaceFusion(), community_model(fusion.model, seed=31)) == 256


NO_VAE = "There is no VAE: the checkpoint holds none; load one with Load VAE"


@pytest.mark.parametrize(
    ("vae", "text", "message"),
    [
        (None, None, NO_VAE),
        ("no weights", None, NO_VAE),
        (16, None, "16 latent channels, Face Fusion needs 4; connect an SD1.5 VAE"),
        (4, [], "0 wide"),
        (4, 2, "The text has 2 entries, Face Fusion takes exactly one"),
    ],
)
def test_encode_says_what_it_needs(fusion, vae, text, message):
    text = fusion.negative * text if isinstance(text, int) else text
    text = fusion.negative if text is None else text
    made = random_vae(vae) if isinstance(vae, int) else vae and comfy.sd.VAE(sd={})
    with pytest.raises(FlashFaceError, match=message):
        replace(fusion, vae=made, negative=text).features()


# The loader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's models/face_fusion; what the pack ships is in tiny_models/ beside it."""
    places = tmp_path / "models", tmp_path / "tiny_models" / FOLDER
    for place in places:
        place.mkdir(parents=True)
    known = ([str(place) for place in places], set(folders.SAFETENSORS))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folders, "SHIPPED", places[1].parent)
    return places[0]


def test_a_new_loader_begins_with_what_works_for_the_users_models(folder, fusion):
    def options():
        folder_paths.filename_list_cache.clear()
        (name,) = FaceFusionLoader.define_schema().inputs
        return name.options

    assert options() == ["none (training-free)"]
    tiny = folder.parent / "tiny_models" / FOLDER / "a_tiny.safetensors"
    write_file(tiny, fusion.model)
    assert options() == ["none (training-free)", "a_tiny.safetensors"]
    write_file(folder / "mine.safetensors", fusion.model)
    assert options() == ["mine.safetensors", "none (training-free)", "a_tiny.safetensors"]
    tiny.unlink()
    assert options() == ["mine.safetensors", "none (training-free)"]
    assert FaceFusionLoader.validate_inputs("mine.safetensors") is True
    assert FaceFusionLoader.validate_inputs("none (training-free)") is True
    answer = FaceFusionLoader.validate_inputs("other.safetensors")
    assert "no file 'other.safetensors' among mine.safetensors" in answer
    loaded = FaceFusionLoader.execute("mine.safetensors").args[0]
    assert loaded.patcher is not None and loaded.name == "mine.safetensors"
    assert FaceFusionLoader.execute("none (training-free)").args[0].patcher is None


def test_the_tensors_of_a_file_belong_to_the_modules_alone(tmp_path, fusion, monkeypatch):
    """Kept beside them they would stay in main memory while the modules are on the GPU."""
    path, tensors = write_file(tmp_path / "mine.safetensors", fusion.model), []

    def watched(path):
        file = read_face_fusion(path)
        tensors.extend(weakref.ref(tensor) for part in (file.k, file.v) for tensor in part.values())
        return file

    monkeypatch.setattr(face_fusion, "read_face_fusion", watched)
    loaded = load_face_fusion(path)
    gc.collect()
    assert len(tensors) == 2 * len(loaded.widths) == len(list(loaded.patcher.model.parameters()))
    assert not any(tensor() is not None for tensor in tensors)
