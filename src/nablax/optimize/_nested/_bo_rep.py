"""BO-REP: two levels whose upper loss has gradients of any size, by steps of one length."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_loss,
    exact,
    space,
    unit_vector,
)
from .._leaves import like
from .._outcome import all_finite, outcome
from .._settings import check_decays, check_not_negative, check_positive


class NormalisedBilevel(AbstractRecord):
    """Where a run over two levels has led.

    Attributes:
        params: of the upper level.
        lower: the lower level's variable.
        values: the upper loss at each step, on that step's draw, [steps].
        hypergradient: the average of hypergradients at the end, shaped like ``params``.
        result: ``optimistix.RESULTS.successful``, or that a number was not finite.
        evaluations: gradients and products of both levels, in all.
    """

    params: PyTree
    lower: PyTree
    values: Float[Array, " steps"]
    hypergradient: PyTree
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def bo_rep(
    upper: Callable[[PyTree, PyTree, jax.Array], Array],
    lower: Callable[[PyTree, PyTree, jax.Array], Array],
    start: PyTree,
    x: PyTree,
    *,
    steps: int,
    rate: float | Float[Array, ""],
    lower_rate: float | Float[Array, ""],
    system_rate: float | Float[Array, ""] = 1e-2,
    momentum: float = 0.9,
    refinement: int = 100,
    period: int = 2,
    lower_steps: int = 10,
    key: jax.Array,
    throw: bool = True,
) -> NormalisedBilevel:
    r"""Minimise an upper loss at a lower level's minimum, by averaged hypergradients divided by their length.

    .. math::
        z^+ = z-\nu\,(\nabla^2_{xx}h\,z-\nabla_xg), \qquad
        m^+ = \beta m+(1-\beta)\,(\partial_\theta g-\nabla_\theta\langle\nabla_xh,z^+\rangle), \qquad
        \theta^+ = \theta-\eta\,\frac{m^+}{\lVert m^+\rVert}

    Losses of recurrent nets have curvatures that grow with their gradients, so that no rate is safe; a step here has
    the length η whatever the gradient's. As θ moves so little, x need not follow at every step: from a start that is
    refined first it makes some steps of descent every ``period`` steps only.

    Args:
        upper: g, ``upper(x, params, key) -> scalar``; the key draws its batch, or its noise.
        lower: h, ``lower(x, params, key) -> scalar``, strongly convex in x.
        start: θ at first, a tree of floats.
        x: the lower level's variable at first.
        steps: of the upper level.
        rate: η, the length of a step of θ.
        lower_rate: of descent on h.
        system_rate: ν, of the system for z, below 2 over the largest eigenvalue of h's Hessian; 1e-2 by default. z lags
            behind by some 1/(νμ) steps, μ the least eigenvalue, and θ overshoots by as many of its own.
        momentum: β, 0.9 by default.
        refinement: steps of x before the first of θ; 100 by default, ours.
        period: upper steps from one time that x is moved to the next, 2 by default.
        lower_steps: of x at such a time, 10 by default.
        key: of both losses' draws.
        throw: raise where a number is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`NormalisedBilevel`.

    Raises:
        ValueError: settings out of range, no key, or a loss that is no real scalar.
        RuntimeError: a number was not finite; raised when it is run.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> lower = lambda x, params, key: (x - 2 * params) ** 2 / 2  # at its minimum x = 2 params
        >>> upper = lambda x, params, key: jnp.cosh(5 * (x - 3.0))
        >>> rates = {"rate": 0.01, "lower_rate": 0.5, "system_rate": 0.5}
        >>> start, key = jnp.array(0.0), jax.random.key(0)
        >>> found = optimize.bo_rep(upper, lower, start, start, steps=400, key=key, **rates)
        >>> round(float(found.params), 1)
        1.5

    Cost: a gradient of the upper loss, a Hessian product and a mixed one a step; ``lower_steps`` gradients of the lower
        loss a period.

    References:
        - Hao, Gong and Liu, "Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence
          Analysis", 2024, https://arxiv.org/abs/2401.09587, and the authors' code
          (https://github.com/MingruiLiu-ML-Lab/Bilevel-Optimization-under-Unbounded-Smoothness), whose defaults ν, β,
          the period and the steps are. There gradients of the lower loss add up over its steps, and the start is not
          refined; here each is of its own step. The refinement is after the abstract, descent in place of its
          subroutine.
    """
    check_callable(upper, what="upper", fix="Pass upper(x, params, key) -> scalar.", takes=3)
    check_callable(lower, what="lower", fix="Pass lower(x, params, key) -> scalar.", takes=3)
    check_decays(momentum=momentum)
    check_not_negative(rate=rate)
    check_positive(lower_rate=lower_rate, system_rate=system_rate)
    steps, period = check_count(steps, what="steps"), check_count(period, what="period")
    refinement = check_count(refinement, what="refinement", least=0)
    lower_steps = check_count(lower_steps, what="lower_steps")
    check_key(key)
    check_floats((start, x), what="start and x", fix="Keep what is not solved for out of them, in the losses.")
    above, below = space(start), space(x)

    def g(x: Array, params: Array, key: jax.Array) -> Array:
        return check_loss(upper(below.tree(x), above.tree(params), key), what="an upper loss")

    def h(x: Array, params: Array, key: jax.Array) -> Array:
        return check_loss(lower(below.tree(x), above.tree(params), key), what="a lower loss")

    def descended(x: Array, params: Array, key: jax.Array, count: int) -> Array:
        def step(x: Array, key: jax.Array) -> tuple[Array, None]:
            return (x - lower_rate * jax.grad(h)(x, params, key)).astype(x.dtype), None

        return jax.lax.scan(step, x, jax.random.split(key, count))[0]

    def turn(carry: tuple[Array, ...], now: tuple[Array, jax.Array]) -> tuple[tuple[Array, ...], Array]:
        params, x, z, mean = carry
        step, key = now
        descent_key, upper_key, lower_key = jax.random.split(key, 3)
        x = jax.lax.cond(step % period == 0, lambda x: descended(x, params, descent_key, lower_steps), lambda x: x, x)
        value, (pull, direct) = jax.value_and_grad(g, argnums=(0, 1))(x, params, upper_key)

        def slope(x: Array, params: Array) -> Array:
            return jax.grad(h)(x, params, lower_key)

        z = z - system_rate * (jax.jvp(lambda x: slope(x, params), (x,), (z,))[1] - pull)
        mixed = jax.grad(lambda params: slope(x, params) @ jax.lax.stop_gradient(z))(params)
        mean = momentum * mean + (1 - momentum) * (direct - mixed)
        return like((params - rate * unit_vector(mean), x, z, mean), carry), value

    first, key = jax.random.split(key)
    x_flat = descended(below.flat, above.flat, first, refinement) if refinement else below.flat
    begin: tuple[Array, ...] = (above.flat, x_flat, jnp.zeros_like(x_flat), jnp.zeros_like(above.flat))
    (params, x_flat, z, mean), values = jax.lax.scan(turn, begin, (jnp.arange(steps), jax.random.split(key, steps)))
    found, result = outcome(above.tree(params), all_finite((params, x_flat, z, values)), throw)
    evaluations = refinement + 3 * steps + -(-steps // period) * lower_steps
    return NormalisedBilevel(found, below.tree(x_flat), values, above.tree(mean), result, evaluations)
