"""Descent on a loss that is dear by way of one that is cheap: the proxy is minimised, its slope put right."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    checked_loss,
    keyed,
    tree_norm,
)
from .._settings import check_positive
from ._quasi_newton import minimised

_FIX = "Write loss(params) -> number, or loss(params, *, key) for one of a batch that is drawn with the key."


class ProxyDescent(AbstractRecord):
    """Where proxy descent has led.

    Attributes:
        params: the last parameters.
        values: the objective before each step, [steps].
        left: length of the subproblem's gradient where its minimisation ended, over that where it began, [steps]:
            0 is solved, 1 no progress.
        converged: whether all values, and the parameters, are finite.
    """

    params: PyTree
    values: Float[Array, " steps"]
    left: Float[Array, " steps"]
    converged: Bool[Array, ""]


def proxy_descent(
    objective: Callable[..., Float[Array, ""]],
    proxy: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    *,
    rate: float | Float[Array, ""],
    steps: int,
    inner_steps: int = 20,
    key: Key | None = None,
    throw: bool = True,
) -> ProxyDescent:
    r"""Minimise an objective with few of its gradients, by many of a proxy's.

    .. math::
        x_{t+1} \approx \arg\min_x\ h(x)+\langle\nabla f(x_t)-\nabla h(x_t),\,x\rangle
        +\frac1{2\eta}\lVert x-x_t\rVert^2

    with f the objective and h the proxy. What counts is how much their curvatures differ, not how large they are:
    where f - h is δ-smooth, η of about 1/δ is stable, and as many gradients of f are needed as by descent on a loss
    whose curvature is δ. With h = f it is the proximal point method, with h = 0 gradient descent.

    Args:
        objective: f, ``objective(params) -> number``, or with ``key``, of a batch of its own at each step.
        proxy: h, ``proxy(params) -> number``; the same loss on few rows, a simulation, another's data. It need not be
            convex; 1/η more than its most negative curvature makes the subproblem so.
        start: parameters, a tree of floating-point arrays.
        rate: η, above 0, in units of parameters² over the loss.
        steps: gradients of the objective.
        inner_steps: steps of L-BFGS on each subproblem, from the last point; 20 by default, ours.
        key: of the objective's batches, where it takes one.
        throw: raise where the values do not stay finite; True by default.

    Returns:
        `ProxyDescent`.

    Raises:
        ValueError: functions that are none or give no number, a rate not above 0, a count below 1, or no key for an
            objective that needs one. While it runs, by ``throw``: values that are not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> f = lambda x: 50 * x[0] ** 2 + x[1] ** 2
        >>> h = lambda x: 49 * x[0] ** 2
        >>> found = optimize.proxy_descent(f, h, jnp.ones(2), rate=0.4, steps=10)
        >>> bool(f(found.params) < 1e-5)  # descent on f is stable up to a rate of 0.02
        True

    Cost: a step: one gradient of f, one of h, and ``inner_steps`` more of h with their line searches; memory of
        L-BFGS, 20 arrays.

    References:
        - Woodworth, Mishchenko and Bach, "Two Losses Are Better Than One: Faster Optimization Using a Cheaper Proxy",
          2023, https://arxiv.org/abs/2302.03542, after the abstract. Minimising the subproblem by L-BFGS, with Optax's
          line search, is ours.
    """
    check_callable(objective, what="objective", fix=_FIX)
    check_callable(proxy, what="proxy", fix="Write proxy(params) -> number.")
    check_floats(start, what="start", fix="Pass the parameters that are trained, as floating-point arrays.")
    check_positive(rate=rate)
    check_count(steps, what="steps")
    check_count(inner_steps, what="inner_steps")
    found = _descended(objective, proxy, jax.tree.map(jnp.asarray, start), rate, steps, inner_steps, key)
    if not throw:
        return found
    values = eqx.error_if(
        found.values,
        ~found.converged,
        "expected values of the objective that stay finite, got others. Take a smaller rate.",
    )
    return eqx.tree_at(lambda one: one.values, found, values)


@eqx.filter_jit
@canonical_convolutions
def _descended(
    objective: Callable, proxy: Callable, start: PyTree, rate: Any, steps: int, inner_steps: int, key: Key | None
) -> ProxyDescent:
    h = checked_loss(proxy, fix="Write proxy(params) -> number.")
    f = checked_loss(lambda x, k: keyed(objective, x, key=k, what="the objective's batches"), fix=_FIX)

    def step(x: PyTree, k: Key | None) -> tuple[PyTree, tuple[Array, Array]]:
        value, gradient = jax.value_and_grad(f)(x, k)
        slope = jax.tree.map(jnp.subtract, gradient, jax.grad(h)(x))

        def subproblem(y: PyTree) -> Array:
            moved = jax.tree.map(jnp.subtract, y, x)
            return h(y) + optax.tree.vdot(slope, moved) + optax.tree.vdot(moved, moved) / (2 * rate)

        y = minimised(subproblem, x, inner_steps)
        # At the last point the subproblem's gradient is the objective's.
        left = tree_norm(jax.grad(subproblem)(y)) / jnp.maximum(tree_norm(gradient), jnp.finfo(value.dtype).tiny)
        return y, (value, left)

    keys = None if key is None else jax.random.split(key, steps)
    params, (values, left) = jax.lax.scan(step, start, keys, length=steps)
    finite = jnp.all(jnp.isfinite(values))
    for leaf in jax.tree.leaves(params):
        finite &= jnp.all(jnp.isfinite(leaf))
    return ProxyDescent(params, values, left, finite)
