"""What an input takes, by a server's own description of its nodes (/object_info)."""

import math
import re
from collections.abc import Container, Mapping
from decimal import Decimal
from typing import Any

from .graph import PREVIEW, SAVE, Graph, Target, is_link, title
from .problems import Problem, allowed

Described = Mapping[str, Any]  # /object_info, by class of node

# What would leave a folder if a node took it for a path: /a, ~/a, C:\a, a/../b.
LEAVES = re.compile(r"^\s*([/\\~]|[A-Za-z]:[/\\])|(^|[/\\])\.\.([/\\]|\s*$|\s)")
# What a value is given for; other kinds are a connection, or a widget that the server alone knows.
VALUES = ("INT", "FLOAT", "BOOLEAN", "STRING")
YES_OR_NO = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Unfit(Exception):
    """Why an input does not take a value, and what it takes."""


def spec_of(described: Described, class_type: str, name: str) -> list[Any] | None:
    for group in ("required", "optional"):
        spec = described[class_type].get("input", {}).get(group, {}).get(name)
        if spec is not None:
            return list(spec)
    return None


def input_names(described: Described, class_type: str) -> list[str]:
    groups = described[class_type].get("input", {})
    return [name for group in ("required", "optional") for name in groups.get(group, {})]


def options_of(spec: list[Any]) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def takes_upload(spec: list[Any]) -> bool:
    return bool(options_of(spec).get("image_upload"))


def choices_of(spec: list[Any]) -> list[Any] | None:
    """Of a combo, as older and newer nodes write it; None for another input."""
    if isinstance(spec[0], list):
        return spec[0]
    return options_of(spec).get("options") if spec[0] == "COMBO" else None


def fitted(value: Any, spec: list[Any]) -> Any:
    """A value, or the text of one, as the input's type. Raises Unfit."""
    choices, kind, options = choices_of(spec), spec[0], options_of(spec)
    if choices is not None:
        for choice in choices:
            if value == choice or str(value) == str(choice):
                return choice
            if isinstance(choice, bool) and YES_OR_NO.get(str(value).lower()) == choice:
                return choice
        raise Unfit(f"got {value!r}, allowed are {allowed(choices)}")
    if kind in ("INT", "FLOAT"):
        return _number(value, kind, options)
    if kind == "BOOLEAN":
        if str(value).lower() in YES_OR_NO:
            return YES_OR_NO[str(value).lower()]
        raise Unfit(f"got {value!r}, expected true or false")
    if kind == "STRING":
        if not isinstance(value, str):
            raise Unfit(f"got {value!r}, expected a text")
        return inside(value, spec)
    raise Unfit(f"takes a connection ({kind}), not a value")


def _number(value: Any, kind: str, options: Mapping[str, Any]) -> int | float:
    low, high = options.get("min", -math.inf), options.get("max", math.inf)
    expected = f"{'a whole number' if kind == 'INT' else 'a number'} from {low} to {high}"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if kind == "INT" and math.isfinite(number):
            # Large seeds do not survive as floats; 1.0 is what pandas makes of 1.
            number = Decimal(value) if isinstance(value, str) else value
            if number != int(number):
                raise ValueError
            number = int(number)
        if not (low <= number <= high and math.isfinite(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Unfit(f"got {value!r}, expected {expected}") from None
    return number


def inside(value: str, spec: list[Any]) -> str:
    """Texts of one line may be names of files; those stay where the server keeps its own."""
    if not options_of(spec).get("multiline") and LEAVES.search(value):
        raise Unfit(f"got {value!r}, which leads out of a folder; expected a name")
    return value


def check_graph(
    graph: Graph, described: Described, replaced: Container[Target] = ()
) -> list[Problem]:
    """What of the workflow a server cannot run. replaced: inputs that every row gives a value."""
    problems = []
    outputs = [kind for node in described.values() for kind in (node or {}).get("output", [])]
    sockets = {kind for kind in outputs if isinstance(kind, str)}
    for node, data in graph.items():
        column = f"{title(graph, node)} (node {node} of the workflow)"
        if not described.get(data["class_type"]):
            text = f"the server has no node {data['class_type']}; install its pack there"
            problems.append(Problem(None, column, text))
            continue
        for name, value in data["inputs"].items():
            spec = spec_of(described, data["class_type"], name)
            if spec is None or is_link(value) or Target(node, name) in replaced:
                continue
            try:
                if _takes_more(data, name, Target(node, "detector") in replaced):
                    spec = ["STRING"]
                _check_own(value, spec, sockets)
            except Unfit as error:
                text = f"{error}; change it in the workflow, or give a column for it"
                problems.append(Problem(None, f"{column}, {name}", text))
        for name, text in _missing(data, described).items():
            if Target(node, name) not in replaced:
                problems.append(Problem(None, f"{column}, {name}", text))
    return problems


def _missing(data: Mapping[str, Any], described: Described) -> dict[str, str]:
    """What a node cannot do without and does not have: a workflow loses links to what is muted."""
    asked = PREVIEW if data["class_type"] == SAVE else data["class_type"]
    inputs = (described.get(asked) or {}).get("input", {}).get("required", {})
    told = {}
    for name, spec in inputs.items():
        kind = spec[0]
        # A photo is given by the rows; such kinds stand for inputs of other names.
        grows = isinstance(kind, str) and kind.startswith("COMFY_")
        if name in data["inputs"] or grows or takes_upload(list(spec)):
            continue
        if kind in VALUES or choices_of(list(spec)) is not None:
            told[name] = "has no value; give it one in the workflow, or a column"
        else:
            told[name] = f"is not connected ({kind}); a node before it may be muted or bypassed"
    return told


def _takes_more(data: Mapping[str, Any], name: str, rows_choose: bool) -> bool:
    """Than its list: only InsightFace needs the very pack that a workflow names. rows_choose: which
    detector it is, so that the server has the last word."""
    is_pack = (data["class_type"], name) == ("FlashFaceDetectorLoader", "model_pack")
    return is_pack and (rows_choose or data["inputs"].get("detector") != "insightface")


def _check_own(value: Any, spec: list[Any], sockets: Container[str]) -> None:
    """sockets: kinds that nodes give, so that a plain value is not one of them."""
    if takes_upload(spec):
        # Core's LoadImage joins it to a folder and asks no more.
        inside(str(value), ["STRING"])
    elif choices_of(spec) is not None or spec[0] in VALUES:
        fitted(value, spec)
    elif options_of(spec).get("forceInput") or spec[0] in sockets:
        raise Unfit(f"takes a connection ({spec[0]}), not a value")
    elif isinstance(value, str):
        inside(value, spec)


def checked_target(graph: Graph, described: Described, target: Target) -> list[Any]:
    """The description of an input that a column names. Raises Unfit."""
    class_type = graph[target.node]["class_type"]
    spec = spec_of(described, class_type, target.input)
    if spec is None:
        known = allowed(input_names(described, class_type), 40)
        raise Unfit(f"{class_type} has no input {target.input}; it has {known}")
    link = graph[target.node]["inputs"].get(target.input)
    if is_link(link):
        raise Unfit(f"comes from {title(graph, link[0])} (node {link[0]}); name an input of that")
    return spec


def differences(first: Described, other: Described) -> list[str]:
    """Classes whose inputs two servers describe differently, their pictures set aside."""
    return [name for name in first if _compared(first[name]) != _compared(other.get(name))]


def _compared(node: Any) -> Any:
    if not node:
        return None
    groups = node.get("input", {})
    return {
        (group, name): None if takes_upload(list(spec)) else spec
        for group in ("required", "optional")
        for name, spec in groups.get(group, {}).items()
    }
