"""The real frontend in a real Chromium, on one server for every test of this folder."""

import shutil

import pytest
from support.server import rule_server

NAMES = ("chromium", "google-chrome", "chromium-browser")


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
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    """ComfyUI's page with an empty canvas."""
    page = browser.new_page(viewport={"width": 2750, "height": 1150})
    page.set_default_timeout(60_000)
    page.goto(server.url)
    page.wait_for_function(
        "window.app?.graph && 'FlashFaceApply' in (window.LiteGraph?.registered_node_types ?? {})"
    )
    page.wait_for_load_state("networkidle")
    page.evaluate("app.graph.clear()")
    yield page
    page.close()
