"""The shipped workflow over HTTP: pictures, repetition, interruption."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.server import add_node, inputs, node_id, small_workflow

pytestmark = pytest.mark.server


def latent(server, workflow) -> tuple[str, torch.Tensor]:
    """File name and content of what the sampler of a workflow gives."""
    save = add_node(workflow, "SaveLatent", samples=[node_id(workflow, "KSampler"), 0])
    workflow[save]["inputs"]["filename_prefix"] = "latent"
    (file,) = server.files({"": server.prompt(workflow)[save]}, key="latents")
    return file.name, load_file(file)["latent_tensor"]


def test_the_shipped_workflow_gives_a_picture(server):
    outputs = server.prompt(small_workflow())
    files = {key: server.files({"": output}) for key, output in outputs.items()}
    picture = np.asarray(Image.open(files[node_id(small_workflow(), "SaveImage")][0]))
    assert picture.shape == (64, 64, 3)
    assert picture.std(axis=(0, 1)).min() > 10
    log = server.log_text()
    for complaint in ("clip missing", "unet missing", "Missing VAE keys", "Leftover VAE keys"):
        assert complaint not in log


def test_latents_are_finite_and_the_face_changes_them(server):
    _, with_face = latent(server, small_workflow())
    without = small_workflow()
    inputs(without, "KSampler")["model"] = [node_id(without, "FlashFaceLoader"), 0]
    _, without_face = latent(server, without)
    assert with_face.isfinite().all()
    assert with_face.std() > 0.1
    assert not torch.allclose(with_face, without_face, rtol=0.01)


def test_another_photo_and_another_place_change_the_picture(server):
    _, first = latent(server, small_workflow())
    for class_type, change in (("ImageCrop", {"x": 20}), ("FlashFaceIdentityPlace", {"x": 0.5})):
        changed = small_workflow()
        inputs(changed, class_type).update(change)
        assert not torch.equal(latent(server, changed)[1], first), class_type


def test_the_same_seed_gives_the_same_bits_after_another_seed_and_free(server):
    name, first = latent(server, small_workflow(seed=1))
    _, other = latent(server, small_workflow(seed=2))
    server.free()
    again_name, again = latent(server, small_workflow(seed=1))
    assert again_name != name  # it was really sampled again
    assert torch.equal(again, first)
    assert not torch.equal(other, first)


def test_a_run_after_an_interrupted_one_gives_the_same_bits(server):
    server.free()
    _, first = latent(server, small_workflow(seed=3))
    long = small_workflow(seed=4)
    inputs(long, "KSampler")["steps"] = 1000
    websocket = pytest.importorskip("websocket", reason="interrupting needs websocket-client")
    connection = websocket.create_connection(
        server.url.replace("http", "ws") + "/ws?clientId=test", timeout=60, http_no_proxy=["*"]
    )
    try:
        posted = server.post("/prompt", {"prompt": long, "client_id": "test"})
        sampler = node_id(long, "KSampler")
        while True:  # until some steps are done
            message = connection.recv()
            event = json.loads(message) if isinstance(message, str) else {"type": "preview"}
            data = event.get("data", {})
            if event["type"] == "progress" and data["node"] == sampler and data["value"] >= 3:
                break
        server.interrupt()
        with pytest.raises(RuntimeError, match=r"interrupted in node \d+ \(KSampler\)"):
            server.wait(posted["prompt_id"], timeout=60)
    finally:
        connection.close()
    server.free()
    assert torch.equal(latent(server, small_workflow(seed=3))[1], first)
