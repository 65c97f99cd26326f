"""Mean and sum, which see no conflict, as links of the same chain."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ._aggregator import Weights, aggregator, closed_form


def mean(*, objectives: int | None = None) -> optax.GradientTransformationExtraArgs:
    r"""Average the gradients: :math:`d = \tfrac1K\sum_i g_i`.

    Args:
        objectives: number K of objectives. Where it is given, the state records the weights.

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
        One Gramian, which XLA removes where nothing uses it, and one weighted sum.
    """
    return aggregator(lambda cosines, norms: _equal(norms, 1 / len(norms)), objectives=objectives, throw=False)


def sum(*, objectives: int | None = None) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradients: :math:`d = \sum_i g_i`.

    Args:
        objectives: as for `mean`.

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
    return aggregator(lambda cosines, norms: _equal(norms, 1), objectives=objectives, throw=False)


def _equal(norms: Float[Array, " K"], weight: float) -> Weights:
    return closed_form(jnp.full_like(norms, weight))
