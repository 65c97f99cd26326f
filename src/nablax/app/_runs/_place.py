"""The place of a run: a folder that is free for it, held by one process, with room to write."""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ..._core import PART
from .._errors import UserError
from ._config import Config
from ._lock import LOCK, held
from ._run import Run

DATA = "data.parquet"  # of a table that came without a file
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def at_work(out: Path, config: Config, *, alone: bool = True) -> Iterator[None]:
    """Hold a run folder for one process, once it is known to be one for this configuration.

    Args:
        out: the folder; made if absent.
        config: of the run.
        alone: False in a process that shares the work with the one that holds the folder.

    Raises:
        UserError: the folder is another run's or no run folder, another process holds it, or it cannot be written;
            or, within, the disk is full.
    """
    run_there(Run(out), config)
    if not alone:
        yield
        return
    with held(out), roomy(out):
        yield


@contextmanager
def roomy(out: Path) -> Iterator[None]:
    """Say in one line that a run folder cannot be written any more, and how to go on.

    Every file is written beside its place and moved there, so what had been written is whole.

    Args:
        out: the folder.

    Raises:
        UserError: within, the disk is full, a quota is spent, or the folder has become read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(
            f"{out} cannot be written: {error.strerror}; what is in it is whole. "
            "Make room, and give the same command again: it goes on from the last checkpoint"
        ) from None


def run_there(run: Run, config: Config) -> Config | None:
    """The configuration that a folder holds already.

    Args:
        run: the folder.
        config: of the run that is to be there.

    Returns:
        The configuration; None where the folder is free for a new run.

    Raises:
        UserError: it is another run's, or no run folder.
    """
    before = run.config()
    if before is None:
        _check_free(run.path)
    elif different := before.differences(config):
        raise UserError(
            f"{run.path} holds a run of another configuration (other {', '.join(different)}); "
            "choose another --out, or delete that folder"
        )
    return before


def keep_data(frame: pl.DataFrame, folder: Path) -> Path:
    """Write a table that came without a file into its run folder, so that the run can be checked later.

    Args:
        frame: the table.
        folder: of the run; made if absent.

    Returns:
        The file.

    Raises:
        UserError: other data lie there, the folder is something else, or it cannot be written.
    """
    run, place = Run(folder), folder / DATA
    if place.exists():
        if pl.read_parquet(place).equals(frame):
            return place
        raise UserError(f"{folder} holds a run of other data; choose another out, or delete that folder")
    if run.config() is not None:
        raise UserError(f"{folder} holds a run of a file; choose another out, or delete that folder")
    _check_free(folder)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    try:
        run.write(DATA, buffer.getvalue())
    except OSError as error:
        raise UserError(folder, "cannot be written", error.strerror or error) from None
    return place


def _check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and all(map(_beginning, folder.iterdir()))):
        raise UserError(f"{folder} exists and is no run folder; choose another --out")


def _beginning(path: Path) -> bool:
    """Whether a file is one that a run may leave which was killed before it had a configuration."""
    return path.name in (LOCK, DATA) or any(path.match(f"{name}.*{PART}") for name in ("config.json", DATA))


__all__ = ["DATA", "at_work", "keep_data", "roomy", "run_there"]
