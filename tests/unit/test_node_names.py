"""Sentences name nodes as the canvas shows them."""

import ast
import asyncio
import re

import pytest
from flashface_pack.nodes import FlashFaceExtension
from support.tools import ROOT

import nodes

FILES = sorted(
    path for folder in ("flashface_core", "nodes") for path in (ROOT / folder).rglob("*.py")
)
# In files that exist: an identity is saved again only where something in it differs.
KEPT = {"FlashFace for ComfyUI, FlashFaceIdentitySave"}


def shown_names() -> dict[str, str]:
    """By node id, of this pack and of core's oldest nodes, where the two differ."""
    shown = {
        name: nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name)
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        if node.__module__ == nodes.__name__
    }
    for node in asyncio.run(FlashFaceExtension().get_node_list()):
        schema = node.define_schema()
        shown[schema.node_id] = schema.display_name
    return {name: title for name, title in shown.items() if name != title}


NAMES = shown_names()
ANY_ID = re.compile(rf"\b({'|'.join(NAMES)})\b")


def texts(tree: ast.AST) -> list[ast.Constant]:
    """All strings, also pieces of f-strings, but for docstrings and node ids themselves."""
    no_text = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            no_text.add(node.value)
        if isinstance(node, ast.keyword) and node.arg == "node_id":
            no_text.add(node.value)
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [s for s in strings if isinstance(s.value, str) and s not in no_text]


def ids_in(source: str) -> list[tuple[int, str]]:
    return [
        (text.lineno, found)
        for text in texts(ast.parse(source))
        if text.value not in KEPT
        for found in ANY_ID.findall(text.value)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_names_a_node_by_its_id(path):
    found = ids_in(path.read_text())
    assert not found, [f"line {line}: {name} is {NAMES[name]!r}" for line, name in found]


def test_ids_in_sentences_are_found_and_in_docstrings_and_schemas_not():
    assert {"FlashFaceLoader", "ReferenceNetFromModel", "CLIPTextEncode"} <= NAMES.keys()
    assert ids_in('raise E(f"{x}; use FlashFaceLoader\'s MODEL.")') == [(1, "FlashFaceLoader")]
    assert ids_in('check("FaceStudioApply", 1)') == [(1, "FaceStudioApply")]
    assert not ids_in('"""FlashFaceLoader loads."""\nio.Schema(node_id="FlashFaceLoader")')
