"""A recipe from a file and the command line: an option for every field of Recipe and Sampling."""

import argparse
import json
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from flashface_core.errors import FlashFaceError
from training.systems import SYSTEMS, parts_of

PRECISIONS = ("no", "bf16", "fp16")
OPTIMIZERS = ("adamw", "muon")
CHOICES = {"precision": PRECISIONS, "optimizer": OPTIMIZERS}
AT_LEAST_ONE = ("groups", "accumulate", "log_every", "save_every", "targets_per_group")
DROPPED = ("drop_references", "drop_text", "drop_both")  # they exclude each other
CHANCES = (*DROPPED, "give_position", "own_face")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """None of them is in the namespace unless it was given."""
    from training.batches import Sampling
    from training.trainer import Recipe

    parser.add_argument("--recipe", type=Path, help="JSON file; other options override it")
    parts = tuple(dict.fromkeys(part for system in SYSTEMS for part in parts_of(system)))
    for kind in (Recipe, Sampling):
        group = parser.add_argument_group(kind.__name__.lower(), kind.__doc__)
        for field in fields(kind):
            if field.default is not MISSING:
                _add(group, field, {**CHOICES, "train": parts}.get(field.name))


def _add(group, field: Field, choices: tuple[str, ...] | None) -> None:
    name, default = f"--{field.name.replace('_', '-')}", field.default
    given: dict[str, Any] = {"default": argparse.SUPPRESS, "choices": choices}
    if isinstance(default, bool):
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
    elif isinstance(default, tuple):
        of = str if choices else float
        group.add_argument(name, nargs="+" if choices else len(default), type=of, **given)
    else:
        of = float if default is None else type(default)
        group.add_argument(name, type=of, **given)


def make_recipe(system: str, options: argparse.Namespace):
    """The Recipe of the file `options.recipe`, where there is one, and of the options that were
    given, which go before it; all else is Recipe's own, and all parts of the system are trained.

    Raises FlashFaceError for a file that does not fit the system.
    """
    from training.batches import Sampling
    from training.trainer import Recipe

    values, sampling = read_recipe(options.recipe, system) if options.recipe else ({}, {})
    for kind, into in ((Recipe, values), (Sampling, sampling)):
        names = {field.name for field in fields(kind)}
        into |= {name: value for name, value in vars(options).items() if name in names}
    if "favoured" in sampling:
        low, high, chance = sampling["favoured"]
        sampling["favoured"] = (int(low), int(high), chance)
    values["train"] = tuple(values.get("train", parts_of(system)))
    if unknown := [part for part in values["train"] if part not in parts_of(system)]:
        raise FlashFaceError(
            f"{system} has no part {unknown[0]!r} to train; it has {', '.join(parts_of(system))}."
        )
    recipe = Recipe(**values, sampling=Sampling(**sampling))
    if wrong := _out_of_range({**vars(recipe), **vars(recipe.sampling)}):
        raise FlashFaceError(wrong)
    return recipe


def _out_of_range(values: dict[str, Any]) -> str | None:
    from training.diffusion import TIMESTEPS

    for name in AT_LEAST_ONE:
        if values[name] < 1:
            return f"{name} is {values[name]}; 1 is the least."
    for name in CHANCES:
        if values[name] is not None and not 0 <= values[name] <= 1:
            return f"{name} is {values[name]:g}; a chance is between 0 and 1."
    if (total := sum(values[name] for name in DROPPED)) > 1 + 1e-9:
        return (
            f"{', '.join(DROPPED)} exclude each other; they are {total:g} together, 1 is the most."
        )
    low, high, chance = values["favoured"]
    if not 0 <= low < high <= TIMESTEPS or not 0 <= chance <= 1:
        return (
            f"favoured is {low} {high} {chance:g}; it takes two timesteps, the lower one first, of "
            f"0 to {TIMESTEPS}, and a chance between 0 and 1."
        )
    return None


def read_recipe(path: Path, system: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of Recipe and of Sampling, as recipe.json of a run has them; any may be missing.

    Raises FlashFaceError for a file of another system, unknown fields and wrong values.
    """
    from training.batches import Sampling
    from training.trainer import Recipe

    values = _read(path)
    given = values.pop("system", None)
    if given != system:
        raise FlashFaceError(
            f"{path.name} is a recipe of {given or 'no system'}, and --system is {system}; give "
            "the two that belong together."
        )
    sampling = values.pop("sampling", {})
    if not isinstance(sampling, dict):
        raise FlashFaceError(f"{path.name} sets sampling to {sampling!r}, expected an object.")
    for kind, found in ((Recipe, values), (Sampling, sampling)):
        known = {field.name: field.default for field in fields(kind)}
        for name, value in found.items():
            if name not in known or known[name] is MISSING:
                raise FlashFaceError(
                    f"{path.name} sets {name!r}, which {kind.__name__} does not have; it has "
                    f"{', '.join(name for name in known if name != 'sampling')}."
                )
            if not _is_like(value, known[name], name):
                raise FlashFaceError(
                    f"{path.name} sets {name} to {value!r}, expected a value like {known[name]!r}."
                )
    return values, sampling


def system_of(path: Path) -> str:
    """Raises FlashFaceError for a file that is no recipe of a system."""
    system = _read(path).get("system")
    if system not in SYSTEMS:
        raise FlashFaceError(
            f"{path.name} is a recipe of {system or 'no system'}; give one of {', '.join(SYSTEMS)}."
        )
    return system


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise FlashFaceError(
            f"{path} cannot be read as a recipe ({error}); give a JSON file such as those in "
            "training/recipes."
        ) from error
    return values


def _is_like(value: Any, default: Any, name: str) -> bool:
    """default: of a field; where it is None, a number may be given."""
    if name in CHOICES:
        return value in CHOICES[name]
    if isinstance(default, tuple):
        if not isinstance(value, list):
            return False
        if isinstance(default[0], str):
            return bool(value) and all(isinstance(one, str) for one in value)
        return len(value) == len(default) and all(map(_is_number, value))
    if default is None:
        return value is None or _is_number(value)
    if isinstance(default, float):
        return _is_number(value)
    return type(value) is type(default)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
