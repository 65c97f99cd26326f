"""One process at a time on a run folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .._errors import UserError

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no other process writes to it meanwhile.

    The system lets go of the lock when the process ends, however it ends; the file stays, and means nothing by itself.

    Args:
        folder: of the run; made if absent.

    Raises:
        UserError: another process holds it (by its number), or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="ascii")  # not "w": what the holder wrote must stay
    except OSError as error:
        raise UserError(folder, "cannot be written", error.strerror or error) from None
    with file:
        if not _take(file):
            file.seek(0)
            who = file.read().strip()
            process = f"process {who}" if who else "another process"
            raise UserError(f"{folder} is in use by {process}; wait for its end, stop it, or choose another --out")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _take(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # what is locked there cannot be read either: a place beyond the text
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


__all__ = ["LOCK", "held"]
