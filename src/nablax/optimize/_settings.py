"""Settings of the rules: checked where they are plain numbers, and what makes an optimiser of a rule."""

from typing import Any

import optax
from jaxtyping import PyTree

from .._core import fault


def check_decays(**decays: Any) -> None:
    """Refuse decays outside [0, 1); what is traced, as an injected hyperparameter, is taken as it is.

    Raises:
        ValueError: one is outside.
    """
    for name, value in decays.items():
        if isinstance(value, int | float) and not 0 <= value < 1:
            raise fault(expected=f"{name} from 0 to below 1", got=repr(value), fix="0 keeps nothing, 0.9 a tenth anew.")


def check_not_negative(**values: Any) -> None:
    """Refuse negative numbers; what is traced is taken as it is.

    Raises:
        ValueError: one is negative.
    """
    for name, value in values.items():
        if isinstance(value, int | float) and not value >= 0:
            raise fault(expected=f"{name} of 0 or more", got=repr(value), fix=f"Leave {name} out for its default.")


def check_positive(**values: Any) -> None:
    """Refuse numbers that are not above zero; what is traced is taken as it is.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if isinstance(value, int | float) and not value > 0:
            raise fault(expected=f"{name} above 0", got=repr(value), fix=f"Leave {name} out for its default.")


def with_rate(
    rule: optax.GradientTransformation, learning_rate: Any, *, weight_decay: Any = 0.0, mask: PyTree = None
) -> optax.GradientTransformationExtraArgs:
    """A rule, decoupled weight decay where there is any, and the learning rate with its sign."""
    check_not_negative(weight_decay=weight_decay)
    none = isinstance(weight_decay, int | float) and weight_decay == 0
    decay = [] if none else [optax.add_decayed_weights(weight_decay, mask)]
    return optax.chain(rule, *decay, optax.scale_by_learning_rate(learning_rate))
