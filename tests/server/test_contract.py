"""The nodes as a real ComfyUI describes them: what people's workflows are saved with."""

import pytest

pytestmark = pytest.mark.server

ANY = object()  # sockets have no default
WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
OLD_SOCKETS = ("CLIP", "CLIP_VISION", "CONDITIONING", "IMAGE", "MASK", "MODEL", "SIGMAS", "VAE")

SELECT = ["largest", "leftmost", "rightmost", "index", "every face"]
NO_FACE = ["error", "skip image", "use whole image"]
WEIGHTS = ["as four photos", "as given"]
ATTENTION = ["whole image", "inside the region"]
PRESETS = ["custom", "stable identity", "strong identity", "change age", "subtle"]
DETECTORS = ["auto", "insightface", "mtcnn", "opencv zoo (YuNet + SFace)"]
DTYPES = ["default", "fp32", "fp16", "bf16"]

TRAINING_FREE = ["none (training-free)"]
FILES = (["flashface.ckpt", "flashface.safetensors"], ["none"])  # what the combos over folders show

# node id: required inputs, optional inputs, outputs. An input is id, type or combo values, default.
CONTRACT = {
    "FlashFaceLoader": (
        [
            ("model_name", ["flashface.ckpt", "flashface.safetensors"], ANY),
            ("weight_dtype", DTYPES, "default"),
        ],
        [],
        [("MODEL", "MODEL"), ("REFERENCE_NET", "REFERENCE_NET")],
    ),
    "FlashFaceTinyModels": (
        [],
        [],
        [("MODEL", "MODEL"), ("REFERENCE_NET", "REFERENCE_NET"), ("CLIP", "CLIP"), ("VAE", "VAE")],
    ),
    "FlashFaceTinyPhotos": ([("person", "INT", 0)], [], [("IMAGE", "photos")]),
    "ReferenceNetFromModel": (
        [("model", "MODEL", ANY)],
        [],
        [("REFERENCE_NET", "REFERENCE_NET")],
    ),
    "FlashFaceDetectorLoader": (
        [("detector", DETECTORS, "auto"), ("model_pack", ["none"], ANY)],
        [],
        [("FACE_DETECTOR", "FACE_DETECTOR")],
    ),
    "FlashFaceIdentity": (
        [
            ("image", "IMAGE", ANY),
            ("select", SELECT, "largest"),
            ("index", "INT", 0),
            ("crop_margin", "FLOAT", 0.0),
            ("no_face", NO_FACE, "error"),
            ("weight", "FLOAT", 1.0),
            ("reference_weight", WEIGHTS, "as four photos"),
            ("name", "STRING", ""),
        ],
        [
            ("detector", "FACE_DETECTOR", ANY),
            ("boxes", "BOUNDING_BOX", ANY),
            ("append_to", "FACE_IDENTITY", ANY),
        ],
        [
            ("FACE_IDENTITY", "FACE_IDENTITY"),
            ("IMAGE", "faces"),
            ("IMAGE", "preview"),
            ("INT", "count"),
        ],
    ),
    "FlashFaceIdentityPlace": (
        [
            ("identity", "FACE_IDENTITY", ANY),
            ("x", "FLOAT", 0.3),
            ("y", "FLOAT", 0.1),
            ("width", "FLOAT", 0.3),
            ("height", "FLOAT", 0.3),
            ("strength", "FLOAT", 1.0),
            ("attention", ATTENTION, "whole image"),
        ],
        [("mask", "MASK", ANY)],
        [("FACE_IDENTITY", "FACE_IDENTITY")],
    ),
    "FlashFaceIdentityMix": (
        [
            ("identity_a", "FACE_IDENTITY", ANY),
            ("identity_b", "FACE_IDENTITY", ANY),
            ("ratio", "FLOAT", 0.5),
        ],
        [],
        [("FACE_IDENTITY", "FACE_IDENTITY")],
    ),
    "FlashFaceIdentityGroup": (
        [("identity_1", "FACE_IDENTITY", ANY), ("identity_2", "FACE_IDENTITY", ANY)],
        [("identity_3", "FACE_IDENTITY", ANY), ("identity_4", "FACE_IDENTITY", ANY)],
        [("FACE_IDENTITY", "FACE_IDENTITY")],
    ),
    "FlashFaceIdentitySave": (
        [("identity", "FACE_IDENTITY", ANY), ("filename", "STRING", "")],
        [],
        [],
    ),
    "FlashFaceIdentityLoad": (
        [("filename", ["none"], ANY)],
        [],
        [("FACE_IDENTITY", "FACE_IDENTITY")],
    ),
    "FlashFaceEncode": (
        [
            ("identity", "FACE_IDENTITY", ANY),
            ("reference_net", "REFERENCE_NET", ANY),
            ("vae", "VAE", ANY),
            ("negative", "CONDITIONING", ANY),
        ],
        [
            ("sigmas", "SIGMAS", ANY),
            ("reference_steps", ["exact", "9 anchors", "5 anchors"], "exact"),
        ],
        [("FACE_FEATURES", "FACE_FEATURES")],
    ),
    "FlashFaceGuidance": (
        [
            ("preset", PRESETS, "custom"),
            ("feature_strength", "FLOAT", 1.2),
            ("face_guidance", "FLOAT", 3.2),
            ("launch_timestep", "INT", 750),
            ("early_strength", "FLOAT", 0.85),
            ("guidance_rescale", "FLOAT", 0.5),
            ("start_percent", "FLOAT", 0.0),
            ("end_percent", "FLOAT", 1.0),
            ("coarse", "FLOAT", 1.0),
            ("medium", "FLOAT", 1.0),
            ("fine", "FLOAT", 1.0),
        ],
        [],
        [("FACE_GUIDANCE", "FACE_GUIDANCE")],
    ),
    "FlashFaceGuidancePlot": (
        [("guidance", "FACE_GUIDANCE", ANY), ("steps", "INT", 30)],
        [("sigmas", "SIGMAS", ANY)],
        [("IMAGE", "IMAGE")],
    ),
    "FlashFaceSimilarity": (
        [("image", "IMAGE", ANY), ("identity", "FACE_IDENTITY", ANY)],
        [("detector", "FACE_DETECTOR", ANY)],
        [("FLOAT", "score"), ("IMAGE", "best"), ("INT", "index"), ("STRING", "report")],
    ),
    "FlashFaceCropFace": (
        [
            ("image", "IMAGE", ANY),
            ("select", ["largest", "leftmost", "rightmost", "index"], "largest"),
            ("index", "INT", 0),
            ("margin", "FLOAT", 1.0),
            ("size", "INT", 768),
        ],
        [("detector", "FACE_DETECTOR", ANY), ("boxes", "BOUNDING_BOX", ANY)],
        [("IMAGE", "crop"), ("MASK", "face"), ("FACE_CROP", "FACE_CROP")],
    ),
    "FlashFacePasteFace": (
        [
            ("image", "IMAGE", ANY),
            ("crop", "IMAGE", ANY),
            ("face_crop", "FACE_CROP", ANY),
            ("feather", "FLOAT", 0.1),
        ],
        [("mask", "MASK", ANY)],
        [("IMAGE", "IMAGE")],
    ),
    "Face2DiffusionLoader": (
        [("mapping_name", ["none"], ANY), ("encoder_name", ["none"], ANY)],
        [],
        [("FACE2DIFFUSION", "FACE2DIFFUSION")],
    ),
    "Face2DiffusionTextEncode": (
        [
            ("clip", "CLIP", ANY),
            ("face2diffusion", "FACE2DIFFUSION", ANY),
            ("identity", "FACE_IDENTITY", ANY),
            ("text", "STRING", ANY),
            ("placeholder", "STRING", "f l"),
        ],
        [("expression", "FACE_IDENTITY", ANY)],
        [("CONDITIONING", "CONDITIONING")],
    ),
    "FaceStudioLoader": (
        [("model_name", ["none"], ANY)],
        [],
        [("FACESTUDIO", "FACESTUDIO")],
    ),
    "FaceStudioEncode": (
        [
            ("facestudio", "FACESTUDIO", ANY),
            ("identity", "FACE_IDENTITY", ANY),
            ("alpha", "FLOAT", 1.0),
            ("mask_face", "BOOLEAN", False),
        ],
        [
            ("style_image", "IMAGE", ANY),
            ("text", "CONDITIONING", ANY),
            ("clip_vision", "CLIP_VISION", ANY),
            ("clip_vision_2", "CLIP_VISION", ANY),
            ("clip_vision_3", "CLIP_VISION", ANY),
            ("detector", "FACE_DETECTOR", ANY),
        ],
        [("CONDITIONING", "positive"), ("CONDITIONING", "negative")],
    ),
    "FaceStudioApply": (
        [("model", "MODEL", ANY), ("facestudio", "FACESTUDIO", ANY)],
        [],
        [("MODEL", "MODEL")],
    ),
    "FaceFusionLoader": (
        [("model_name", TRAINING_FREE, ANY)],
        [],
        [("FACE_FUSION", "FACE_FUSION")],
    ),
    "FaceFusionEncode": (
        [
            ("face_fusion", "FACE_FUSION", ANY),
            ("identity", "FACE_IDENTITY", ANY),
            ("vae", "VAE", ANY),
            ("text", "CONDITIONING", ANY),
        ],
        [],
        [("FACE_FUSION_FEATURES", "FACE_FUSION_FEATURES")],
    ),
    "FaceFusionApply": (
        [
            ("model", "MODEL", ANY),
            ("features", "FACE_FUSION_FEATURES", ANY),
            ("strength", "FLOAT", 1.0),
            ("reference_noise", ["as trained", "current step", "none"], "as trained"),
            ("start_percent", "FLOAT", 0.0),
            ("end_percent", "FLOAT", 1.0),
        ],
        [],
        [("MODEL", "MODEL")],
    ),
    "FlashFaceApply": (
        [("model", "MODEL", ANY), ("features", "FACE_FEATURES", ANY)],
        [("guidance", "FACE_GUIDANCE", ANY)],
        [("MODEL", "MODEL")],
    ),
}


