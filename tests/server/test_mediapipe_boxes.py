"""Core's Detect Face Landmarks (MediaPipe) gives FlashFace Identity its boxes.

Its own loader, networks and formats, with weights made by rule: red is the middle of a face.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.model_packs import photograph
from support.server import IDENTITY, start_server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not Path(os.environ["COMFYUI_PATH"], "comfy_extras", "nodes_mediapipe.py").is_file(),
        reason="this core has no MediaPipe",
    ),
]

HALF, CELL = 112, 80  # pixels of a picture of 640: half of a box, and a cell of the detector
PARTS = (
    *("face_oval", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow", "lips"),
    *("irises", "nose"),
)


def weights() -> dict[str, torch.Tensor]:
    """In the layout of the published file."""
    from comfy_extras.mediapipe.face_landmarker import FaceLandmarker

    torch.manual_seed(1)
    found = {}
    for variant in ("short", "full"):
        for name, value in FaceLandmarker(detector_variant=variant).state_dict().items():
            part, _, rest = name.partition(".")
            own = f"detector_{variant}.{rest}" if part == "detector" else name
            found[own] = torch.zeros_like(value) if part != "blendshapes" else value.clone()
    found["detector_short.stem.weight"][0, :, 2, 2] = torch.tensor([1.0, -1.0, -1.0])
    found["detector_short.stem.bias"][0] = -2.5  # pure red, -1 to 1, gives 3
    for scale in (8, 16):
        found[f"detector_short.cls_{scale}.bias"][:] = -20
    found["detector_short.cls_8.weight"][0, 0] = 100
    # Of the box's middle, its size, then six points: the eyes are level.
    sizes = [0, 0, 2 * HALF / 640 * 128, 2 * HALF / 640 * 128, -10, 0, 10, 0]
    found["detector_short.reg_8.bias"][: len(sizes)] = torch.tensor(sizes).float()
    # Landmarks fill the box, which is 2/3 of the 192 pixels that the mesh looks at.
    points = torch.rand(478, 3) * 128 + 32
    points[0], points[1] = torch.tensor([32.0, 32.0, 40.0]), torch.tensor([160.0, 160.0, 50.0])
    found["mesh.head_landmarks.bias"] = points.flatten()
    found["canonical_vertices"] = points[:468] / 10
    found["procrustes_indices"] = torch.arange(30)
    found["procrustes_weights"] = torch.ones(30)
    found |= {f"topology.{part}": torch.tensor([[0, 1]], dtype=torch.int32) for part in PARTS}
    return {name: value.contiguous() for name, value in found.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    (base / "models" / "detection").mkdir(parents=True)
    save_file(weights(), base / "models" / "detection" / "by_rule.safetensors")
    photograph(1, 0).save(base / "input" / "one.png")
    photograph(1, 0, ((6, 6), (13, 13))).save(base / "input" / "two.png")
    Image.new("RGB", (640, 640), (90, 90, 90)).save(base / "input" / "nobody.png")
    with start_server(base) as server:
        yield server


def workflow(name: str, **settings) -> dict:
    landmarks = dict(
        face_detection_model=["2", 0],
        image=["1", 0],
        detector_variant="short",
        num_faces=0,
        min_confidence=0.5,
        missing_frame_fallback="empty",
    )
    identity = {**IDENTITY, "image": ["1", 0], "boxes": ["3", 1], "select": "every face"}
    nodes = {
        "1": ("LoadImage", {"image": f"{name}.png"}),
        "2": ("LoadMediaPipeFaceLandmarker", {"model_name": "by_rule.safetensors"}),
        "3": ("MediaPipeFaceLandmarker", landmarks),
        "4": ("FlashFaceIdentity", identity | settings),
        "5": ("SaveImage", {"images": ["4", 1], "filename_prefix": name}),
    }
    return {key: {"class_type": kind, "inputs": given} for key, (kind, given) in nodes.items()}


def crops(server, prompt) -> list[np.ndarray]:
    files = server.prompt(prompt)["5"]["images"]
    return [np.asarray(Image.open(server.base / "output" / one["filename"])) for one in files]


def test_its_boxes_are_cut_out(server):
    (crop,) = crops(server, workflow("one"))
    middle = 3 * CELL + CELL // 2
    box = (middle - HALF, middle - HALF, middle + HALF, middle + HALF)
    expected = np.asarray(photograph(1, 0).crop(box))
    assert crop.shape == expected.shape == (224, 224, 3)
    assert np.abs(crop.astype(int) - expected).mean() < 2


def test_two_faces_are_two_references(server):
    assert len(crops(server, workflow("two"))) == 2
    assert len(crops(server, workflow("two", select="leftmost"))) == 1


def test_nobody_follows_the_policy(server):
    with pytest.raises(RuntimeError, match="Image 0 has no face"):
        server.prompt(workflow("nobody"))
    assert len(crops(server, workflow("nobody", no_face="use whole image"))) == 1
