"""Identities x prompts through ComfyUI's own sampling, measured with and without FlashFace.

    python -m training.evaluate --people 20 --seed 1 --out FOLDER

Toy people that nobody has trained on, drawn by the tiny models (or those in --models).

    python -m training.evaluate --photos FOLDER --checkpoint FILE --clip FILE --vae FILE --out ...

Real people: a folder of photographs per person. --clip and --vae take a file of their own or a
whole SD1.5 checkpoint. --model-pack (InsightFace) adds similarity and identification, --clip-vision
(CLIP ViT-L/14) clip_score; without them it is measured whether there is a face.

--out FOLDER gets measures.csv, measures.md, grid.png and, with --sweep, a plot per setting.

    python -m training.evaluate --multiid-bench FOLDER --system NAME --checkpoint FILE ... --out ..
    python -m training.evaluate --face2diffusion-protocol FOLDER --prompts FILE --checkpoint ...

MultiID-Bench, or every photographed face with every prompt. The same files, for --system other
than flashface with SD1.5 as --checkpoint, and the system's own as --system-weights. --model-pack,
--zoo (YuNet and SFace) or both compare faces. Pictures are kept in --out; what is there is not
drawn again. docs/TRAINING.md says more.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from flashface_core.errors import FlashFaceError
from training.comfyui import find_comfyui
from training.command_line import file_to_write, folder_to_read, folder_to_write, write_json
from training.photos import benchmark_command

log = logging.getLogger("flashface.training")

TOY = ("people", "models")
NEEDED, FILES = ("checkpoint", "clip", "vae"), ("checkpoint", "clip", "vae", "clip_vision")
PHOTOS = (*FILES, "model_pack", "prompts", "size", "steps")
BENCHMARK = ("system", "system_weights", "zoo", "more_photos", "most_people")


def problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, before anything is loaded."""
    if options.out is None and options.json is None:
        return "nothing to write: give --json FILE, --out FOLDER, or both"
    given = {name for name, value in vars(options).items() if value is not None}
    benchmark = next((name for name in benchmark_command.BENCHMARKS if name in given), None)
    if benchmark and (stray := [name for name in (*TOY, "photos") if name in given]):
        return f"{_option(stray[0])} goes without {_option(benchmark)}"
    if not benchmark and (stray := [name for name in BENCHMARK if name in given]):
        return f"{_option(stray[0])} needs --multiid-bench or --face2diffusion-protocol FOLDER"
    if not benchmark and (
        stray := [name for name in (TOY if options.photos else PHOTOS) if name in given]
    ):
        other = "goes without --photos" if options.photos else "needs --photos FOLDER"
        return f"{_option(stray[0])} {other}"
    if options.photos and (missing := [name for name in NEEDED if name not in given]):
        return f"--photos needs {', '.join(map(_option, missing))} as well"
    for name in (*FILES, "prompts"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            return f"{_option(name)} is {path}, which is not a file"
    if options.people is not None and options.people < 1:
        return f"--people is {options.people}; at least one person is needed"
    if options.size is not None and (options.size < 8 or options.size % 8):
        return f"--size is {options.size}; a multiple of 8 is needed, as a latent pixel is"
    if options.steps is not None and not 1 <= options.steps <= 1000:
        return f"--steps is {options.steps}; 1 to 1000 are possible"
    return benchmark_command.problem(options) if benchmark else None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def make_evaluation(options: argparse.Namespace):
    """Raises FlashFaceError for photographs or files that cannot be used."""
    if options.photos is None:
        from training.tiny.evaluation import ToyEvaluation

        return ToyEvaluation(options.people or 20, options.seed, options.models)
    from training.photos.evaluation import OFFICIAL, PROMPTS, Files, PhotoEvaluation, read_prompts

    o = options
    return PhotoEvaluation(
        o.photos,
        Files(o.checkpoint, o.clip, o.vae, o.clip_vision, o.model_pack),
        o.seed,
        read_prompts(o.prompts) if o.prompts else PROMPTS,
        o.size,
        o.steps or OFFICIAL.steps,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, help="toy people; default: 20")
    parser.add_argument(
        "--models", type=folder_to_read, help="of tiny models; default: the shipped"
    )
    parser.add_argument("--photos", type=Path, help="folder with a folder per person")
    parser.add_argument("--multiid-bench", type=Path, help="folder of MultiID-Bench")
    parser.add_argument("--face2diffusion-protocol", type=Path, help="folder of faces")
    parser.add_argument("--system", choices=benchmark_command.SYSTEMS, help="default: flashface")
    parser.add_argument("--system-weights", type=Path, nargs="+", help="files of other systems")
    parser.add_argument("--zoo", type=Path, help="folder with YuNet and SFace of OpenCV Zoo")
    parser.add_argument(
        "--more-photos", type=Path, help="folder per case with three photographs: a row with four"
    )
    parser.add_argument("--most-people", type=int, help="in cases of MultiID-Bench; default: 4")
    parser.add_argument("--checkpoint", type=Path, help="FlashFace weights")
    parser.add_argument("--clip", type=Path, help="CLIP-L")
    parser.add_argument("--vae", type=Path, help="SD1.5's VAE")
    parser.add_argument("--clip-vision", type=Path, help="vision model of CLIP ViT-L/14")
    parser.add_argument("--model-pack", type=Path, help="folder of an InsightFace model pack")
    parser.add_argument("--prompts", type=Path, help="text file, one per line; default: four")
    parser.add_argument("--size", type=int, help="of the pictures; default: the checkpoint's")
    parser.add_argument("--steps", type=int, help="default: 25")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=folder_to_write, help="folder for the table, the plots and the grid"
    )
    parser.add_argument("--json", type=file_to_write, help="file for one flat object of numbers")
    parser.add_argument("--sweep", action="store_true", help="vary one setting at a time as well")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    options = parser.parse_args(arguments)
    if wrong := problem(options):
        parser.error(wrong)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=options.device == "cpu")

    from training.report import save_report

    started = time.monotonic()
    try:
        if options.multiid_bench or options.face2diffusion_protocol:
            evaluation, result = None, benchmark_command.run(options)
        else:
            evaluation = make_evaluation(options)
            result = evaluation.compare()
    except FlashFaceError as error:
        sys.exit(str(error))
    if options.json:
        write_json(options.json, result)
    if evaluation is not None and options.out:
        sweeps = evaluation.sweeps() if options.sweep else {}
        save_report(options.out, evaluation, result, sweeps)
    for name, value in result.items():
        log.info("%32s  %s", name, f"{value:.3f}" if isinstance(value, float) else value)
    log.info("%.0f s in all", time.monotonic() - started)


if __name__ == "__main__":
    main()
