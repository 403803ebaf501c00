"""Rows per minute of a list on the tiny models: by hand, by one server, by two, and through Ray.

    python tools/comfy.py benchmark automation [--rounds 3] [--rows 48] [--json FILE]

In every round the same list is made in four ways, and ratios are of one round. By hand: the same
prompts, all posted at once to one server, and their pictures read. Of Ray only what passes
between the first picture and the last is counted, for it starts its servers itself.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))

from comfy_server import REPO, ComfyServer  # noqa: E402
from toy_people import draw_photos  # noqa: E402

from automation.jobs import Job, by_person  # noqa: E402
from automation.prepare import Order, check, connected  # noqa: E402
from automation.results import Results  # noqa: E402
from automation.runner import Runner, Settings  # noqa: E402

WORKFLOW = REPO / "workflows" / "api" / "01_start_here.json"
PEOPLE, SEEDS = 3, 2
HAND, ONE, TWO, RAY = CASES = (
    "by hand, full queue",
    "one server",
    "two servers",
    "Ray, two actors",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/comfy.py benchmark automation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=48, help="of the list, about")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as name, ComfyServer() as first, ComfyServer() as second:
        folder = Path(name)
        draw_people(folder)
        for number in range(options.rounds + 1):
            # New seeds each time: a server keeps what it has just made.
            grid = write_grid(folder, options, number)
            took = asyncio.run(one_round(folder, grid, number, first, second))
            if not options.no_ray and number > 0:
                took[RAY] = through_ray(folder, grid, number, first.base)
            if number > 0:  # the first one warms up
                for case, value in took.items():
                    seconds[case].append(value)
    rows = len(prompts(options)) * PEOPLE * SEEDS
    report = [row(case, seconds, rows) for case in CASES if seconds[case]]
    for one in report:
        print(
            f"{one['case']:22}{one['rows per minute']:8.1f} rows/min{one['ratio']:8.3f}  "
            f"{one['range']}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def draw_people(folder: Path) -> None:
    for number, photos in enumerate(draw_photos(4, PEOPLE)):
        own = folder / "people" / str(number)
        own.mkdir(parents=True)
        for place, photo in enumerate(photos):
            photo.save(own / f"{place}.png")


def prompts(options: argparse.Namespace) -> list[str]:
    count = max(1, options.rows // (PEOPLE * SEEDS))
    return [f"a portrait of an adult, smiling, number {n}, upright" for n in range(count)]


def write_grid(folder: Path, options: argparse.Namespace, number: int) -> Path:
    grid = {
        "people": "people/*",
        "prompts": prompts(options),
        "seeds": [number * SEEDS + place for place in range(SEEDS)],
        "KSampler.steps": [options.steps],
    }
    path = folder / f"grid_{number}.json"
    path.write_text(json.dumps(grid), encoding="utf-8")
    return path


async def one_round(
    folder: Path, grid: Path, number: int, first: ComfyServer, second: ComfyServer
) -> dict[str, float]:
    took = {}
    urls = [first.url, second.url]
    for case, used in ((HAND, urls[:1]), (ONE, urls[:1]), (TWO, urls)):
        for server in (first, second):
            server.free()
            await asyncio.sleep(1.5)  # it looks once a second
        async with AsyncExitStack() as stack:
            servers = await connected(stack, used, f"benchmark-{case}", 60)
            checked = await check(Order(grid, WORKFLOW), servers)
            assert not checked.problems, checked.problems
            results = Results(folder / f"{number} {case}")
            began = time.perf_counter()
            if case == HAND:
                ordered = [job for own in by_person(checked.jobs).values() for job in own]
                await asyncio.to_thread(by_hand, first, ordered)
            else:
                tally = await Runner(servers, results, Settings()).run(checked.jobs)
                assert not tally.left and not tally.failed
            took[case] = time.perf_counter() - began
    return took


def by_hand(server: ComfyServer, jobs: Sequence[Job]) -> None:
    """Photos are there from the round's check on, as a user would have put them there."""
    for job in jobs:
        for photo in job.uploads:
            path = server.base / "input" / photo.name
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(photo.read())
    asked = [server.queue(job.graph) for job in jobs]
    for prompt in asked:
        for path in server.files(server.wait(prompt)):
            path.read_bytes()


def through_ray(folder: Path, grid: Path, number: int, base: Path) -> float:
    """Seconds from the first picture to the last, for one row more."""
    out = folder / f"{number} {RAY}"
    line = [sys.executable, "-m", "automation.ray_run", str(grid), "--workflow", str(WORKFLOW)]
    line += ["--out", str(out), "--actors", "2", "--base", str(base)]
    subprocess.run(line, check=True, capture_output=True)
    times = sorted(path.stat().st_mtime for path in (out / "pictures").glob("*.png"))
    return (times[-1] - times[0]) * len(times) / max(1, len(times) - 1)


def row(case: str, seconds: dict[str, list[float]], rows: int) -> dict:
    base = seconds[HAND]
    ratios = sorted(b / a for a, b in zip(seconds[case], base, strict=True))
    return {
        "case": case,
        "rows per minute": round(60 * rows / statistics.median(seconds[case]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


if __name__ == "__main__":
    main()
