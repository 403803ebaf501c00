"""InsightFace's model packs on this machine: models/insightface/models/<pack>/*.onnx."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import FlashFaceError

NO_PACK = "none"
INSTALL_INSIGHTFACE = (
    "install insightface and onnxruntime (onnxruntime-gpu for NVIDIA) with ComfyUI's Python"
)


def model_folder(pack: Path) -> Path | None:
    """The folder of a pack that holds its .onnx files, or None.

    antelopev2.zip holds a folder antelopev2, so that it is often one level too deep.
    """
    folders = [pack, *sorted(path for path in pack.glob("*") if path.is_dir())]
    return next((folder for folder in folders if any(folder.glob("*.onnx"))), None)


def find_model_packs(roots: Iterable[Path]) -> dict[str, Path]:
    """Packs by name, in roots like models/insightface; of two with one name, the first root's."""
    packs: dict[str, Path] = {}
    for root in roots:
        for path in sorted(root.joinpath("models").glob("*")):
            if path.is_dir() and model_folder(path) is not None:
                packs.setdefault(path.name, path)
    return packs


def choose_pack(
    detector: str, name: str, packs: Mapping[str, Path], roots: Sequence[Path]
) -> Path | None:
    """The pack to load; None: no InsightFace.

    auto takes another pack where the named one is not there, for any of them finds faces. Raises
    FlashFaceError where detector is insightface and the named pack is not there.
    """
    if detector not in ("auto", "insightface"):
        return None
    if name in packs:
        return packs[name]
    if detector == "auto":
        return next(iter(packs.values()), None)
    wanted = "buffalo_l" if name == NO_PACK else name
    raise FlashFaceError(
        f"There is no InsightFace model pack {name!r} among {', '.join(packs) or 'nothing'}; "
        f"unpack {wanted}.zip so that its .onnx files lie in {roots[0] / 'models' / wanted} and "
        "press R to refresh, or use the detector mtcnn, which needs no such files."
    )
