"""Prepared photographs to latents, once, so that training needs no VAE.

    python -m training.photos.encode FOLDER --vae FILE

FILE is an SD1.5 VAE, or a whole SD1.5 checkpoint. Beside every photos-*.tar a latents-*.tar is
written, and index.npz when all are there. A run that was killed goes on where it stopped.

Face2Diffusion and FaceStudio see pictures through frozen encoders, which look once as well:

    ... --system face2diffusion --face-encoder msid.pt
    ... --system facestudio --clip-vision FILE [FILE ...] --model-pack .../buffalo_l

Latents that are there already are kept. FaceStudio's face encoder is the ArcFace of the model pack,
or the MSID of a --face-encoder; an earlier FaceStudio file that has its own style encoder can stand
in for --clip-vision. Both kinds of own encoders go into the trained file.
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
from training.command_line import folder_to_read, goes_on
from training.systems import WITH_ENCODERS

from .dataset import LATENTS, seen_file, shard_number, write_index
from .frame import by_shape
from .prepare import PHOTOS, REPORT_JSON, add_detector_options
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


def load_decoder(path: Path, device: str | torch.device):
    """Scaled latents to pictures (B, 3, 8 h, 8 w) in 0..1, float32, with a gradient. Raises
    FlashFaceError as `load_encoder` does."""
    import comfy.latent_formats

    network = load_vae(path).first_stage_model
    assert network is not None
    network.float().requires_grad_(False).to(device)
    scale = comfy.latent_formats.SD15().process_out

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return (network.decode(scale(latents)) + 1) / 2

    return decode


def encode_folder(folder: Path, encoder: Encoder, vae_hash: str) -> None:
    """Raises FlashFaceError for a folder that prepare did not finish, a damaged shard, and latents
    that another VAE made."""
    shards = _finished_shards(folder)
    _check_same_vae(folder, vae_hash)
    for path in tqdm(shards, desc="Encoding", unit="shard"):
        encoded = path.with_name(path.name.replace("photos-", "latents-"))
        if encoded.exists():
            continue
        write_shard(encoded, _entries(_whole_samples(path), encoder))
    write_index(folder)


def see_folder(folder: Path, system: str, encoders) -> None:
    """encoders: see.Encoders. Raises FlashFaceError for a damaged shard, and for what other
    encoders have seen."""
    from .see import begin, see_shard

    begin(folder, system, encoders)
    for path in tqdm(_finished_shards(folder), desc="Looking", unit="shard"):
        seen = folder / seen_file(shard_number(path), system)
        if not seen.exists():
            samples = _whole_samples(path)
            see_shard(encoders, lambda n, all=samples: _shown(all[n]), len(samples), seen)


def _finished_shards(folder: Path) -> list[Path]:
    shards, report = sorted(folder.glob(PHOTOS)), folder / REPORT_JSON
    expected = json.loads(report.read_text())["shards"] if report.is_file() else None
    if not shards or len(shards) != expected:
        raise FlashFaceError(
            f"{folder} holds no finished photographs; run python -m training.photos.prepare "
            "SOURCE --out FOLDER first."
        )
    return shards


def _whole_samples(path: Path) -> list[Sample]:
    samples, trouble = read_shard(path)
    if trouble:
        raise FlashFaceError(
            f"{path.name} is damaged ({trouble}); delete it and run prepare again."
        )
    return samples


def _shown(sample: Sample):
    from .see import Shown

    about = json.loads(sample.parts["json"].read())
    picture, face = (_read_rgb(sample.parts[name].read()) for name in ("jpg", "face.png"))
    return Shown(picture, face, about["box"], about.get("points", ()))


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
            f"{name}.npy": by_shape(encoder, [_pixels(s.parts[extension].read()) for s in batch])
            for name, extension in (("picture", "jpg"), ("face", "face.png"))
        }
        for row, sample in enumerate(batch):
            parts = {name: _npy(values[row]) for name, values in latents.items()}
            parts |= {name: sample.parts[name].read() for name in ("txt", "json")}
            yield sample.key, parts


def _pixels(data: bytes) -> torch.Tensor:
    return _read_rgb(data).float() / 255


def _read_rgb(data: bytes) -> torch.Tensor:
    """uint8 (H, W, 3)"""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))


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


def _load_encoders(options: argparse.Namespace):
    from flashface_core.faces.detect import load_detector

    from .see import load_encoders

    pack = options.model_pack
    detector = load_detector(options.detector, pack) if pack else None
    given = (options.face_encoder, options.clip_vision, detector)
    return load_encoders(options.system, *given, file_hash)


@goes_on
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=folder_to_read)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true", default=not torch.cuda.is_available())
    parser.add_argument("--system", choices=WITH_ENCODERS, help="whose encoders look as well")
    parser.add_argument("--face-encoder", type=Path, help="an MSID, msid.pt")
    parser.add_argument("--clip-vision", type=Path, nargs="+", default=[], help="FaceStudio's")
    add_detector_options(parser)
    options = parser.parse_args(arguments)
    given = options.face_encoder or options.clip_vision or options.model_pack
    if given and not options.system:
        parser.error("encoders are given without --system, which says whose they are")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=options.cpu)
    try:
        encoders = _load_encoders(options) if options.system else None
        encode_folder(options.folder, load_encoder(options.vae), file_hash(options.vae))
        if encoders is not None:
            see_folder(options.folder, options.system, encoders)
    except FlashFaceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
