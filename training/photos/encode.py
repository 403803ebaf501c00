"""Prepared photographs to latents, once, so that training needs no VAE.

    python -m training.photos.encode FOLDER --vae FILE

FILE is an SD1.5 VAE, or a whole SD1.5 checkpoint. Beside every photos-*.tar a latents-*.tar is
written, and index.npz when all are there. A run that was killed goes on where it stopped.
"""

import argparse
import hashlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from flashface_core.errors import FlashFaceError
from flashface_core.weights_file import read_state_dict
from training.comfyui import find_comfyui

from .dataset import LATENTS, write_index
from .prepare import PHOTOS, REPORT_JSON
from .shards import Sample, read_shard, write_shard

Encoder = Callable[[torch.Tensor], torch.Tensor]
"""Pictures (B, H, W, 3) in 0..1 to scaled latents (B, 4, H / 8, W / 8)."""

ENCODING = "encoding.json"
BATCH = 8
VAE_PREFIX = "first_stage_model."


def load_vae(path: Path):
    """Core's VAE. Raises FlashFaceError for a file that is not an SD1.5 VAE."""
    import comfy.sd

    state, _ = read_state_dict(path)
    if any(key.startswith(VAE_PREFIX) for key in state):
        state = {
            key.removeprefix(VAE_PREFIX): value
            for key, value in state.items()
            if key.startswith(VAE_PREFIX)
        }
    vae = comfy.sd.VAE(sd=state)
    if vae.first_stage_model is None or vae.latent_channels != 4:
        raise FlashFaceError(
            f"{path.name} is not an SD1.5 VAE with four latent channels; give the VAE or the whole "
            "checkpoint of an SD1.5 model."
        )
    return vae


def load_encoder(path: Path) -> Encoder:
    """The posterior mean. Raises FlashFaceError for a file that is not an SD1.5 VAE."""
    import comfy.latent_formats

    vae = load_vae(path)
    scale = comfy.latent_formats.SD15().process_in

    @torch.no_grad()
    def encode(pictures: torch.Tensor) -> torch.Tensor:
        return scale(vae.encode(pictures)).float().cpu()

    return encode


def encode_folder(folder: Path, encoder: Encoder, vae_hash: str) -> None:
    """Raises FlashFaceError for a folder that prepare did not finish, a damaged shard, and latents
    that another VAE made."""
    shards, report = sorted(folder.glob(PHOTOS)), folder / REPORT_JSON
    expected = json.loads(report.read_text())["shards"] if report.is_file() else None
    if not shards or len(shards) != expected:
        raise FlashFaceError(
            f"{folder} holds no finished photographs; run python -m training.photos.prepare "
            "SOURCE --out FOLDER first."
        )
    _check_same_vae(folder, vae_hash)
    for path in tqdm(shards, desc="Encoding", unit="shard"):
        encoded = path.with_name(path.name.replace("photos-", "latents-"))
        if encoded.exists():
            continue
        samples, trouble = read_shard(path)
        if trouble:
            raise FlashFaceError(
                f"{path.name} is damaged ({trouble}); delete it and run prepare again."
            )
        write_shard(encoded, _entries(samples, encoder))
    write_index(folder)


def _check_same_vae(folder: Path, vae_hash: str) -> None:
    path = folder / ENCODING
    text = json.dumps({"vae_sha256": vae_hash}) + "\n"
    if not any(folder.glob(LATENTS)):
        path.write_text(text, newline="\n")
    elif not path.is_file() or path.read_text() != text:
        raise FlashFaceError(
            f"The latents in {folder} were made by another VAE; delete its {LATENTS}, or use that "
            "VAE."
        )


def _entries(samples: list[Sample], encoder: Encoder) -> Iterator[tuple[str, dict[str, bytes]]]:
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        latents = {
            f"{name}.npy": encoder(torch.stack([_pixels(s.parts[extension].read()) for s in batch]))
            for name, extension in (("picture", "jpg"), ("face", "face.png"))
        }
        for row, sample in enumerate(batch):
            parts = {name: _npy(values[row]) for name, values in latents.items()}
            parts |= {name: sample.parts[name].read() for name in ("txt", "json")}
            yield sample.key, parts


def _pixels(data: bytes) -> torch.Tensor:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return torch.from_numpy(np.array(picture)).float() / 255


def _npy(latent: torch.Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, latent.half().numpy(), allow_pickle=False)
    return file.getvalue()


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true", default=not torch.cuda.is_available())
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=options.cpu)
    try:
        encode_folder(options.folder, load_encoder(options.vae), file_hash(options.vae))
    except FlashFaceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
