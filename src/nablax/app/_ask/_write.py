"""Rows written in the format that a file's ending names."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..._core import write_whole
from .._errors import UserError


def _array(series: pl.Series) -> np.ndarray:
    """A column as an array that needs no pickle: text has a width, and a missing text is empty."""
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        return np.array(series.cast(pl.String).fill_null("").to_list(), dtype=np.str_)
    return series.to_numpy()


def write_frame(frame: pl.DataFrame, path: Path, limits: tuple[float, float] | None = None) -> None:
    """Write rows in the format that the file's ending names, whole or not at all.

    Args:
        frame: the rows.
        path: ending in .csv, .parquet, .npz, or (images) .png.
        limits: pixel values of black and white; by default the least and greatest there are.

    Raises:
        UserError: another ending, or a folder that cannot be written to.
    """
    buffer = io.BytesIO()
    ending = path.suffix.lower()
    has_images = "image" in frame.columns and frame["image"].dtype == pl.Array
    if ending == ".png" and has_images:
        from ..._pages import image_grid

        images = frame["image"].to_numpy()
        buffer.write(image_grid(images, limits=limits or (float(images.min()), float(images.max()))))
    elif ending == ".npz":
        arrays: dict[str, Any] = {name: _array(frame[name]) for name in frame.columns}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
    elif ending == ".parquet":
        frame.write_parquet(buffer)
    elif ending == ".csv" and not has_images:
        frame.write_csv(buffer)
    else:
        wanted = ".npz, .parquet or .png" if has_images else ".csv, .parquet or .npz"
        raise UserError(f"{path.name}: the output should end in {wanted}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path} cannot be written", error) from None
