"""Pictures per minute through a real ComfyUI server, on the tiny models.

    python tools/comfy.py benchmark pipeline [--rounds 5] [--json FILE]

In every round a new person is drawn, then the same person with another seed and with another
prompt, then nobody: the same workflow without FlashFace. Seconds run from the queue to the picture.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))

from comfy_server import ComfyServer  # noqa: E402
from demo import PROMPTS, WORKFLOW, key, node, put_photos  # noqa: E402
from toy_people import draw_photos, save_photos  # noqa: E402

FIRST, SEED, PROMPT, NOBODY = CASES = (
    "first picture of a person",
    "the same person, another seed",
    "the same person, another prompt",
    "without FlashFace",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/comfy.py benchmark pipeline")
    parser.add_argument("--rounds", type=int, default=5, help="how many people")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    with ComfyServer() as server:
        for number, photos in enumerate(draw_photos(3, options.rounds + 1)):
            save_photos(server.base / "input" / f"person_{number}.png", photos)
            for case in CASES:
                took = draw(server, case, number)
                if number > 0:  # the first one warms up
                    seconds[case].append(took)
        stats = server.get("/system_stats")
    report = {
        "ComfyUI": stats["system"]["comfyui_version"],
        "torch": stats["system"]["pytorch_version"],
        "device": stats["devices"][0]["name"],
        "rounds": options.rounds,
        "cases": [row(case, seconds) for case in CASES],
    }
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def draw(server: ComfyServer, case: str, number: int) -> float:
    """Seconds for one picture of a person."""
    workflow = filled_in(case, number)
    start = time.perf_counter()
    server.prompt(workflow)
    return time.perf_counter() - start


def filled_in(case: str, number: int) -> dict[str, Any]:
    """The shipped workflow for one picture of a person, or of nobody."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    put_photos(workflow, f"person_{number}.png")
    node(workflow, "Positive prompt")["text"] = PROMPTS[case == PROMPT]
    node(workflow, "KSampler")["seed"] = len(CASES) * number + CASES.index(case)
    if case == NOBODY:
        node(workflow, "KSampler")["model"] = [key(workflow, "FlashFaceTinyModels"), 0]
    return workflow


def row(case: str, seconds: dict[str, list[float]]) -> dict:
    median = statistics.median(seconds[case])
    ratios = sorted(a / b for a, b in zip(seconds[case], seconds[NOBODY], strict=True))
    return {
        "case": case,
        "seconds": round(median, 3),
        "pictures per minute": round(60 / median, 1),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def show(report: dict) -> None:
    print(", ".join(f"{name} {report[name]}" for name in ("ComfyUI", "torch", "device", "rounds")))
    print(f"{'case':34}{'s':>8}{'per minute':>12}{'x without':>11}{'range':>16}")
    for one in report["cases"]:
        low, high = one["range"]
        print(
            f"{one['case']:34}{one['seconds']:>8.2f}{one['pictures per minute']:>12.1f}"
            f"{one['ratio']:>11.3f}{f'{low:.3f}-{high:.3f}':>16}"
        )


if __name__ == "__main__":
    main()
