"""Settings of the rules: checked where they are plain numbers, and what makes an optimiser of a rule."""

from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from .._core import fault


def _plain(name: str, value: Any) -> float | None:
    """A setting as a number; None for what is traced, which is taken as it is.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        raise fault(expected=f"a number for {name}", got=repr(value), fix=f"Leave {name} out for its default.")
    if np.ndim(value):
        raise fault(expected=f"one number for {name}", got=f"an array of shape {np.shape(value)}", fix="Pass a scalar.")
    return float(value)


def check_decays(**decays: Any) -> None:
    """Refuse decays outside [0, 1); what is traced, as an injected hyperparameter, is taken as it is.

    Raises:
        ValueError: one is outside.
    """
    for name, value in decays.items():
        number = _plain(name, value)
        if number is not None and not 0 <= number < 1:
            raise fault(expected=f"{name} from 0 to below 1", got=repr(value), fix="0 keeps nothing, 0.9 a tenth anew.")


def check_not_negative(**values: Any) -> None:
    """Refuse negative numbers; what is traced is taken as it is.

    Raises:
        ValueError: one is negative.
    """
    for name, value in values.items():
        number = _plain(name, value)
        if number is not None and not number >= 0:
            raise fault(expected=f"{name} of 0 or more", got=repr(value), fix=f"Leave {name} out for its default.")


def check_positive(**values: Any) -> None:
    """Refuse numbers that are not above zero; what is traced is taken as it is.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        number = _plain(name, value)
        if number is not None and not number > 0:
            raise fault(expected=f"{name} above 0", got=repr(value), fix=f"Leave {name} out for its default.")


def check_share(**values: Any) -> None:
    """Refuse numbers that are not above 0 and at most 1; what is traced is taken as it is.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        number = _plain(name, value)
        if number is not None and not 0 < number <= 1:
            raise fault(expected=f"{name} above 0, at most 1", got=repr(value), fix="1 is the most there is of it.")


def check_rate(learning_rate: Any) -> None:
    """Refuse a negative rate, or one that is no number; schedules are taken as they are.

    Raises:
        ValueError: it is one.
    """
    if not callable(learning_rate):
        check_not_negative(learning_rate=learning_rate)


def rate_at(learning_rate: Any, step: Any) -> Any:
    """The rate of a step, of a schedule or a number."""
    return learning_rate(step) if callable(learning_rate) else learning_rate


def is_zero(value: Any) -> bool:
    """Whether a setting is plainly 0, so that what it would weigh is left out; what is traced may be anything."""
    return isinstance(value, int | float) and value == 0


def with_rate(
    rule: optax.GradientTransformation, learning_rate: Any, *, weight_decay: Any = 0.0, mask: PyTree = None
) -> optax.GradientTransformationExtraArgs:
    """A rule, decoupled weight decay where there is any, and the learning rate with its sign.

    Raises:
        ValueError: a negative rate or decay, or one that is no number.
    """
    check_not_negative(weight_decay=weight_decay)
    check_rate(learning_rate)
    decay = [] if is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay, mask)]
    return optax.chain(rule, *decay, optax.scale_by_learning_rate(learning_rate))
