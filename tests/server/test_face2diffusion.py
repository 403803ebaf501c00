"""A person as a word of the prompt over HTTP: from a photograph to a picture."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.face2diffusion import write_small
from support.photographs import astronaut
from support.server import IDENTITY

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def files(server):
    """Beside mapping.pt and msid.safetensors, which lie there."""
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    pytest.importorskip("skimage", reason="the photograph comes with it")
    write_small(server.base / "models" / "face2diffusion")
    astronaut().save(server.base / "input" / "one.png")
    ImageOps.mirror(astronaut()).save(server.base / "input" / "other.png")


SMALL = {"mapping_name": "mapping_small.safetensors", "encoder_name": "msid_small.safetensors"}


def workflow(photo: str = "one.png", detector: bool = True, **changed):
    identity = {**IDENTITY, "image": ["1", 0]}
    loader = {"mapping_name": "mapping.pt", "encoder_name": "msid.safetensors"}
    loader |= {key: changed.pop(key) for key in loader if key in changed}
    text = {"text": "a portrait of (sks:1.1), in a forest", "placeholder": "sks"} | changed
    sampler = dict(seed=1, steps=2, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0)
    links = dict(model=["5", 0], positive=["6", 0], negative=["7", 0], latent_image=["8", 0])
    nodes = {
        "1": ("LoadImage", {"image": photo}),
        "2": ("FlashFaceDetectorLoader", {"detector": "mtcnn", "model_pack": "none"}),
        "3": ("FlashFaceIdentity", identity | ({"detector": ["2", 0]} if detector else {})),
        "4": ("Face2DiffusionLoader", loader),
        "5": ("FlashFaceTinyModels", {}),
        "6": (
            "Face2DiffusionTextEncode",
            {"clip": ["5", 2], "face2diffusion": ["4", 0], "identity": ["3", 0]} | text,
        ),
        "7": ("CLIPTextEncode", {"clip": ["5", 2], "text": ""}),
        "8": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "9": ("KSampler", sampler | links),
        "10": ("VAEDecode", {"samples": ["9", 0], "vae": ["5", 3]}),
        "11": ("SaveImage", {"images": ["10", 0], "filename_prefix": "face2diffusion"}),
    }
    return {key: {"class_type": kind, "inputs": given} for key, (kind, given) in nodes.items()}


def picture(server, graph) -> np.ndarray:
    (path,) = server.files(server.prompt(graph))
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_photograph_changes_the_picture_and_the_placeholder_does_not(server):
    one = picture(server, workflow())
    assert one.shape == (128, 128, 3)
    assert not np.array_equal(picture(server, workflow("other.png")), one)
    text = "a portrait of (Eileen:1.1), in a forest"
    assert np.array_equal(picture(server, workflow(text=text, placeholder="eileen")), one)


def test_an_encoder_of_crops_needs_no_detector_and_takes_an_expression(server):
    one = picture(server, workflow(detector=False, **SMALL))
    assert not np.array_equal(picture(server, workflow("other.png", False, **SMALL)), one)
    told = workflow(detector=False, expression=["3", 0], **SMALL)
    assert not np.array_equal(picture(server, told), one)


WRONG = {
    "no placeholder": (dict(text="a portrait"), "no placeholder 'sks'"),
    "no detector": (dict(detector=False), "connect a FlashFace Detector Loader"),
    "swapped": (
        dict(mapping_name="msid.safetensors", encoder_name="mapping.pt"),
        "msid.safetensors is Face2Diffusion's face encoder",
    ),
    "no expression network": (dict(expression=["3", 0]), "disconnect `expression`"),
    "not together": (SMALL | {"mapping_name": "mapping.pt"}, "expected the 48 of msid_small"),
    "no such file": (dict(encoder_name="none"), "put the published mapping.pt and msid.pt there"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_a_sentence(server, case):
    changed, words = WRONG[case]
    with pytest.raises(Exception, match="Face2Diffusion") as caught:
        server.prompt(workflow(**changed))
    assert words in str(caught.value)
