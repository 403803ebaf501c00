"""training/ is a package of the repository's root, which goes last on the path: the pack's own
nodes/ must not hide ComfyUI's nodes module."""

import os
import sys
from pathlib import Path

import pytest
from support.tools import ROOT

# As the ComfyUI of these tests does, also where there is a GPU.
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
sys.path.append(str(ROOT))
sys.path.append(str(ROOT / "tests" / "training"))


@pytest.fixture(scope="module", autouse=True)
def own_precision():
    """accelerate keeps the first precision of a process, which several files may share."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


# Of tests that train on photographs; the modules that make them need optional packages.
@pytest.fixture(scope="session")
def vae(tmp_path_factory) -> Path:
    import photographs

    return photographs.write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors")


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    import photographs

    return photographs.write_source(tmp_path_factory.mktemp("photos") / "source")


@pytest.fixture(scope="session")
def data(source, vae, tmp_path_factory) -> Path:
    import photographs

    from training.photos import encode

    out = photographs.prepared(source, tmp_path_factory.mktemp("photos") / "data")
    encode.main([str(out), "--vae", str(vae), "--cpu"])
    return out


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    import photographs

    return photographs.write_weights(tmp_path_factory.mktemp("weights") / "fresh.safetensors")


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    import photographs

    return photographs.write_clip(tmp_path_factory.mktemp("clip") / "clip_l.safetensors")
