"""The real frontend in a real Chromium, on one server for every test of this folder.

Every test runs in both ways that the frontend has of drawing nodes, and its id says which version
of the frontend it was: tiny_models-1.58.1-nodes2.
"""

import itertools
import shutil

import pytest
from support.browser import LOOKS, NODES_2, complaints, frontend, load_page
from support.server import SHIPPED, rule_server

OLDEST = "1.32.9"
NAMES = ("chromium", "google-chrome", "chromium-browser")


def pytest_generate_tests(metafunc):
    if "opened" in metafunc.fixturenames:
        # Who has ComfyUI 0.3.75's own frontend draws on the canvas: its "Nodes 2.0" was a preview.
        looks = LOOKS[:1] if frontend() == OLDEST else LOOKS
        pairs = list(itertools.product(SHIPPED, looks))
        ids = [f"{name}-{frontend()}-{look}" for name, look in pairs]
        metafunc.parametrize(("name", "look"), pairs, ids=ids, scope="module")
    elif "look" in metafunc.fixturenames:
        ids = [f"{frontend()}-{look}" for look in LOOKS]
        metafunc.parametrize("look", LOOKS, ids=ids, scope="module")


@pytest.fixture(scope="session")
def chromium():
    pytest.importorskip("playwright", reason="the browser tests need the playwright package")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH")
    return found


@pytest.fixture(scope="session")
def server(chromium, tmp_path_factory):
    with rule_server(tmp_path_factory.mktemp("comfyui")) as server:
        # Someone who has been here before: no tour of the templates on top of everything.
        server.post("/settings/Comfy.TutorialCompleted", True)
        yield server


@pytest.fixture(scope="session")
def pages(server, chromium):
    """A page for each look, loaded once: that takes longer than most of what is done in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 2750, "height": 1150})
        context.set_default_timeout(60_000)
        pages = {}
        for look in LOOKS:
            server.post(f"/settings/{NODES_2}", look == "nodes2")
            pages[look] = context.new_page()
            load_page(pages[look], server)
        yield pages
        browser.close()


@pytest.fixture(scope="module")
def page(pages, look, server):
    """ComfyUI's page with an empty canvas."""
    page = pages[look]
    page.bring_to_front()
    if complaints(page):  # of a test that failed, or that wanted them
        page.evaluate("localStorage.clear(), sessionStorage.clear()")  # or it comes again
        server.post(f"/settings/{NODES_2}", look == "nodes2")
        load_page(page, server)
    assert page.evaluate("window.__COMFYUI_FRONTEND_VERSION__") == frontend()
    nodes_2 = page.evaluate(f"app.extensionManager.setting.get('{NODES_2}')")
    assert bool(nodes_2) == (look == "nodes2")
    page.evaluate("app.graph.clear()")
    return page
