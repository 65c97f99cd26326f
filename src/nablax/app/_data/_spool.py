"""Encoded rows in memory, or in memory-mapped files when they are too many."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from .._errors import UserError
from ._sources import Source

if TYPE_CHECKING:
    from ._codec import Codec
    from ._images import ImageCodec

_BATCH = 16_384
_HALF = ".encoded-"  # begins the name of a folder that is not whole yet


def spool(
    source: Source, codec: "Codec | ImageCodec", folder: Path, *, holes: bool = False
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Encode every row of a source; rows that are not held in memory go to disk, a batch at a time.

    Args:
        source: the rows.
        codec: how they are encoded.
        folder: where a sub-folder ``encoded`` is made for the mapped files. What lies there already is used again
            when it came from the same rows by the same codec, and is whole or absent.
        holes: accept missing cells in columns that had none in training.

    Returns:
        Base [n, ...], condition [n, condition_dim], and whether they are in memory (else read-only memory maps).

    Raises:
        UserError: a row cannot be encoded, the file changed meanwhile, or the disk is full.
    """
    if source.frame is not None:
        return *_encode(codec, source.frame, holes), True
    place = folder / "encoded"
    mark = f"{source.fingerprint}\n{source.rows}\n{codec.to_json()}\n"
    stamp = place / "of.txt"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == mark):
        _write(source, codec, place, mark, holes)
    base, condition = (
        np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("base", "condition")
    )
    return base, condition, False


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote encoded rows have left."""
    for left in folder.glob(f"{_HALF}*"):
        shutil.rmtree(left, ignore_errors=True)


def _write(source: Source, codec: "Codec | ImageCodec", place: Path, mark: str, holes: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and then moved there.
    folder = Path(tempfile.mkdtemp(prefix=_HALF, dir=place.parent))
    try:
        maps: list[np.ndarray] = []
        at = 0
        for frame in source.batches(_BATCH):
            parts = _encode(codec, frame, holes)
            if not maps:
                maps = [
                    _create(folder / f"{n}.npy", part, source.rows) for n, part in zip(("base", "condition"), parts)
                ]
            if at + len(frame) <= source.rows:
                for target, part in zip(maps, parts):
                    target[at : at + len(part)] = part
            at += len(frame)
        if at != source.rows:
            raise UserError(
                source.name, f"{at} rows where {source.rows} were counted: the file changed while it was read"
            )
        del maps
        (folder / "of.txt").write_text(mark, encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        folder.rename(place)
    except OSError as error:
        raise UserError(place, "the encoded rows cannot be written", error.strerror or error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _encode(codec: "Codec | ImageCodec", frame: pl.DataFrame, holes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows that the codec was learnt from: none of their cells is new to it."""
    base, condition = codec.encode(frame, holes=holes)
    if codec.impossible(base).any():
        raise UserError("the rows are not those that were looked at before: the file changed while it was read")
    return base, condition


def _create(path: Path, part: np.ndarray, rows: int) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=part.dtype, shape=(rows, *part.shape[1:]))
