"""README's picture: the first workflow on the canvas, with what it drew.

    .comfy/venv/bin/python tools/canvas_picture.py

Needs Chromium. Writes docs/first_workflow.jpg.
"""

import json
import os
import shutil
import time

from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from playwright.sync_api import sync_playwright

NAME = "01_start_here"
FIT = """() => {
    app.canvas.ds.scale = 0.68
    app.canvas.ds.offset = [588, 235]
    app.canvas.setDirty(true, true)
}"""


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server,
        sync_playwright() as playwright,
    ):
        server.post("/settings/Comfy.TutorialCompleted", True)
        server.post("/settings/Comfy.Minimap.Visible", False)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1780, "height": 1080})
        page.goto(server.url)
        page.wait_for_function(
            "window.app?.graph && 'FlashFaceApply' in "
            "(window.LiteGraph?.registered_node_types ?? {})"
        )
        page.wait_for_load_state("networkidle")
        graph = json.loads((REPO / "workflows" / f"{NAME}.json").read_text(encoding="utf-8"))
        page.evaluate("async (graph) => app.loadGraphData(graph)", graph)
        page.wait_for_timeout(2000)
        page.evaluate("async () => app.queuePrompt(0, 1)")
        while not server.get("/history"):
            time.sleep(0.5)
        page.wait_for_timeout(2000)
        page.evaluate(FIT)
        page.wait_for_timeout(1500)
        path = REPO / "docs" / "first_workflow.jpg"
        # Without bars and menus.
        page.screenshot(
            path=path,
            quality=88,
            type="jpeg",
            clip={"x": 62, "y": 98, "width": 1370, "height": 910},
        )
        print(path)
        browser.close()


if __name__ == "__main__":
    main()