def described(info: dict, kind: str) -> list[tuple]:
    rows = []
    for name in info["input_order"].get(kind, []):
        type_, options = info["input"][kind][name]
        values = options["options"] if type_ == "COMBO" else type_
        rows.append((name, values, options.get("default", ANY)))
    return rows


@pytest.fixture(scope="module")
def object_info(server):
    return server.get("/object_info")


@pytest.mark.parametrize("node", CONTRACT)
def test_a_node_has_the_promised_inputs_and_outputs(object_info, node):
    required, optional, outputs = CONTRACT[node]
    info = object_info[node]
    for name, values, _ in required:  # files of other tests may be there as well
        if values in FILES:
            options = info["input"]["required"][name][1]["options"]
            assert options
            options[:] = values
        if values == TRAINING_FREE:  # between the user's files and those that came with the pack
            options = info["input"]["required"][name][1]["options"]
            assert all("tiny" in file for file in options[options.index(*values) + 1 :])
            options[:] = values
    assert described(info, "required") == required
    assert described(info, "optional") == optional
    assert list(zip(info["output"], info["output_name"], strict=True)) == outputs
    identity = "Identity" in node or node in ("FlashFaceDetectorLoader", "FlashFaceSimilarity")
    others = node.startswith(("Face2Diffusion", "FaceStudio", "FaceFusion"))
    group = "/identity" if identity else "/other methods" if others else ""
    assert info["category"] == f"FlashFace{group}"
    assert info["display_name"].startswith(
        ("FlashFace ", "Face2Diffusion ", "FaceStudio ", "Face Fusion ")
    )
    assert info["description"]
    assert all(info["output_tooltips"]) and len(info["output_tooltips"]) == len(outputs)


