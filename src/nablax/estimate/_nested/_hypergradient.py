"""Gradients of an upper level's loss in what a lower level was fitted with, from a fit that is at hand."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from ..._core import (
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_loss,
    check_rate,
    exact,
    fault,
    space,
    split,
    tree_norm,
)
from ._bound import Smoothness, error_bound
from ._iterative import Iterative

Method = Literal["conjugate gradients", "neumann", "unrolled"]
METHODS = ("conjugate gradients", "neumann", "unrolled")


def hypergradient(
    upper: Callable[..., Array],
    lower: Callable[..., Array],
    *,
    method: Method = "conjugate gradients",
    tolerance: float = 1e-4,
    steps: int = 10,
    rate: float | None = None,
    smoothness: Smoothness | None = None,
) -> Callable[..., tuple[Any, PyTree]]:
    r"""Differentiate an upper level's loss in hyperparameters through the lower level's minimum.

    At :math:`x^\star(\theta)=\arg\min_x h(x,\theta)` the loss :math:`g(x^\star(\theta),\theta)` has the gradient

    .. math:: \partial_\theta g - B^{\top} q, \qquad A q = \nabla_x g,\quad A=\nabla^2_{xx}h,\quad
        B=\nabla_x\partial_\theta h

    Three methods find q, or do without it:

    - "conjugate gradients": until :math:`\lVert Aq-\nabla_xg\rVert\le` ``tolerance`` :math:`\lVert\nabla_xg\rVert`.
    - "neumann": :math:`q=\alpha\sum_{j<K}(I-\alpha A)^j\,\nabla_xg`, on each eigenvalue a of A short by the share
      :math:`(1-\alpha a)^K`. One step is the identity in place of :math:`A^{-1}`.
    - "unrolled": backwards through K more steps of gradient descent from x. At :math:`x^\star` it is the series of K
      terms; away from it, the derivative of those steps.

    Unlike `nablax.estimate.implicit` it takes no solver: x may be a network's weights between two steps of training.

    Args:
        upper: g, ``upper(x, params, *args) -> scalar``, such as a validation loss.
        lower: h, ``lower(x, params, *args) -> scalar``, such as a training loss with decay; strongly convex in x for
            conjugate gradients.
        method: one of the three.
        tolerance: of conjugate gradients, relative to :math:`\nabla_xg`, 1e-4 by default.
        steps: K of the other two, 10 by default.
        rate: α of the other two, below 2 over the largest eigenvalue of A, for which there is
            `nablax.calculus.top_eigenvalues`.
        smoothness: constants of both levels, for an error bound.

    Returns:
        ``(params, x, *args) -> (value, grads)``: the upper loss at x (where unrolled, at the state after the steps),
        and its gradient in the inexact leaves of ``params``. With ``smoothness`` it is ``((value, error), grads)``
        with a `HypergradientError`.

    Raises:
        ValueError: an argument makes no sense, or a loss is no real scalar.
        RuntimeError: conjugate gradients do not reach their tolerance, or the series leaves more of the right-hand side
            than there was: its rate is too large; raised when it is run.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> lower = lambda x, decay: (x - 3.0) ** 2 / 2 + decay * x ** 2 / 2  # at its minimum x = 3 / (1 + decay)
        >>> upper = lambda x, decay: x ** 2
        >>> value, slope = estimate.hypergradient(upper, lower)(jnp.array(0.5), jnp.array(2.0))
        >>> round(float(slope), 4)  # -2 x · x / 1.5
        -5.3333

    Cost:
        A gradient of both levels, a mixed product, and a Hessian product an iteration or a term. Unrolled: K gradients
        of the lower level and their reverse, in the memory of K states and one step.

    References:
        - Lorraine, Vicol and Duvenaud, "Optimizing Millions of Hyperparameters by Implicit Differentiation", 2019,
          https://arxiv.org/abs/1911.02590 (the series, and that it is unrolling at the minimum; 20 terms there)
        - Pedregosa, "Hyperparameter optimization with approximate gradient", 2016, https://arxiv.org/abs/1602.02355
          (conjugate gradients to a tolerance; the default is ours)
    """
    check_callable(upper, what="upper", fix="Pass upper(x, params, *args) -> scalar.")
    check_callable(lower, what="lower", fix="Pass lower(x, params, *args) -> scalar.")
    if method not in METHODS:
        raise fault(expected=f"a method among {', '.join(METHODS)}", got=repr(method), fix="Choose one of them.")
    if method == "conjugate gradients":
        check_rate(tolerance, what="tolerance")
    else:
        check_count(steps, what="steps")
        if rate is None:
            raise fault(
                expected=f"a rate for the method {method}",
                got="none",
                fix="Pass one below 2 over the largest eigenvalue of the lower level's Hessian.",
            )
    if smoothness is not None and method == "unrolled":
        raise fault(
            expected="a method that solves a linear system, to bound its error",
            got="unrolled",
            fix='Choose "neumann", which is the same at the minimum, or leave out smoothness.',
        )

    @exact
    def value_and_grad(params: PyTree, x: PyTree, *args: Any) -> tuple[Any, PyTree]:
        trained, held = split(params)
        unknown, fixed = split(x)
        check_floats(unknown, what="x", fix="Pass the lower level's solution, an array or a tree of floats.")
        space(trained)  # refuses hyperparameters of integers, and complex ones

        def above(x: PyTree, params: PyTree) -> Array:
            return check_loss(upper(eqx.combine(x, fixed), eqx.combine(params, held), *args), what="an upper loss")

        def below(x: PyTree, params: PyTree) -> Array:
            return check_loss(lower(eqx.combine(x, fixed), eqx.combine(params, held), *args), what="a lower loss")

        descent = jax.grad(below)
        if method == "unrolled":
            through = jax.value_and_grad(lambda p: above(_descended(descent, unknown, p, steps, rate), p))
            return canonical_convolutions(through)(trained)
        value, (pull, direct) = jax.value_and_grad(above, argnums=(0, 1))(unknown, trained)
        slope, pushed = jax.linearize(lambda x: descent(x, trained), unknown)

        def product(x: PyTree) -> PyTree:
            # In the loops of the solver or of the series.
            return canonical_convolutions(pushed)(x)

        q = _series(product, pull, steps, rate) if method == "neumann" else _solved(product, pull, tolerance)
        mixed = jax.vjp(lambda params: descent(unknown, params), trained)[1]
        grads = jax.tree.map(jnp.subtract, direct, mixed(q)[0])
        if smoothness is None:
            return value, grads
        rest = tree_norm(jax.tree.map(jnp.subtract, pull, product(q)))
        return (value, error_bound(smoothness, mixed, unknown, trained, q, tree_norm(slope), rest)), grads

    return value_and_grad


def _descended(descent: Callable[[PyTree, PyTree], PyTree], x: PyTree, params: PyTree, steps: int, rate: Any) -> PyTree:
    """The state after some steps of gradient descent; where they start is held."""

    def step(x: PyTree, _: None) -> tuple[PyTree, None]:
        return jax.tree.map(lambda x, g: x - jnp.asarray(rate, x.dtype) * g, x, descent(x, params)), None

    return jax.lax.scan(step, jax.lax.stop_gradient(x), length=steps)[0]


def _solved(product: Callable[[PyTree], PyTree], pull: PyTree, tolerance: float) -> PyTree:
    shape = jax.eval_shape(lambda: pull)
    operator = lx.FunctionLinearOperator(product, shape, lx.positive_semidefinite_tag)
    return lx.linear_solve(operator, pull, Iterative(tolerance, symmetric=True)).value


def _series(product: Callable[[PyTree], PyTree], pull: PyTree, steps: int, rate: Any) -> PyTree:
    """The truncated series of the inverse, refused where it grows."""

    def term(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        total, term = carry
        total = jax.tree.map(jnp.add, total, term)
        term = jax.tree.map(lambda t, h: t - jnp.asarray(rate, t.dtype) * h, term, product(term))
        return (total, term), None

    start = jax.tree.map(jnp.zeros_like, pull), pull
    # The term after the last is what the series leaves of the right-hand side.
    (total, rest), _ = jax.lax.scan(term, start, length=steps)
    grown = ~(tree_norm(rest) <= tree_norm(pull))
    total = eqx.error_if(total, grown, "the Neumann series grows: its rate is above 2 over the largest eigenvalue")
    return jax.tree.map(lambda t: jnp.asarray(rate, t.dtype) * t, total)


__all__ = ["hypergradient"]
