"""NumPy files: a matrix is a table, a stack of three or four axes is images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from .._errors import UserError
from ._tables import Batches


def npy(path: Path) -> tuple[Batches, int]:
    """Open a ``.npy`` file, memory-mapped so that batches alone are held.

    Args:
        path: the file.

    Returns:
        Batch size to its batches, and the number of rows.

    Raises:
        UserError: no whole array of numbers, or of a shape that is neither table nor images.
    """
    array = _load(path, path, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        raise UserError(path, "an archive of arrays; call it .npz")
    _require_numbers(path, array)
    return _stack(path, array, None), len(array)


def npz(path: Path) -> tuple[Batches, int]:
    """Open a ``.npz`` file: the array ``data`` or ``x`` or the only one, with ``label`` or ``y`` where given.

    Args:
        path: the file.

    Returns:
        Batch size to its batches, and the number of rows.

    Raises:
        UserError: none or several arrays may be meant, or they do not fit together.
    """
    with path.open("rb") as file:  # NumPy leaves files that it opened itself open when they are damaged
        arrays = _arrays_of(path, _load(path, file, mmap_mode=None))
    label = next((arrays.pop(name) for name in ("label", "y") if name in arrays and len(arrays) > 1), None)
    usual = [name for name in arrays if name in ("data", "x")]
    chosen = sorted(usual) or list(arrays)
    if not chosen or (not usual and len(arrays) > 1):
        raise UserError(path, f"name the array of rows 'data'; the arrays are {', '.join(arrays) or 'none'}")
    array = arrays[chosen[0]]
    _require_numbers(path, array)
    if label is not None and label.shape != (len(array),):
        raise UserError(path, f"the labels have shape {label.shape}, expected ({len(array)},)")
    if label is not None and label.dtype.kind not in "biufU":
        raise UserError(path, f"the labels are of type {label.dtype}, expected numbers or text")
    return _stack(path, array, label), len(array)


def _arrays_of(path: Path, archive: Any) -> dict[str, np.ndarray]:
    if isinstance(archive, np.ndarray):
        raise UserError(path, "a single array; call it .npy")
    with archive:
        try:
            return {name: archive[name] for name in archive.files}
        except Exception as error:  # zip, zlib and NumPy each have their own for a damaged archive
            raise _damage(path, error) from None


def _load(path: Path, file: Any, *, mmap_mode: Literal["r"] | None) -> Any:
    try:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, OSError or BadZipFile, by what is broken
        raise _damage(path, error) from None


def _damage(path: Path, error: Exception) -> UserError:
    if "pickle" in str(error) or "object" in str(error).lower():
        return UserError(path, "it holds Python objects, which are never loaded; save an array of numbers")
    return UserError(path, "no readable NumPy file, it may be cut short")


def _require_numbers(path: Path, array: np.ndarray) -> None:
    if array.dtype.kind not in "biuf":
        raise UserError(path, f"the array is of type {array.dtype}, expected numbers")
    if not 1 <= array.ndim <= 4:
        raise UserError(
            path,
            f"the array has {array.ndim} axes; expected rows [n, columns] or images [n, height, width(, channels)]",
        )
    if 0 in array.shape:
        raise UserError(path, f"the array is empty: its shape is {array.shape}")
    if array.ndim == 4 and array.shape[-1] > 4:
        raise UserError(path, f"images of shape {array.shape}: the channels, at most 4, come last")


def _stack(path: Path, array: np.ndarray, label: np.ndarray | None) -> Batches:
    def batches(size: int) -> Iterator[pl.DataFrame]:
        for at in range(0, len(array), size):
            part = np.asarray(array[at : at + size])
            part = part.astype(np.float32) if part.dtype == np.float16 else part.astype(part.dtype.newbyteorder("="))
            if array.ndim <= 2:
                part = part.reshape(len(part), -1)
                frame = pl.DataFrame({f"x{j}": part[:, j] for j in range(part.shape[1])})
            else:
                part = part[..., None] if part.ndim == 3 else part
                if not np.isfinite(part).all():
                    raise UserError(path, "the images hold NaN or infinite pixels")
                frame = pl.DataFrame({"image": np.ascontiguousarray(part)})
            yield frame if label is None else frame.with_columns(pl.Series("label", label[at : at + size]))

    return batches
