"""What commands here have in common: folders and files of arguments, and Ctrl-C."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STOPPED = 130


def folder_to_read(text: str) -> Path:
    """For argparse's `type`."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


def folder_to_write(text: str) -> Path:
    """For argparse's `type`; it need not be there yet."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder")
    return path


def file_to_write(text: str) -> Path:
    """For argparse's `type`; the folder that it is in need not be there yet."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def goes_on(main: Callable[..., None]) -> Callable[..., None]:
    """For a command that, called again, goes on where it was: Ctrl-C is told in a sentence."""

    @functools.wraps(main)
    def told(*arguments: Any) -> None:
        try:
            main(*arguments)
        except KeyboardInterrupt:
            sys.stderr.write("\nStopped; the same command goes on from what is saved.\n")
            sys.exit(STOPPED)

    return told
