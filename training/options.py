"""A recipe from the command line: an option for every field of Recipe and Sampling."""

import argparse
from dataclasses import MISSING, Field, fields
from typing import Any

from training.systems import SYSTEMS, parts_of

CHOICES = {"precision": ("no", "bf16", "fp16")}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """None of them is in the namespace unless it was given."""
    from training.batches import Sampling
    from training.trainer import Recipe

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
    """The Recipe of the options that were given; the others are Recipe's own, and all parts of
    the system are trained."""
    from training.batches import Sampling
    from training.trainer import Recipe

    given = vars(options)
    values, sampling = (
        {field.name: given[field.name] for field in fields(kind) if field.name in given}
        for kind in (Recipe, Sampling)
    )
    if "favoured" in sampling:
        low, high, chance = sampling["favoured"]
        sampling["favoured"] = (int(low), int(high), chance)
    values["train"] = tuple(values.get("train", parts_of(system)))
    return Recipe(**values, sampling=Sampling(**sampling))
