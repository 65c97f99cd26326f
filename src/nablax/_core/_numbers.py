"""Settings that are one real number within bounds."""

from typing import Any

import jax
import numpy as np

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
    real = np.isrealobj(value) and not isinstance(value, bool)
    inside = real and (
        np.isfinite(float(value))
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not inside:
        got = described(value) if not real else f"{float(value):g}"
        raise fault(expected=f"{what}, a finite number{' ' * bool(words)}{words}", got=got, fix=fix)
