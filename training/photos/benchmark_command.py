"""--multiid-bench and --face2diffusion-protocol of training.evaluate: what they need and run."""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flashface_core.errors import FlashFaceError
from training.systems import FACE2DIFFUSION, FACE_FUSION, FACESTUDIO
from training.systems import SYSTEMS as TRAINED

log = logging.getLogger("flashface.training")

BENCHMARKS = ("multiid_bench", "face2diffusion_protocol")
ELSEWHERE = "ipadapter"  # drawn by a pack of its own, and only measured here
SYSTEMS = (*TRAINED, ELSEWHERE, "none")
# Least and most files of --system-weights, and what they are.
WEIGHTS = {
    FACE2DIFFUSION: (2, 2, "mapping.pt and msid.pt"),
    FACESTUDIO: (1, 1, "one FaceStudio file"),
    FACE_FUSION: (0, 1, "one Face Fusion file, or none for training-free"),
}
NEEDED = ("checkpoint", "clip", "vae")
PEOPLE = range(1, 5)  # of --most-people
# Systems that draw one person alone.
ALONE = {FACE2DIFFUSION: "Face2Diffusion describes one person, by one word"}


def problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options of a benchmark, before anything is loaded."""
    given = {name for name, value in vars(options).items() if value is not None}
    chosen = [name for name in BENCHMARKS if name in given]
    system = options.system or SYSTEMS[0]
    if len(chosen) > 1:
        return f"{_option(chosen[0])} and {_option(chosen[1])} are two benchmarks; give one"
    folder = getattr(options, chosen[0])
    if not folder.is_dir():
        return f"{_option(chosen[0])} is {folder}, which is not a folder"
    if options.out is None:
        return f"{_option(chosen[0])} needs --out FOLDER, where the pictures are kept"
    if options.sweep:
        return f"--sweep goes without {_option(chosen[0])}"
    needed = () if system == ELSEWHERE else NEEDED
    if missing := [name for name in needed if name not in given]:
        return f"--system {system} needs {', '.join(map(_option, missing))} as well"
    if "clip_vision" in given and "clip" not in given:
        return "--clip-vision needs --clip as well"
    if chosen[0] == BENCHMARKS[1] and "prompts" not in given:
        return "--face2diffusion-protocol needs --prompts FILE, one per line with S* for the person"
    if chosen[0] == BENCHMARKS[0] and "prompts" in given:
        return "--prompts goes without --multiid-bench, which has its own"
    if not {"model_pack", "zoo"} & given:
        return (
            f"{_option(chosen[0])} compares faces: give --model-pack (InsightFace, with a "
            "recognition model such as buffalo_l's), --zoo (YuNet and SFace of OpenCV Zoo), or both"
        )
    for name in ("zoo", "more_photos"):
        path = getattr(options, name)
        if path is not None and not path.is_dir():
            return f"{_option(name)} is {path}, which is not a folder"
    if "more_photos" in given and chosen[0] != BENCHMARKS[0]:
        return "--more-photos goes with --multiid-bench"
    if "most_people" in given and chosen[0] != BENCHMARKS[0]:
        return "--most-people goes with --multiid-bench"
    if "most_people" in given and options.most_people not in PEOPLE:
        return f"--most-people is {options.most_people}; MultiID-Bench has 1 to {PEOPLE[-1]}"
    return _weights_problem(system, options.system_weights or [])


def _weights_problem(system: str, weights: list[Path]) -> str | None:
    least, most, what = WEIGHTS.get(system, (0, 0, ""))
    if not least <= len(weights) <= most:
        wanted = f"takes {what}" if what else "takes none"
        return f"--system-weights gives {len(weights)} files; --system {system} {wanted}"
    for path in weights:
        if not path.is_file():
            return f"--system-weights has {path}, which is not a file"
    return None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(options: argparse.Namespace) -> dict[str, float | int]:
    """Draws what is missing, measures, and saves the table in --out.

    Raises FlashFaceError for a benchmark or files that cannot be used.
    """
    from training.clip import load_clip_score, load_text_encoder

    from .benchmark import draw_cases, missing_pictures, score_cases, write_cases
    from .benchmark_report import flat, rows_of, save_benchmark, table
    from .encode import load_vae
    from .systems import Shared, make_system

    name, detectors = options.system or SYSTEMS[0], _detectors(options)
    sets = _cases(options)
    text = load_text_encoder(options.clip) if options.clip else None
    clip = load_clip_score(options.clip_vision, text) if options.clip_vision and text else None
    system = vae = None
    if name != ELSEWHERE:
        assert text is not None
        vae = load_vae(options.vae)
        shared = Shared(options.checkpoint, text, vae, detectors[0])
        system = make_system(name, shared, options.system_weights or [])
        if options.steps:
            system = system._replace(settings=system.settings._replace(steps=options.steps))
        system = system._replace(size=options.size or system.size)
    files = _files(options, name)
    scores, rows, left_out = {}, [], []
    for subset, cases in sets.items():
        folder = options.out / subset.folder
        if subset.people != (1,) and name in ALONE:
            left_out.append(f"{ALONE[name]}: cases of {subset.label} ({len(cases)}) have no row.")
            continue
        settings = _settings(name, system, options.seed, files, cases, detectors[0].name)
        write_cases(folder, cases, settings)
        if system is not None:
            draw_cases(folder, cases, system, vae, detectors[0], options.seed)
        missing = missing_pictures(folder, cases)
        if system is None and subset.people != (1,) and len(missing) == len(cases):
            left_out.append(f"{subset.folder} has no picture: cases of {subset.label} have no row.")
            continue
        if missing and system is None:
            raise FlashFaceError(
                f"{len(missing)} of {len(cases)} pictures are missing, such as "
                f"{folder / missing[0] / 'out.png'}; --system {name} draws none, since neither "
                "core nor this pack has an IPAdapter: draw them in ComfyUI by a pack that has, "
                "from each folder's ref_1.jpg (of several people also ref_2.jpg and so on) and the "
                "prompt in meta.json, and run this again."
            )
        scores[subset] = list(score_cases(folder, cases, detectors, clip))
        rows += rows_of(name, subset, scores[subset])
    for sentence in left_out:
        log.info("%s", sentence)
    if left_out and not rows:
        raise FlashFaceError(f"Nothing is left to measure. {' '.join(left_out)}")
    if not rows:
        raise FlashFaceError(
            f"No picture was drawn: {detectors[0].name} finds no face in any reference; give the "
            "benchmark's own photographs, or another detector."
        )
    with_paper = options.multiid_bench is not None
    lines = table(rows, with_paper, left_out)
    save_benchmark(options.out, lines, scores)
    log.info("\n%s", "\n".join(lines))
    return flat(rows)


def _cases(options: argparse.Namespace) -> dict:
    """By Subset."""
    from .cases import Subset
    from .face2diffusion_protocol import FACES, PROMPTS, read_protocol
    from .multiid_bench import FOUR, add_photos, read_multiid_bench, subsets_of

    if options.multiid_bench is None:
        cases = read_protocol(options.face2diffusion_protocol, options.prompts)
        faces = len({case.person for case in cases})
        log.info("%d faces x %d prompts", faces, len(cases) // faces)
        if len(cases) != FACES * PROMPTS:
            log.info("The paper has %d x %d.", FACES, PROMPTS)
        return {Subset(): cases}
    found = subsets_of(read_multiid_bench(options.multiid_bench), options.most_people or PEOPLE[-1])
    if not found:
        raise FlashFaceError(
            f"{options.multiid_bench} has no case of {options.most_people} people or fewer; give a "
            "larger --most-people."
        )
    for subset, cases in found.items():
        people = "one person" if subset.people == (1,) else subset.label
        log.info("%d cases of %s", len(cases), people)
    if options.more_photos:
        if (alone := found.pop(Subset(), None)) is None:
            raise FlashFaceError(
                f"{options.multiid_bench} has no case of one person, to which --more-photos adds "
                "photographs; leave it out."
            )
        more = add_photos(alone, options.more_photos)
        found = {Subset(): alone, Subset(references=FOUR): more, **found}
    return found


def _detectors(options: argparse.Namespace) -> list:
    """Those that can compare faces; the first finds them in references. Raises FlashFaceError."""
    from flashface_core.faces.detect import load_detector
    from flashface_core.faces.zoo import ZOO

    detectors = []
    for kind, folder in (("insightface", options.model_pack), (ZOO, options.zoo)):
        if folder is not None:
            detectors.append(load_detector(kind, folder, options.device != "cpu"))
            if not detectors[-1].can_embed:
                raise FlashFaceError(
                    f"{folder} has no recognition model, which the benchmark needs; give a pack "
                    "such as buffalo_l, or OpenCV Zoo's folder with SFace in it."
                )
    return detectors


def _files(options: argparse.Namespace, name: str) -> dict[str, str]:
    """Contents of the weights, since a newly trained file may have the name of an old one."""
    from .encode import file_hash

    if name == ELSEWHERE:
        return {}
    given = {option: getattr(options, option) for option in NEEDED}
    given |= {f"weights {n}": path for n, path in enumerate(options.system_weights or [], 1)}
    return {option: f"{path.name} {file_hash(path)[:16]}" for option, path in given.items()}


def _settings(
    name: str, system, seed: int, files: dict[str, str], cases, detector: str
) -> dict[str, Any]:
    """What a picture follows from; the detector cuts the faces out."""
    from .cases import digest

    found: dict[str, Any] = {"system": name, "cases": digest(cases)[:16]}
    if system is None:
        return found
    sampler = system.settings._asdict() | {"guidance": asdict(system.settings.guidance)}
    found |= {"detector": detector, "seed": seed, "size": system.size, **files, **sampler}
    return json.loads(json.dumps(found))  # as it will be read again
