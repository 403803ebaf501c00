"""What a server answers, and what that means for a row and for the server."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from .jobs import Job

OF_A_ROW = ("/prompt", "/upload/image", "/view")  # where a 400 tells of the row
LOGIN = "a login is given as in http://user:password@host"
HINTS = {
    400: "it may want https",
    401: LOGIN,
    403: LOGIN,
    404: "no ComfyUI is at this address",
}


class RowError(Exception):
    """ComfyUI refused a row or failed at it, in its own words."""


class Lost(Exception):
    """A server that does not answer, or forgot what it was asked. began: it worked at the row."""

    def __init__(self, text: str, began: bool = False) -> None:
        super().__init__(text)
        self.began = began


class Strange(Lost):
    """It answers, but not as a ComfyUI that can be used."""


def check_status(path: str, status: int, body: bytes) -> None:
    """Raises RowError or Strange for all but 200."""
    if status == 200:
        return
    if status == 400 and path in OF_A_ROW:
        raise RowError(_refusal(body))
    if status == 413:
        what = "a photo" if path == "/upload/image" else "a request"
        raise RowError(
            f"{path} answered 413: {what} is larger than the server, or a proxy before it, takes; "
            "make it smaller, or raise the limit there"
        )
    if status == 403 and path == "/upload/image":
        raise RowError(f"{path} answered 403: the server, or a proxy before it, takes no photo")
    hint = HINTS.get(status, "give the address that it leads to" if 300 <= status < 400 else "")
    # 500: it failed at this very request. The others never came to it.
    raise Strange(f"{path} answered {status}{hint and '; ' + hint}", began=status == 500)


@contextlib.contextmanager
def as_comfyui(path: str) -> Iterator[None]:
    """Around code that reads an answer."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise Strange(f"{path} answered what ComfyUI would not") from None


def parsed(path: str, body: bytes) -> dict[str, Any]:
    """Every answer that is read is an object; some are empty."""
    with as_comfyui(path):
        answer = json.loads(body) if body else {}
        return {**answer}


def raise_refused(answer: dict[str, Any]) -> None:
    """ComfyUI runs what it can of a workflow, and says nothing of the rest again."""
    if answer.get("node_errors"):
        raise RowError("; ".join(_node_lines(answer["node_errors"])))


def raise_failure(status: dict[str, Any]) -> None:
    for kind, details in status["messages"]:
        if kind == "execution_error":
            where = f"node {details['node_id']} ({details['node_type']})"
            raise RowError(f"{where}: {details['exception_message'].strip()}")
        if kind == "execution_interrupted":
            raise RowError(f"interrupted in node {details['node_id']} ({details['node_type']})")
    if status["status_str"] != "success":
        raise RowError(f"failed: {status['messages']}")


def read_status(status: dict[str, Any], job: Job) -> tuple[float, bool]:
    """Seconds of work, and whether the person's features were known."""
    told = dict(status["messages"])
    began, ended = (
        told.get(kind, {}).get("timestamp", time.time() * 1000)
        for kind in ("execution_start", "execution_success")
    )
    cached = told.get("execution_cached", {}).get("nodes", [])
    return (ended - began) / 1000, bool(job.known) and set(job.known) <= set(cached)


def _refusal(body: bytes) -> str:
    """ComfyUI's answer to a workflow that it does not take, in a line."""
    try:
        answer = json.loads(body)
        return "; ".join([_line(answer["error"]), *_node_lines(answer["node_errors"] or {})])
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode(errors="replace")[:500]


def _node_lines(errors: dict[str, Any]) -> list[str]:
    return [_line(error) for node in errors.values() for error in node["errors"]]


def _line(error: dict[str, str]) -> str:
    return f"{error['message']} {error['details']}".strip()
