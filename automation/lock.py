"""One run at a time writes into a folder of results."""

import contextlib
import errno
import logging
import os
import platform
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from .problems import ListError

log = logging.getLogger("flashface.automation")

FAR = 1 << 30  # Windows lets nobody read what is locked; the file is never that long
TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Raises ListError beside another. The system lets go of it with the process, however that
    ends."""
    path = folder / "run.lock"
    with path.open("a+b", buffering=0) as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in TAKEN:  # a file system without locks
                log.warning("%s cannot be locked (%s); start no second run.", path, error)
            else:
                file.seek(0)
                who = file.read().decode(errors="replace")
                raise ListError(
                    f"Another run writes into {folder} (process {who}); wait until it ends, or "
                    "give another folder with --out."
                ) from None
        with contextlib.suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(f"{os.getpid()} of {platform.node()}".encode())
        yield


def _lock(file: FileIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
