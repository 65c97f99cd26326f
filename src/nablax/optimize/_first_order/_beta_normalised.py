"""Descent by a gradient over a power of its norm: for losses whose curvature grows with the slope."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import divide, register_rule, tree_norm, wide_dtype
from .._settings import check_not_negative, with_rate


class BetaNormalisedState(NamedTuple):
    """What normalised descent remembers.

    Attributes:
        norm: of the last gradient, in its units.
    """

    norm: Float[Array, ""]


register_rule(BetaNormalisedState, unreadable="normalised descent: its rate goes with a power of the gradient's norm")


def over_power(tree: PyTree, power: Any) -> tuple[PyTree, Float[Array, ""]]:
    """A tree over a power of its norm, in single precision at least, and the norm; zero stays zero."""
    length = tree_norm(tree)
    factor = divide(1.0, length**power)
    return jax.tree.map(lambda leaf: factor.astype(wide_dtype(leaf)) * leaf.astype(wide_dtype(leaf)), tree), length


def scale_by_beta_norm(beta: float = 2 / 3) -> optax.GradientTransformationExtraArgs:
    r"""Divide a gradient by a power of its norm, without a learning rate.

    .. math:: u_t = \frac{g_t}{\lVert g_t\rVert^\beta}

    with the norm of all parameters together; no gradient, no step.

    Args:
        beta: β, no unit, 0 or more; 2/3 by default, the authors' for losses of degree four. 0 is the gradient, 1 a
            direction of length 1.

    Returns:
        The rule; its state is a `BetaNormalisedState`.

    Raises:
        ValueError: a negative β.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_beta_norm(0.5)
        >>> gradient = jnp.array([0.0, 16.0])
        >>> rule.update(gradient, rule.init(gradient))[0].tolist()
        [0.0, 4.0]

    Cost: one norm, one number of memory.

    References:
        - Chen et al., "Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth Nonconvex Optimization",
          2023, https://arxiv.org/abs/2303.02854, and the authors' code.
    """
    check_not_negative(beta=beta)

    def init(params: PyTree) -> BetaNormalisedState:
        return BetaNormalisedState(jnp.zeros((), wide_dtype(params)))

    def update(
        updates: PyTree, state: BetaNormalisedState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, BetaNormalisedState]:
        steps, length = over_power(updates, beta)
        steps = jax.tree.map(lambda step, g: step.astype(g.dtype), steps, updates)
        return steps, BetaNormalisedState(length.astype(state.norm.dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def beta_normalised(
    learning_rate: optax.ScalarOrSchedule, beta: float = 2 / 3
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent whose rate shrinks with a power of the gradient's norm.

    .. math:: \theta_{t+1} = \theta_t - \eta\,\frac{g_t}{\lVert g_t\rVert^\beta}

    For losses whose curvature is bounded by :math:`L_0+L_1\lVert\nabla f\rVert^\alpha` and β from α to 1, so that
    a step far from the solution is no longer than the curvature there allows: of degree four α is 2/3.

    Args:
        learning_rate: η, a number or a schedule, in units of parameters times the gradient's to the power β - 1.
        beta: β, 2/3 by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: a negative rate or β.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.beta_normalised(0.1), jnp.array(2.0)
        >>> update, _ = optimizer.update(4 * x**3, optimizer.init(x), x)  # the gradient of x⁴
        >>> round(float(optax.apply_updates(x, update) / x), 4)  # the same share at any x
        0.8413

    Cost: as `scale_by_beta_norm`.

    References:
        - Chen et al., https://arxiv.org/abs/2303.02854.
    """
    return with_rate(scale_by_beta_norm(beta), learning_rate)