def test_every_node_of_the_pack_is_in_the_contract_and_no_other(object_info):
    ours = {name for name, i in object_info.items() if i["python_module"].endswith("flashface")}
    assert ours == set(CONTRACT)


@pytest.mark.parametrize("node", CONTRACT)
def test_a_node_is_found_by_other_words(object_info, node):
    if "search_aliases" not in object_info["KSampler"]:
        pytest.skip("this ComfyUI has no place for them")
    assert object_info[node]["search_aliases"]


def test_what_experts_set_is_marked_for_frontends_that_fold_it_away(object_info):
    marked = {
        (node, name)
        for node in CONTRACT
        for name, (_, options) in described_inputs(object_info, node).items()
        if options.get("advanced")
    }
    when = ("early_strength", "guidance_rescale", "start_percent", "end_percent")
    assert marked == {
        ("FlashFaceLoader", "weight_dtype"),
        ("FlashFaceIdentity", "crop_margin"),
        ("FlashFaceIdentity", "reference_weight"),
        ("FlashFaceEncode", "reference_steps"),
        *(("FlashFaceGuidance", name) for name in (*when, "coarse", "medium", "fine")),
    }


def described_inputs(object_info, node) -> dict[str, list]:
    inputs = object_info[node]["input"]
    return {**inputs["required"], **inputs.get("optional", {})}


@pytest.mark.parametrize("node", CONTRACT)
def test_every_widget_says_what_it_does(object_info, node):
    for name, (type_, options) in described_inputs(object_info, node).items():
        assert type_ not in WIDGETS or options.get("tooltip"), f"{node}.{name} has no tooltip"


@pytest.mark.parametrize("node", CONTRACT)
def test_no_frontend_makes_a_widget_of_a_socket(object_info, node):
    """Types without a widget in any frontend are core's old ones alone."""
    for name, (type_, options) in described_inputs(object_info, node).items():
        is_socket = type_ not in WIDGETS and type_ not in OLD_SOCKETS
        assert options.get("forceInput", False) == is_socket, f"{node}.{name}"
