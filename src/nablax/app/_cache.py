"""Compiled programs kept from one call of the command line to the next, in JAX's compilation cache."""

import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_BYTES, _FILES = 256 * 2**20, 2000  # of all that is kept; what was used longest ago goes first
_DESK = ".nablax-process-"
_TROUBLE = "Error (reading|writing) persistent compilation cache"
_LEFT_BEHIND = 24 * 3600.0  # seconds after which a process's folder is taken for a dead one's


@contextmanager
def kept_programs() -> Iterator[None]:
    """Take compiled programs from the user's cache folder, and leave new ones there.

    JAX writes a program into its cache folder bit by bit, and with its own bound on size a process that is killed while
    it writes leaves an entry that is never mended. So each process has a folder of its own, with hard links to what is
    kept, and hands in what is new by renaming, which is all or nothing: any number of processes may come, go and be
    killed. Where an entry is damaged or the disk is full, everything kept is given up. Where the folder cannot be used,
    one line says so. A cache folder that was set for JAX itself stays as it is.
    """
    try:
        folder = cache_folder()
        desk = None if folder is None else _desk(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody is at home
        print(f"compiled programs are not kept ({error}); NABLAX_CACHE names another folder, or 'off'", file=sys.stderr)
        folder = desk = None
    if folder is None or desk is None:
        yield
        return
    try:
        with _jax_caches_in(desk) as troubles:
            yield
        # Not after an exception, for one that came while a program was written cut it short.
        with suppress(OSError):  # another process at the same files: they are kept the next time
            if troubles:
                _empty(folder)
            else:
                _hand_in(desk, folder)
                _make_room(folder)
    finally:
        shutil.rmtree(desk, ignore_errors=True)


def cache_folder() -> Path | None:
    """Where programs are kept: ``NABLAX_CACHE``, or the platform's folder for caches; None for nowhere."""
    named = os.environ.get("NABLAX_CACHE")
    if named:
        return None if named == "off" else Path(named).expanduser()
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nablax"


@contextmanager
def _jax_caches_in(desk: Path) -> Iterator[list[str]]:
    """Have JAX read and write programs there; what it could not read or write is listed."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(desk),
        "jax_compilation_cache_max_size": -1,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_enable_xla_caches": "none",  # they would grow without bound, beside the entries
    }
    before = {name: getattr(jax.config, name) for name in settings}
    troubles: list[str] = []
    with warnings.catch_warnings():
        # JAX warns, and compiles. An entry is damaged, or the disk is full and entries are cut short.
        warnings.filterwarnings("always", message=_TROUBLE)
        others = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **more: Any) -> None:
            if re.match(_TROUBLE, str(message)):
                troubles.append(str(message))
            else:
                others(message, *rest, **more)

        warnings.showwarning = show
        try:
            for name, value in settings.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
            yield troubles
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def _desk(folder: Path) -> Path:
    # Whoever may write here may have us run what they like: it is the user's alone.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise PermissionError(f"{folder} belongs to others, or others may write there")
    desk = Path(tempfile.mkdtemp(prefix=_DESK, dir=folder))
    for entry in _entries(folder):
        with suppress(FileNotFoundError):  # another process has just made room
            os.link(entry, desk / entry.name)
    return desk


def _entries(folder: Path) -> list[Path]:
    # By JAX's endings: whatever else lies in a folder that the user named is the user's.
    return [path for path in folder.iterdir() if path.name.endswith(("-cache", "-atime")) and path.is_file()]


def _hand_in(desk: Path, folder: Path) -> None:
    known = {entry.name for entry in _entries(folder)}
    for entry in _entries(desk):
        if entry.name not in known:
            entry.replace(folder / entry.name)


def _empty(folder: Path) -> None:
    for entry in _entries(folder):
        entry.unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    seen = {entry: entry.stat() for entry in _entries(folder)}
    total = 0
    # A file system that notes no access leaves the time of writing.
    by_use = sorted(seen, key=lambda entry: max(seen[entry].st_atime, seen[entry].st_mtime), reverse=True)
    for place, entry in enumerate(by_use):
        total += seen[entry].st_size
        if total > _BYTES or place >= _FILES:
            entry.unlink(missing_ok=True)
    for desk in folder.glob(_DESK + "*"):
        if time.time() - desk.stat().st_mtime > _LEFT_BEHIND:
            shutil.rmtree(desk, ignore_errors=True)


__all__ = ["cache_folder", "kept_programs"]
