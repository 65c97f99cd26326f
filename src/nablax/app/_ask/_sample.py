"""`nablax sample`: new rows, conditioned and steered."""

from collections.abc import Mapping

from .._errors import UserError
from .._runs._run import Model
from ._draw import Samples, conditions_for, draw
from ._given import with_values
from ._guide import guided


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
        The rows; with a guide, only rows that satisfy it.

    Raises:
        UserError: an unknown column or value, or a guide that cannot be satisfied.
    """
    if count < 1:
        raise UserError(f"-n should be at least 1, not {count}")
    if scale is None:
        scale = float(model.config.choices["guidance_scale"])
    if scale != 1.0 and not model.codec.condition_dim:
        raise UserError("--guidance-scale leans images towards their condition, and this model has none to lean to")
    if guide is not None:
        return guided(model, count, condition or {}, guide, seed=seed)
    vectors = conditions_for(model, count, condition or {}, seed)
    y = draw(model, count, seed=seed, condition=vectors, scale=scale)
    if model.joint is None:
        return Samples(model.decode(y, vectors if model.codec.condition_dim else None), y, vectors)
    return Samples(with_values(model.table("--condition"), model.decode(y, vectors), condition or {}), y, vectors)
