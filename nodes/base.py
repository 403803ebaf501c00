"""What all nodes of this pack have in common: none runs with a value that its schema rules out.

ComfyUI 0.3.75 checks no combo of a V3 node, and no ComfyUI checks what comes over a link.
"""

import dataclasses
import functools
import inspect
import reprlib
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from comfy_api.latest import io

from ..flashface_core.errors import FlashFaceError

SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
CHECKED = "_flashface_inputs_are_checked"
# Dicts and lists come from scripts; these sockets carry some.
PLAIN = {"BOUNDING_BOX": (dict, list), "CONDITIONING": (list,)}
# What a checkpoint does not hold comes as None, and has a sentence of its own.
MAY_BE_NONE = ("CLIP", "VAE")


def schema(aliases: Sequence[str], **given: Any) -> io.Schema:
    """aliases: other words that people search for; ComfyUI 0.3.75 has no place for them."""
    if "search_aliases" in SCHEMA_FIELDS:
        given["search_aliases"] = list(aliases)
    return io.Schema(**given)


class FlashFaceNode(io.ComfyNode):
    """A node whose execute gets what its schema allows, and otherwise is not called.

    Inputs that validate_inputs names are checked by it alone, as core does it; there None means a
    value that comes over a link, in execute it is refused. It has None as a default for each: core
    leaves out what was not given, and then says so itself.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        execute = cls.__dict__.get("execute")
        # Core runs copies of the class, which have the execute of the class itself.
        if execute is not None and not hasattr(execute.__func__, CHECKED):
            run = classmethod(_checked(execute.__func__))
            cls.execute = run  # pyright: ignore[reportAttributeAccessIssue]


def _checked(execute: Callable) -> Callable:
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def run(cls, *args, **kwargs):
        given = signature.bind(cls, *args, **kwargs)
        given.arguments.update(checked_inputs(cls, given.arguments))
        return execute(*given.args, **given.kwargs)

    setattr(run, CHECKED, True)
    return run


def checked_inputs(node: type[io.ComfyNode], given: dict[str, Any]) -> dict[str, Any]:
    """The given values of widgets: whole numbers as int, others as float, the rest as it is.

    Raises FlashFaceError for the first one that the node's schema or its validate_inputs refuse,
    and for a socket that was given a plain value or nothing.
    """
    schema = node.define_schema()
    title = schema.display_name or schema.node_id
    validate = None
    if node.validate_inputs.__func__ is not io.ComfyNode.validate_inputs.__func__:
        validate = node.validate_inputs
    own = inspect.signature(validate).parameters if validate else ()
    checked = {}
    for wanted in schema.inputs:
        if wanted.id not in given:
            continue
        value = given[wanted.id]
        if not isinstance(wanted, io.WidgetInput):
            if not _fits_socket(wanted, value):  # no core looks at what a socket is told
                raise FlashFaceError(
                    f"{wanted.id} of {title} is {_shown(value)}; connect a node to it instead."
                )
            continue
        try:
            checked[wanted.id] = _allowed(wanted, value, has_own_check=wanted.id in own)
        except ValueError as error:
            raise FlashFaceError(
                f"{wanted.id} of {title} is {_shown(value)}; it must be {error}."
            ) from None
    if validate:
        answer = validate(**{name: given[name] for name in own})
        if answer is not True:
            raise FlashFaceError(f"{title}: {answer}")
    return checked


def _fits_socket(wanted: io.Input, value: Any) -> bool:
    if value is None:
        return wanted.optional or wanted.io_type in MAY_BE_NONE
    plain = isinstance(value, (int, float, str, dict, list))
    return not plain or isinstance(value, PLAIN.get(wanted.io_type, ()))


def _allowed(wanted: io.WidgetInput, value: Any, has_own_check: bool) -> Any:
    """Raises ValueError saying what is allowed."""
    if isinstance(wanted, io.Combo.Input):
        if not isinstance(value, str) or not (has_own_check or value in wanted.options):
            raise ValueError(f"one of {', '.join(map(repr, wanted.options))}")
    elif isinstance(wanted, (io.Int.Input, io.Float.Input)):
        return _number(wanted, value)
    elif isinstance(wanted, io.Boolean.Input):
        if not isinstance(value, bool):
            raise ValueError("True or False")
    elif isinstance(wanted, io.String.Input) and not _is_text(value):
        raise ValueError("text, without half a character such as a cut emoji leaves")
    return value


def _number(wanted: io.Int.Input | io.Float.Input, value: Any) -> int | float:
    is_whole = isinstance(wanted, io.Int.Input)
    fits = _is_number(value) and wanted.min <= value <= wanted.max  # not so for NaN
    if not fits or (is_whole and value != int(value)):
        kind = "a whole number" if is_whole else "a number"
        raise ValueError(f"{kind} from {wanted.min:g} to {wanted.max:g}")
    return int(value) if is_whole else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return reprlib.repr(value)
    return f"a value of type {type(value).__name__}"
