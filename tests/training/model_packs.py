"""A small InsightFace model pack, and photographs in which it finds faces and knows people."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ARCFACE_POINTS = np.array(
    [[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]]
)  # of a 112 x 112 crop
PICTURE, CELLS, HALF = 640, 8, 112


def make_model_pack(folder: Path) -> Path:
    """A pack in the published layouts: SCRFD with key points that takes a red square for the
    middle of a face, ArcFace that looks at 8 x 8 cells. Skips the test without InsightFace."""
    pytest.importorskip("insightface", reason="InsightFace is optional")
    onnx = pytest.importorskip("onnx")
    folder.mkdir(parents=True)
    onnx.save(scrfd(onnx), folder / "det_tiny.onnx")
    onnx.save(arcface(onnx), folder / "w600k_tiny.onnx")
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


def scrfd(onnx):
    """Scores (N, 1), box distances (N, 4) and key points (N, 10) of strides 8, 16 and 32, each in
    units of its stride, two anchors per cell."""
    node, outputs, constants, nodes = onnx.helper.make_node, {}, {}, []
    points = ((ARCFACE_POINTS - 56) * 2 / 32).astype(np.float32).reshape(1, 10)
    for width, what in ((1, "score"), (4, "bbox"), (10, "kps")):
        for stride in (8, 16, 32):
            count = 2 * (PICTURE // stride) ** 2
            outputs[f"{what}_{stride}"] = [count, width]
            values = {"score": 0.0, "bbox": HALF / 32, "kps": points}[what]
            constants[f"{what}_{stride}_values"] = np.zeros((count, width), np.float32) + values
            if (what, stride) != ("score", 32):
                name = f"{what}_{stride}"
                nodes.append(node("Identity", [f"{name}_values"], [name]))
    constants |= {
        "red": np.array([20, -20, 0], np.float32).reshape(1, 3, 1, 1),
        "bias": np.array([-34], np.float32),
        "cells": np.array([-1, 1]),
        "none": np.zeros(((PICTURE // 32) ** 2, 1), np.float32),
    }
    nodes += [
        node("AveragePool", ["input.1"], ["pooled"], kernel_shape=[32, 32], strides=[32, 32]),
        node("Conv", ["pooled", "red", "bias"], ["logit"]),
        node("Sigmoid", ["logit"], ["likely"]),
        node("Reshape", ["likely", "cells"], ["first_anchor"]),
        node("Concat", ["first_anchor", "none"], ["both"], axis=1),
        node("Reshape", ["both", "cells"], ["score_32"]),
    ]
    return model(onnx, nodes, {"input.1": [1, 3, PICTURE, PICTURE]}, outputs, constants)


def arcface(onnx):
    """(N, 3, 112, 112) to (N, 512)."""
    node = onnx.helper.make_node
    weights = np.random.default_rng(0).standard_normal((3 * CELLS**2, 512)).astype(np.float32)
    nodes = [
        node("AveragePool", ["input.1"], ["cells"], kernel_shape=[14, 14], strides=[14, 14]),
        node("Flatten", ["cells"], ["flat"]),
        node("MatMul", ["flat", "weights"], ["embedding"]),
    ]
    inputs, outputs = {"input.1": ["N", 3, 112, 112]}, {"embedding": ["N", 512]}
    return model(onnx, nodes, inputs, outputs, {"weights": weights})


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
