"""The tiny workflow with LoRA, HyperTile and PAG in it, and with a face drawn again, over HTTP."""

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import load_tiny_models
from PIL import Image
from safetensors.torch import load_file, save_file
from support.control import lora_state
from support.harness import relative_error
from support.server import TINY, add_node, api_workflow, inputs, node_id

pytestmark = pytest.mark.server

LORA = "beside.safetensors"
OFF = dict(feature_strength=0.0, face_guidance=0.0, early_strength=0.0)
OTHERS = (
    ("LoraLoaderModelOnly", dict(lora_name=LORA, strength_model=0.3)),
    ("HyperTile", dict(tile_size=32, swap_size=2, max_depth=0, scale_depth=False)),
    ("PerturbedAttentionGuidance", dict(scale=3.0)),
)
LORA_AT_ZERO = (("LoraLoaderModelOnly", dict(lora_name=LORA, strength_model=0.0)),)
# Beside patches of the UNet y_ref is in a call of its own: another batch rounds another way.
AT_ZERO = (
    *LORA_AT_ZERO,
    ("HyperTile", dict(tile_size=2048, swap_size=1, max_depth=0, scale_depth=False)),
    ("PerturbedAttentionGuidance", dict(scale=0.0)),
)


@pytest.fixture(scope="module", autouse=True)
def lora_file(server):
    folder = server.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora_state(load_tiny_models()[0], ""), folder / LORA)


def small(cfg: float = 3.0) -> dict:
    """The tiny workflow at two steps: three pictures of 120 x 136."""
    workflow = api_workflow(TINY)
    inputs(workflow, "EmptyLatentImage").update(width=120, height=136, batch_size=3)
    inputs(workflow, "KSampler").update(steps=2, cfg=cfg)
    return workflow


def chained(workflow, others, before: bool) -> dict:
    """The workflow with other nodes between loader and Apply, or Apply and sampler."""
    apply, sampler = (inputs(workflow, name) for name in ("FlashFaceApply", "KSampler"))
    end = apply if before else sampler
    for name, settings in others:
        end["model"] = [add_node(workflow, name, model=end["model"], **settings), 0]
    return workflow


def without_apply(workflow) -> dict:
    """What is left when Apply is bypassed."""
    apply = node_id(workflow, "FlashFaceApply")
    for node in workflow.values():
        if node["inputs"].get("model") == [apply, 0]:
            node["inputs"]["model"] = workflow[apply]["inputs"]["model"]
    return workflow


def without_strength(workflow) -> dict:
    inputs(workflow, "FlashFaceGuidance").update(OFF)
    return workflow


def latent(server, workflow) -> torch.Tensor:
    save = add_node(
        workflow, "SaveLatent", samples=[node_id(workflow, "KSampler"), 0], filename_prefix="beside"
    )
    (file,) = server.files({"": server.prompt(workflow)[save]}, key="latents")
    return load_file(file)["latent_tensor"]


@pytest.mark.parametrize("cfg", [3.0, 1.0])
def test_lora_hypertile_and_pag_with_the_face(server, cfg):
    first, last = (latent(server, chained(small(cfg), OTHERS, before)) for before in (True, False))
    assert first.shape == (3, 4, 17, 15) and torch.isfinite(first).all()
    assert torch.equal(first, last)
    others_alone = latent(server, without_apply(chained(small(cfg), OTHERS, True)))
    ours_alone = latent(server, small(cfg))
    for one in (others_alone, ours_alone):
        assert not torch.allclose(first, one, rtol=1e-2, atol=1e-2)
    for before in (True, False):
        graph = without_strength(chained(small(cfg), OTHERS, before))
        assert torch.equal(latent(server, graph), others_alone)
        assert torch.equal(latent(server, chained(small(cfg), LORA_AT_ZERO, before)), ours_alone)
        all_at_zero = latent(server, chained(small(cfg), AT_ZERO, before))
        assert relative_error(all_at_zero, ours_alone) <= 1e-5


def detailed(workflow, model: list) -> str:
    """Id of the picture with its face cut out, enlarged, drawn again by MODEL and pasted back."""
    picture, vae = [node_id(workflow, "VAEDecode"), 0], inputs(workflow, "VAEDecode")["vae"]
    first = inputs(workflow, "KSampler")

    def add(name, **given):
        return [add_node(workflow, name, **given), 0]

    def scaled(image, width, height):
        size = dict(width=width, height=height, crop="disabled")
        return add("ImageScale", image=image, upscale_method="bilinear", **size)

    face = scaled(add("ImageCrop", image=picture, width=64, height=56, x=32, y=24), 128, 112)
    mask = add("SolidMask", value=1.0, width=128, height=112)
    masked = add("SetLatentNoiseMask", samples=add("VAEEncode", pixels=face, vae=vae), mask=mask)
    given = {**first, "model": model, "latent_image": masked, "denoise": 0.5}
    drawn = add("VAEDecode", samples=add("KSampler", **given), vae=vae)
    paste = dict(destination=picture, source=scaled(drawn, 64, 56), x=32, y=24, resize_source=False)
    return add("ImageCompositeMasked", **paste)[0]


def picture(server, second: str) -> np.ndarray:
    """The picture without Apply, after a second pass whose MODEL is an output of node `second`."""
    workflow = small()
    apply, loader = (node_id(workflow, n) for n in ("FlashFaceApply", "FlashFaceTinyModels"))
    inputs(workflow, "KSampler")["model"] = [loader, 0]
    model = {"face": [apply, 0], "no face": [loader, 0], "at zero": [apply, 0]}
    if second == "at zero":
        without_strength(workflow)
    is_once = second == "nothing"
    drawn = node_id(workflow, "VAEDecode") if is_once else detailed(workflow, model[second])
    inputs(workflow, "SaveImage")["images"] = [drawn, 0]
    files = server.files(server.prompt(workflow))
    return np.stack([np.asarray(Image.open(file)) for file in files])


def test_a_face_cut_out_drawn_again_and_pasted_back(server):
    before, plain, zero, face = (
        picture(server, name) for name in ("nothing", "no face", "at zero", "face")
    )
    assert face.shape == (3, 136, 120, 3)
    assert np.array_equal(zero, plain)
    inside = np.zeros((136, 120), bool)
    inside[24:80, 32:96] = True
    for drawn in (plain, face):
        assert np.array_equal(drawn[:, ~inside], before[:, ~inside])
        assert not np.array_equal(drawn[:, inside], before[:, inside])
    assert not np.array_equal(face, plain)
