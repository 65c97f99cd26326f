"""Settings that are one real number within bounds, and labels, a whole number for each row."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ._checks import check_shape, described
from ._errors import fault


def check_number(
    value: Any,
    *,
    what: str,
    fix: str,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse what is no real number, is not finite or lies outside; of what is traced only the shape is looked at.

    Args:
        value: what came.
        what: the setting's name.
        fix: what the user can do.
        least: the smallest that is allowed, by default any.
        above: what it is to lie above, by default anything.
        below: what it is to lie below, by default anything.

    Raises:
        ValueError: it is none, or outside.
    """
    bounds = (("at least", least), ("above", above), ("below", below))
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    check_shape(value, (), what=what, fix=fix)
    if isinstance(value, jax.core.Tracer):
        return
    # By Python's number: in the midst of a trace JAX's comparisons would be traced, of what is known too.
    number = float(value) if np.isrealobj(value) and not isinstance(value, bool) else math.nan
    inside = (least is None or number >= least) and (above is None or number > above)
    if not (math.isfinite(number) and inside and (below is None or number < below)):
        got = described(value) if isinstance(value, bool) or not np.isrealobj(value) else f"{number:g}"
        raise fault(expected=f"{what}, a finite number {words}".rstrip(), got=got, fix=fix)


def check_labels(value: Any, rows: int, *, classes: int | None = None) -> Int[Array, " rows"]:
    """The class of each row, by number; of what is traced only shape and dtype are looked at.

    Args:
        value: what came.
        rows: how many there are to be.
        classes: how many to choose among, by default any number.

    Returns:
        The labels as an array of JAX.

    Raises:
        ValueError: another shape, numbers that are not whole, or one that is no class.
    """
    labels = check_shape(value, (rows,), what="labels", fix="Give one class a row.")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise fault(expected="labels of whole numbers", got=described(labels), fix="Number the classes from 0.")
    if classes is not None and not isinstance(labels, jax.core.Tracer):
        numbers = np.asarray(labels)
        if outside := [int(one) for one in numbers if not 0 <= one < classes]:
            raise fault(expected=f"labels from 0 to {classes - 1}", got=str(outside[0]), fix="Count from 0.")
    return labels
