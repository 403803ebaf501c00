"""ComfyUI's page in a real browser: what the tests do and see there."""

from importlib.metadata import PackageNotFoundError, version

LOOKS = ("classic", "nodes2")  # on a canvas, or as HTML: "Nodes 2.0" of the settings
NODES_2 = "Comfy.VueNodes.Enabled"

# What the versions of the frontend complain with, about missing nodes, files and pictures.
COMPLAINTS = ", ".join(
    f"{selector}:visible"
    for selector in (
        ".p-dialog",
        ".p-toast-message",
        "[role=alert]",
        "[role=dialog]",
        "[data-testid=error-overlay]",
    )
)


def frontend() -> str:
    """The version that a server will serve which runs with the paths of this process."""
    try:
        return version("comfyui-frontend-package")
    except PackageNotFoundError:
        return "none"


def load_page(page, server) -> None:
    page.goto(server.url)
    page.wait_for_function(
        "window.app?.graph && 'FlashFaceApply' in (window.LiteGraph?.registered_node_types ?? {})"
    )
    page.wait_for_load_state("networkidle")


def complaints(page) -> list[str]:
    return page.locator(COMPLAINTS).all_inner_texts()


def open_graph(page, graph: dict) -> None:
    """As a template is opened; waits for the complaints, which come a little later."""
    page.evaluate("async (graph) => app.loadGraphData(graph)", graph)
    page.wait_for_function("app.graph.nodes.length > 0")
    page.wait_for_timeout(1000)
