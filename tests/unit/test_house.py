"""Rules of the house that hold for every file."""

import ast
import graphlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeGuard

import pytest
from support.tools import ROOT

CORE = ROOT / "flashface_core"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(CORE.rglob("*.py"))
    if "comfy_adapter" not in path.parts and path.name != "__init__.py"
]
# The way of the data: a module imports only from those before it.
ORDER = [
    "errors",
    "font",
    "sites",
    "weights_file",
    "softmax",
    "capture",
    "people",
    "faces",
    "likeness",
    "features",
    "row_references",
    "flashface",
    "face2diffusion",
    "facestudio",
    "face_fusion",
]


def test_everything_outside_the_adapter_runs_without_comfyui():
    code = "import sys; sys.path.append(sys.argv[1]); sys.modules['comfy'] = None\n"
    code += "\n".join(f"import {module}" for module in MODULES)
    assert len(MODULES) >= 10
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_of_the_training_can_be_imported_before_they_find_comfyui():
    for package in ("accelerate", "matplotlib"):
        pytest.importorskip(package, reason="the training needs it")
    files = [*(ROOT / "training").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    commands = [file for file in files if 'if __name__ == "__main__"' in file.read_text()]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in commands]
    assert "training.tiny.compare" in names
    code = "import importlib, sys; sys.modules['comfy'] = None\n"
    code += "for name in sys.argv[1:]: importlib.import_module(name)"
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_imports_against_the_way_of_the_data():
    """In a folder all modules stand where the folder stands."""
    seen = set()
    for path in sorted(CORE.rglob("*.py")):
        *folders, name = path.relative_to(CORE).with_suffix("").parts
        name = folders[0] if folders else name
        if name in ("comfy_adapter", "tiny_text", "__init__"):
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == len(folders) + 1:
                imported = (node.module or "").split(".")[0]
                assert ORDER.index(imported) < ORDER.index(name), f"{path} imports {imported}"
    assert seen == set(ORDER)


def test_what_the_systems_share_in_the_adapter_knows_none_of_them():
    adapter = CORE / "comfy_adapter"
    folders = [path.name for path in adapter.iterdir() if (path / "__init__.py").is_file()]
    assert len(folders) == 3
    for path in adapter.glob("*.py"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if _is_relative(node)]
        assert not [node for node in imports if node.module.split(".")[0] in folders], path


def _is_relative(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is not None


def test_no_modules_import_each_other_in_a_circle_for_types_neither():
    files = [path for f in ("flashface_core", "nodes") for path in (ROOT / f).rglob("*.py")]
    modules = {path.relative_to(ROOT).with_suffix("").parts: path for path in files}
    graph = {module: _imported(module, path) & set(modules) for module, path in modules.items()}
    assert sum(map(len, graph.values())) > 200
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def _imported(module: tuple[str, ...], path: Path) -> set[tuple[str, ...]]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = *module[: -node.level], *(node.module.split(".") if node.module else ())
            found |= {base, *((*base, alias.name) for alias in node.names)}
    return found - {module}


def test_no_folder_hides_the_gallery():
    """Core takes the first of these names for a pack's templates, and serves no second one."""
    names = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [name for name in names if (ROOT / name).exists()] == ["workflows"]


def test_the_pack_declares_the_same_requirements_in_both_files():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if line.strip() and not line.startswith("#")]
    assert "\ndependencies = []\n" in (ROOT / "pyproject.toml").read_text()


def test_python_files_are_ascii():
    for folder in ("automation", "flashface_core", "nodes", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.read_text(encoding="utf-8").isascii(), path


def test_the_pack_needs_nothing_of_what_a_clone_has_besides():
    optional = {"automation", "api_examples", "benchmarks", "training", "toy_world", "tools"}
    for folder in ("flashface_core", "nodes"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.split(".")[0] for name in names} & optional, path


def test_no_file_of_the_pack_puts_anything_on_a_device_by_hand():
    for folder in ("flashface_core", "nodes"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert ".cuda(" not in text and 'to("cuda' not in text, path


# comfy-test's SYNTAX level refuses these in a published pack, and warns of the last.
REFUSED = (
    r"(?<![\w.])(torch\.)?nn\.(Linear|Conv[123]d|ConvTranspose[12]d|LayerNorm|GroupNorm|Embedding)"
    r"\s*\(",
    r"\.cuda\s*\(|\.to\s*\(\s*(torch\.device\s*\(\s*)?[\"']cuda",
    r"\bautocast\s*\(",
    r"torch\.load\s*\(",
)


def test_published_files_have_no_layer_or_loader_that_core_cannot_manage():
    files = [path for f in ("flashface_core", "nodes") for path in sorted((ROOT / f).rglob("*.py"))]
    assert len(files) > 50
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*files, ROOT / "__init__.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for pattern in REFUSED
        if not line.lstrip().startswith("#") and re.search(pattern, line)
    ]
    assert found == []


def test_every_line_that_is_broken_on_purpose_is_there_once():
    mutants = load_mutants()
    assert len({mutant.family for mutant in mutants}) >= 9
    for mutant in mutants:
        text = (CORE / mutant.file).read_text()
        assert text.count(mutant.line) == 1, mutant
        file, _, name = mutant.test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), mutant


def load_mutants():
    spec = importlib.util.spec_from_file_location("flashface_mutate", ROOT / "tests" / "mutate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.listed()
