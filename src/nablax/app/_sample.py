"""`nablax sample`: new rows, conditioned and steered."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from jaxtyping import Array

from ._cells import block_size
from ._errors import UserError
from ._rows import filled
from ._run import Model, write_whole

_ROWS_AT_ONCE = 2048
# Where a number is a condition and others are not named, these come from the nearest tenth of the training rows.
_SHARE, _FEWEST = 10, 20


def conditions_for(model: Model, count: int, values: Mapping[str, str], seed: int) -> np.ndarray:
    """Condition vectors for new rows.

    Args:
        model: the opened run.
        count: rows.
        values: condition column to value; what is not named is drawn as it is in those training rows that have the
            categories named and are nearest in the numbers named.
        seed: of that draw.

    Returns:
        float32 [count, c].
    """
    named = model.codec.encode_condition(values, count)
    known = np.asarray(model.conditions)
    columns = model.codec.conditioned
    lengths = [block_size(column) for column in columns]
    fixed = np.repeat([column.name in values for column in columns], lengths).astype(bool)
    if len(known) == 0 or fixed.all():
        return named
    categories = np.repeat([column.kind == "category" for column in columns], lengths)
    differences = np.square(known - named[:1]) * fixed
    mismatch = differences[:, categories].sum(axis=1)
    picks = np.flatnonzero(mismatch == mismatch.min())
    if fixed[~categories].any():
        apart = differences[picks][:, ~categories].sum(axis=1)
        picks = picks[np.argsort(apart, kind="stable")[: max(_FEWEST, len(picks) // _SHARE)]]
    rows = known[picks[np.random.default_rng([seed, 1]).integers(0, len(picks), count)]]
    return np.where(fixed, named, rows).astype(np.float32)


def draw(
    model: Model,
    count: int,
    *,
    seed: int = 0,
    condition: np.ndarray | None = None,
    scale: float = 1.0,
    steps: int | Array | None = None,
) -> np.ndarray:
    """Draw encoded samples.

    Args:
        model: the opened run.
        count: how many.
        seed: the same seed gives the same samples.
        condition: condition vectors [count, c]; ignored when the model has none.
        scale: classifier-free guidance.
        steps: fixed solver steps; adaptive by default.

    Returns:
        float32 [count, ...].
    """
    transport = model.guided(scale)
    key = jax.random.key(seed)
    parts = []
    # Chunks of one size, the last one filled up, so that one compiled program serves them all.
    size = min(count, _ROWS_AT_ONCE)
    for number, start in enumerate(range(0, count, size)):
        args: Array | None = None
        if model.codec.condition_dim and condition is not None:
            args = jax.numpy.asarray(filled(condition[start : start + size], size))
        y = transport.sample(size, key=jax.random.fold_in(key, number), args=args, steps=steps)
        parts.append(np.asarray(y)[: count - start])
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Samples:
    """New rows, and what to know of them.

    Attributes:
        frame: in the table's own columns, types and ranges.
        y: the encoded samples they were decoded from.
        condition: their condition vectors.
        notices: one line each.
    """

    frame: pl.DataFrame
    y: np.ndarray
    condition: np.ndarray
    notices: tuple[str, ...] = ()


def sample(
    model: Model,
    count: int,
    *,
    seed: int = 0,
    condition: Mapping[str, str] | None = None,
    guide: str | None = None,
    scale: float | None = None,
) -> Samples:
    """Draw new rows.

    Args:
        model: the opened run.
        count: how many.
        seed: the same seed gives the same rows.
        condition: condition column to value.
        guide: comparisons joined by "and", such as "petal_length > 5", that the rows are steered to satisfy.
        scale: classifier-free guidance; 1 samples the learned conditional distribution; the run's own by default.

    Returns:
        The rows; with a guide, only rows that satisfy it.

    Raises:
        UserError: an unknown column or value, or a guide that cannot be satisfied.
    """
    if count < 1:
        raise UserError(f"-n should be at least 1, not {count}")
    if scale is None:
        scale = float(model.config.choices["guidance_scale"])
    if scale != 1.0 and not model.codec.condition_dim:
        raise UserError("--guidance-scale leans towards a condition, and this model has none")
    if guide is not None:
        from ._guide import guided

        return guided(model, count, condition or {}, guide, seed=seed, scale=scale)
    vectors = conditions_for(model, count, condition or {}, seed)
    y = draw(model, count, seed=seed, condition=vectors, scale=scale)
    shown = vectors if model.codec.condition_dim else None
    return Samples(model.codec.decode(y, shown), y, vectors)


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
        from ._data_figures import image_grid

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


__all__ = ["Samples", "conditions_for", "draw", "sample", "write_frame"]
