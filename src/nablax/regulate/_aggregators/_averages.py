"""Mean and sum, which see no conflict, as links of the same chain."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..._core import wide_dtype
from ._aggregator import from_step
from ._arithmetic import combine
from ._checks import judged_by_vector
from ._state import Weights


def mean(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Average the gradients: :math:`d = \tfrac1K\sum_i g_i`.

    Args:
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.mean()
        >>> aggregator.update(jnp.array([[1.0], [3.0]]), aggregator.init(jnp.zeros(1)))[0].tolist()
        [2.0]

    Cost:
        One weighted sum.
    """
    return from_step(_equal(lambda count: 1 / count), objectives=objectives, throw=throw)


def sum(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradients: :math:`d = \sum_i g_i`.

    Args:
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.sum()
        >>> aggregator.update(jnp.array([[1.0], [3.0]]), aggregator.init(jnp.zeros(1)))[0].tolist()
        [4.0]

    Cost:
        As for `mean`.
    """
    return from_step(_equal(lambda count: 1), objectives=objectives, throw=throw)


def _equal(weight: Callable[[int], float]) -> Callable[[PyTree, None], tuple[PyTree, Weights, None]]:
    def step(grads: PyTree, nothing: None) -> tuple[PyTree, Weights, None]:
        count = len(jax.tree.leaves(grads)[0])
        weights = jnp.full(count, weight(count), wide_dtype(grads))
        vector = combine(grads, weights)
        return vector, judged_by_vector(vector, weights), nothing

    return step
