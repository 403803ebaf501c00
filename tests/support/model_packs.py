"""A small InsightFace model pack, and photographs in which it finds faces and knows people."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ARCFACE_POINTS = np.array(
    [[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]]
)  # of a 112 x 112 crop
PICTURE, CELLS, HALF = 640, 8, 112


def make_model_pack(folder: Path, size: int | None = PICTURE, ballast: int = 0) -> Path:
    """A pack in the published layouts: SCRFD with key points that takes a red square for the
    middle of a face, ArcFace that looks at 8 x 8 cells. Skips the test without InsightFace.

    size: the only one that SCRFD looks at; None: any. ballast: further bytes of ArcFace's weights.
    """
    pytest.importorskip("insightface", reason="InsightFace is optional")
    onnx = pytest.importorskip("onnx", reason="the test builds ONNX graphs with it")
    folder.mkdir(parents=True)
    onnx.save(scrfd(onnx, size), folder / "det_tiny.onnx")
    onnx.save(arcface(onnx, ballast), folder / "w600k_tiny.onnx")
    return folder


def model(onnx, nodes, inputs, outputs, constants):
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        tensors,
    )
    opset = onnx.helper.make_opsetid("", 13)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def scrfd(onnx, size: int | None):
    """Scores (N, 1), box distances (N, 4) and key points (N, 10) of strides 8, 16 and 32, each in
    units of its stride, two anchors per cell."""
    node, nodes = onnx.helper.make_node, []
    points = ((ARCFACE_POINTS - 56) * 2 / 32).astype(np.float32).reshape(1, 10)
    red = np.zeros((2, 3, 1, 1), np.float32)
    red[0, :, 0, 0] = 20, -20, 0
    constants = {
        "rows": np.array([-1, 1]),
        "zero": np.zeros(1, np.float32),
        "bbox": np.full((1, 4), HALF / 32, np.float32),
        "kps": points,
    }
    for stride in (8, 16, 32):
        constants[f"weight_{stride}"] = red * (stride == 32)  # only the coarsest finds anything
        constants[f"bias_{stride}"] = np.array([-34, -34], np.float32)
        kernel = dict(kernel_shape=[stride, stride], strides=[stride, stride])
        nodes += [
            node("AveragePool", ["input.1"], [f"pooled_{stride}"], **kernel),
            node(
                "Conv",
                [f"pooled_{stride}", f"weight_{stride}", f"bias_{stride}"],
                [f"logit_{stride}"],
            ),
            node("Sigmoid", [f"logit_{stride}"], [f"likely_{stride}"]),
            node("Transpose", [f"likely_{stride}"], [f"cells_{stride}"], perm=[0, 2, 3, 1]),
            node("Reshape", [f"cells_{stride}", "rows"], [f"score_{stride}"]),
            node("Mul", [f"score_{stride}", "zero"], [f"none_{stride}"]),
            node("Add", [f"none_{stride}", "bbox"], [f"bbox_{stride}"]),
            node("Add", [f"none_{stride}", "kps"], [f"kps_{stride}"]),
        ]
    outputs = {
        f"{what}_{stride}": [2 * (size // stride) ** 2 if size else None, width]
        for what, width in (("score", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    }
    sides = [size, size] if size else ["height", "width"]
    return model(onnx, nodes, {"input.1": [1, 3, *sides]}, outputs, constants)


def arcface(onnx, ballast: int):
    """(N, 3, 112, 112) to (N, 512)."""
    node = onnx.helper.make_node
    weights = np.random.default_rng(0).standard_normal((3 * CELLS**2, 512)).astype(np.float32)
    constants = {"weights": weights, "none": np.zeros(1, np.float32)}
    constants["table"] = np.ones((1 + ballast // (4 * 512), 512), np.float32)
    nodes = [
        node("AveragePool", ["input.1"], ["cells"], kernel_shape=[14, 14], strides=[14, 14]),
        node("Flatten", ["cells"], ["flat"]),
        node("MatMul", ["flat", "weights"], ["product"]),
        # A row of ones that depends on the input, so that the table is not folded away.
        node("ReduceMin", ["flat"], ["lowest"], keepdims=0),
        node("Mul", ["lowest", "none"], ["nothing"]),
        node("Cast", ["nothing"], ["index"], to=onnx.TensorProto.INT64),
        node("Gather", ["table", "index"], ["ones"]),
        node("Mul", ["product", "ones"], ["embedding"]),
    ]
    inputs, outputs = {"input.1": ["N", 3, 112, 112]}, {"embedding": ["N", 512]}
    return model(onnx, nodes, inputs, outputs, constants)


def photograph(person: int, number: int, cells: tuple[tuple[int, int], ...] = ((9, 8),)):
    """A face is 8 x 8 coloured cells, most of them the person's, around a red square."""
    rng = np.random.default_rng([person, number])
    behind = rng.integers(60, 200, (16, 16, 3), dtype=np.uint8)
    pixels = behind.repeat(PICTURE // 16, axis=0).repeat(PICTURE // 16, axis=1)
    own = np.random.default_rng(person).uniform(-1, 1, (CELLS, CELLS, 3))
    texture = 127.5 + 100 * (0.75 * own + 0.5 * rng.uniform(-1, 1, own.shape))
    patch = texture.clip(0, 255).astype(np.uint8).repeat(28, axis=0).repeat(28, axis=1)
    for column, row in cells:
        x, y = 32 * column, 32 * row
        pixels[y - HALF : y + HALF, x - HALF : x + HALF] = patch
        pixels[y : y + 32, x : x + 32] = (255, 0, 0)
    return Image.fromarray(pixels)
