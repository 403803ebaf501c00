"""Lists of drawn people, small pictures, and the command that makes them."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from PIL import Image, ImageChops

from .server import WORKFLOWS
from .tools import ROOT, load_tool

WORKFLOW = WORKFLOWS / "api" / "01_start_here.json"
PEOPLE, PHOTOS, STEPS, SIDE = 5, 2, 1, 128
SEEDS = (1, 2)
PROMPTS = tuple(
    f"a portrait of {who}, upright"
    for who in (
        "an adult, smiling",
        "an adult, neutral, in a forest",
        "a child, smiling, by the sea",
        "a child, surprised",
        "an elder, neutral, in a library",
        "an elder, smiling, in a city",
    )
)
ROWS = PEOPLE * len(PROMPTS) * len(SEEDS)
SMALL = {"KSampler.steps": STEPS, "Picture size.width": SIDE, "Picture size.height": SIDE}

# A custom node pack that counts what goes through the ReferenceNet (a photo at a step is one), and
# lets prompts, but for the first ones, stay on their way for as long as POST /late says.
COUNTER = """
import asyncio
import sys
from aiohttp import web
from server import PromptServer

seen = {"passes": 0, "prompts": 0}
late = {"seconds": 0.0, "skip": 0, "waiting": 0}

def watch(data):
    seen["prompts"] += 1
    for name, module in list(sys.modules.items()):
        network = getattr(module, "ReferenceNetwork", None)
        if name.endswith("flashface_core.flashface.reference_net") and not hasattr(network, "seen"):
            inner = network.keys_values
            def counted(self, latents, *rest, inner=inner):
                seen["passes"] += len(latents)
                return inner(self, latents, *rest)
            network.keys_values, network.seen = counted, True
    return data

@PromptServer.instance.routes.get("/seen")
async def tell(request):
    return web.json_response(seen)

PromptServer.instance.add_on_prompt_handler(watch)

@PromptServer.instance.routes.post("/late")
async def set_late(request):
    late.update(await request.json())
    return web.json_response({})

@PromptServer.instance.routes.get("/late")
async def tell_late(request):
    return web.json_response(late)

@web.middleware
async def on_the_way(request, handler):
    if request.method != "POST" or request.path != "/prompt" or not late["seconds"]:
        return await handler(request)
    if late["skip"]:
        late["skip"] -= 1
    else:
        await request.read()
        late["waiting"] += 1
        await asyncio.sleep(late["seconds"])
        late["waiting"] -= 1
    return await handler(request)

PromptServer.instance.app.middlewares.append(on_the_way)

class Wait:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "wait", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        values = {"seconds": ("FLOAT", {"default": 0.0}), "deaf": ("BOOLEAN", {"default": False})}
        return {"required": {"image": ("IMAGE",), **values}}

    def wait(self, image, seconds, deaf):
        import time
        from comfy.model_management import throw_exception_if_processing_interrupted
        for _ in range(int(10 * seconds)):
            if not deaf:
                throw_exception_if_processing_interrupted()
            time.sleep(0.1)
        return (image,)

NODE_CLASS_MAPPINGS = {"TestWait": Wait}
"""


@contextmanager
def start_servers(folder: Path, count: int):
    """ComfyUIs with the tiny models, the CPU and a counter each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tool = load_tool("comfy_server")
    bases = [folder / f"server_{number}" for number in range(count)]
    for base in bases:
        pack = base / "custom_nodes" / "counter"
        pack.mkdir(parents=True)
        (pack / "__init__.py").write_text(COUNTER)
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        # API nodes are an eighth of a start, and there are many.
        fewer = ("--disable-api-nodes",)
        servers = [tool.ComfyServer(base, cpu=True, arguments=fewer) for base in bases]
        yield list(pool.map(stack.enter_context, servers))


def draw_people(folder: Path, people: int = PEOPLE) -> None:
    """A folder of photos for each, as `people/person_0`."""
    for number, photos in enumerate(load_tool("toy_people").draw_photos(2, people)):
        own = folder / "people" / f"person_{number}"
        own.mkdir(parents=True)
        for place, photo in enumerate(photos[:PHOTOS]):
            photo.save(own / f"{place}.png")


def write_grid(path: Path, people="people/*", prompts=PROMPTS, seeds=SEEDS, **more) -> Path:
    grid = {"people": people, "prompts": list(prompts), "seeds": list(seeds)}
    values = {**SMALL, **more}
    path.write_text(yaml.safe_dump(grid | {name: [value] for name, value in values.items()}))
    return path


def command(manifest: Path, out: Path, servers, *more: str, module: str = "run") -> list[str]:
    line = [sys.executable, "-m", f"automation.{module}", str(manifest), "--out", str(out)]
    line += [] if "--workflow" in more else ["--workflow", str(WORKFLOW)]
    for server in servers:
        line += ["--server", getattr(server, "url", server)]
    return [*line, *more]


def run(manifest: Path, out: Path, servers, *more: str, code: int = 0, module: str = "run") -> str:
    """What it says."""
    line = command(manifest, out, servers, *more, module=module)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


def start(manifest: Path, out: Path, servers, *more: str, module: str = "run"):
    """The command in a process, whose words go to `said.txt` beside its folder."""
    said = out.with_suffix(".said").open("wb")
    line = command(manifest, out, servers, *more, module=module)
    return subprocess.Popen(line, cwd=ROOT, stdout=said, stderr=said)


def said(out: Path) -> str:
    return out.with_suffix(".said").read_text(errors="replace")


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "pictures").glob("*.png")}


def assert_same_pictures(out: Path, expected: Path, count: int = ROWS) -> None:
    """`count` of them, to the last byte; says which rows differ, and by how much."""
    found, wanted = pictures(out), pictures(expected)
    assert len(found) == count and found.keys() <= wanted.keys()
    told = []
    for name in sorted(name for name in found if found[name] != wanted[name]):
        with (
            Image.open(out / "pictures" / name) as a,
            Image.open(expected / "pictures" / name) as b,
        ):
            row = json.loads(a.info["flashface_row"])
            most = max(high for _, high in ImageChops.difference(a, b).getextrema())
        told.append(f"{row['person']}, {row['prompt']}, seed {row['seed']}: {most} of 255")
    assert not told, "\n".join(told)


def wait_for_pictures(out: Path, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while len(list((out / "pictures").glob("*.png"))) < count:
        assert time.monotonic() < deadline, f"no {count} pictures\n{said(out)}"
        time.sleep(0.05)


def journal(out: Path) -> list[dict]:
    every = [path.read_text().splitlines() for path in sorted(out.glob("journal*.jsonl"))]
    return [json.loads(line) for lines in every for line in lines]


def ids_once(out: Path) -> list[str]:
    """Of rows that ended well; nobody's twice."""
    ids = [entry["id"] for entry in journal(out) if entry["error"] is None]
    assert len(ids) == len(set(ids))
    return ids
