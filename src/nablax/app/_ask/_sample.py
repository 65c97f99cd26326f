"""`nablax sample`: new rows, conditioned and steered."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from .._errors import UserError
from .._runs._run import Model
from ._draw import Samples, conditions_for, draw
from ._given import told_of, with_values
from ._guide import guided
from ._obey import AT_LEAST, obeying


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
        condition: column to value; any columns of a table, of images those that they were learnt with.
        guide: comparisons joined by "and", such as "petal_length > 5", that the rows are steered to satisfy.
        scale: classifier-free guidance; 1 samples the learned conditional distribution; the run's own by default.

    Returns:
        The rows; with a guide, only rows that satisfy it. All of them obey the relations that are kept.

    Raises:
        UserError: an unknown column or value, a column that follows from others, or a guide or a relation that cannot
            be satisfied.
    """
    if count < 1:
        raise UserError(f"-n should be at least 1, not {count}")
    if scale is None:
        scale = float(model.config.choices["guidance_scale"])
    if scale != 1.0 and not model.codec.condition_dim:
        raise UserError("--guidance-scale leans images towards their condition, and this model has none to lean to")
    if guide is not None:
        return guided(model, count, condition or {}, guide, seed=seed)
    given = condition or {}

    def drawn(number: int) -> Samples:
        again = seed if number == 0 else int(np.random.default_rng([seed % 2**64, 4, number]).integers(2**31))
        rows = count if number == 0 else max(count, AT_LEAST)
        vectors = conditions_for(model, rows, given, again)
        y = draw(model, rows, seed=again, condition=vectors, scale=scale)
        if model.joint is None:
            return Samples(model.decode(y, vectors if model.codec.condition_dim else None), y, vectors)
        return Samples(with_values(model.table("--condition"), model.decode(y, vectors), given), y, vectors)

    if model.joint is None:
        return drawn(0)
    codec = model.table("sample")
    rows = obeying(codec, count, drawn)
    return dataclasses.replace(rows, notices=(*told_of(codec, given), *rows.notices))
