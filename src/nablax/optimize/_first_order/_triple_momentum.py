"""Triple momentum: the fastest rule known for strongly convex functions whose least and largest curvature are known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._settings import check_positive, check_share
from ._xgrad import xgrad, xgrad_eval_params

Scalar = float | Float[Array, ""]


class MomentumCoefficients(NamedTuple):
    r"""A rule of the form :math:`\xi^+ = \xi+\beta(\xi-\xi_-)-\alpha\nabla f(\xi+\gamma(\xi-\xi_-))`.

    Attributes:
        rate: α, of a step.
        momentum: β, of the last move.
        lookahead: γ, moves ahead of ξ at which gradients are taken.
        output: δ, moves ahead of ξ at which the rule is read.
    """

    rate: Float[Array, ""]
    momentum: Float[Array, ""]
    lookahead: Float[Array, ""]
    output: Float[Array, ""]


def triple_momentum_coefficients(learning_rate: Scalar, mu: Scalar) -> MomentumCoefficients:
    r"""Rate, momentum, lookahead and output of triple momentum.

    .. math::
        \rho = 1-\sqrt{\mu/L}, \qquad \alpha = \frac{1+\rho}L, \qquad \beta = \frac{\rho^2}{2-\rho}, \qquad
        \gamma = \frac{\rho^2}{(1+\rho)(2-\rho)}, \qquad \delta = \frac{\rho^2}{1-\rho^2}

    Args:
        learning_rate: 1/L, one over the largest curvature.
        mu: μ, the smallest curvature, in units of the loss's second derivative; above 0, at most L.

    Returns:
        `MomentumCoefficients`.

    Raises:
        ValueError: they are not above 0, or μ is above L.

    Example:
        >>> from nablax import optimize
        >>> [round(float(number), 4) for number in optimize.triple_momentum_coefficients(0.04, 1.0)]
        [0.072, 0.5333, 0.2963, 1.7778]

    Cost: none.

    References:
        - As `triple_momentum`.
    """
    check_positive(learning_rate=learning_rate, mu=mu)
    check_share(**{"learning_rate times mu": learning_rate * mu})  # the smallest curvature over the largest
    rho = 1 - jnp.sqrt(learning_rate * mu)
    square = rho**2
    return MomentumCoefficients(
        rate=(1 + rho) * learning_rate,
        momentum=square / (2 - rho),
        lookahead=square / ((1 + rho) * (2 - rho)),
        output=square / (1 - square),
    )


def triple_momentum(learning_rate: Scalar, mu: Scalar) -> optax.GradientTransformationExtraArgs:
    r"""Triple momentum: heavy ball with gradients taken ahead, its three numbers set by two curvatures.

    .. math::
        \xi^+ = (1+\beta)\xi-\beta\xi_--\alpha\nabla f(y), \qquad y = (1+\gamma)\xi-\gamma\xi_-, \qquad
        x = (1+\delta)\xi-\delta\xi_-

    with α, β, γ and δ of `triple_momentum_coefficients`. On every function whose curvature is between μ and L it nears
    the minimum by the factor :math:`1-\sqrt{\mu/L}` a step, where Nesterov's method, which is
    ``optax.sgd(1 / L, beta, nesterov=True)`` with :math:`\beta=(\sqrt L-\sqrt\mu)/(\sqrt L+\sqrt\mu)`, is known to by
    no better than the root of that. Heavy ball tuned for quadratics is faster on them, and on other functions may not
    converge at all. With noise in the gradients none of it holds.

    The parameters that the loop holds are y, at which gradients are taken. Read the rule by
    `triple_momentum_eval_params`, whose distance the theorem is of, or by `xgrad_eval_params`, which gives ξ.

    Args:
        learning_rate: 1/L, one over the largest curvature. A step is longer, :math:`(2-\sqrt{\mu/L})/L`.
        mu: μ, the smallest curvature; above 0, at most L. Too large a one may diverge, too small a one is slow.

    Returns:
        The optimiser; its state is an `XGradState`. It needs ``params``.

    Raises:
        ValueError: as `triple_momentum_coefficients`; at an update, ``params`` are missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> curvature = jnp.array([1.0, 5.0, 25.0])
        >>> optimizer, x = optimize.triple_momentum(1 / 25, 1.0), jnp.ones(3)
        >>> def step(_, carry):
        ...     x, state = carry
        ...     update, state = optimizer.update(curvature * x, state, x)
        ...     return optax.apply_updates(x, update), state
        >>> x, state = jax.lax.fori_loop(0, 50, step, (x, optimizer.init(x)))
        >>> bool(jnp.max(jnp.abs(x)) < 1e-3)  # 0.8 to the power of 50 is 1.4e-5, times some tens
        True

    Cost: two arrays of memory.

    References:
        - Van Scoy, Freeman and Lynch, "The Fastest Known Globally Convergent First-Order Method for Minimizing Strongly
          Convex Functions", 2018, https://doi.org/10.1109/LCSYS.2017.2722406 (its numbers by way of the codes of
          performance estimation, https://github.com/PerformanceEstimation; that it is `xgrad` round ``optax.sgd`` is
          seen here).
    """
    numbers = triple_momentum_coefficients(learning_rate, mu)
    return xgrad(optax.sgd(numbers.rate, numbers.momentum), numbers.lookahead)  # type: ignore[arg-type]


def triple_momentum_eval_params(state: Any, params: PyTree, learning_rate: Scalar, mu: Scalar) -> PyTree:
    r"""Where a run of `triple_momentum` is read.

    .. math:: x = \xi+\delta(\xi-\xi_-), \qquad y = \xi+\gamma(\xi-\xi_-)

    Args:
        state: the optimiser's, or that of a chain or wrapper with it.
        params: y, the parameters that the loop holds.
        learning_rate: 1/L, as the optimiser's.
        mu: μ, as the optimiser's.

    Returns:
        x, shaped and typed like ``params``.

    Raises:
        ValueError: there is no such state, or there are several; or a number not above 0.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, y = optimize.triple_momentum(0.25, 1.0), jnp.array(1.0)
        >>> update, state = optimizer.update(y, optimizer.init(y), y)
        >>> y = optax.apply_updates(y, update)
        >>> float(optimize.triple_momentum_eval_params(state, y, 0.25, 1.0))  # ξ is 0.625, its move -0.375, δ a third
        0.5

    Cost: a sum a parameter.

    References:
        - As `triple_momentum`.
    """
    check_positive(learning_rate=learning_rate, mu=mu)
    rho = 1 - jnp.sqrt(learning_rate * mu)
    times = (2 - rho) / (1 - rho)  # δ/γ, which is no quotient of zeros at ρ = 0

    def read(proper: Array, held: Array) -> Array:
        return (proper + times * (held - proper)).astype(jnp.result_type(held))

    return jax.tree.map(read, xgrad_eval_params(state, params), params)
