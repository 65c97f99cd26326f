"""The natural gradient, by any of Lineax's solvers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_instance, divide, exact, norm, register_rule, required, space, tree_norm, wide_dtype
from .._answers import multiplying
from .._leaves import like
from .._settings import check_positive, with_rate


class NaturalGradientState(NamedTuple):
    """What the natural gradient remembers.

    Attributes:
        step: number of steps made.
        residual: length of what the last solve left of its equation, as a share of the gradient's; 1 is no solve.
    """

    step: Int[Array, ""]
    residual: Float[Array, ""]


register_rule(NaturalGradientState, unreadable="natural gradient: it turns the gradient by a whole curvature matrix")


def scale_by_natural_gradient(
    *, damping: float = 1e-3, solver: lx.AbstractLinearSolver | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient in the metric of a positive semidefinite curvature, without a learning rate.

    .. math:: (F+\lambda I)^{-1}g

    F is what ``product_fn`` multiplies with. The loop's own is the loss's Hessian, which is for convex losses; for
    models pass by ``extra`` the Gauss-Newton matrix (`nablax.calculus.gauss_newton_product`), which is the Fisher
    matrix of a model that is trained by cross-entropy or squared error, or the empirical one
    (`nablax.calculus.fisher_product`).

    Args:
        damping: λ, in units of the curvature; 1e-3 by default, ours.
        solver: of Lineax, for symmetric positive definite systems. By default conjugate gradients to a residual of 1 %
            of the gradient, in 100 iterations at most. The right-hand side is of length 1, so that ``atol`` is a share
            of the gradient; leave ``rtol`` 0, for Lineax takes it entry by entry.

    Returns:
        The rule; its state is a `NaturalGradientState`, whose ``residual`` says how well the solve went. It needs
        ``product_fn``.

    Raises:
        ValueError: settings out of range, or no solver of Lineax; at an update, an argument is missing, or
            a product is not shaped like its vector.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_natural_gradient()
        >>> curvature, w = jnp.array([1.0, 4.0]), jnp.ones(2)
        >>> direction, state = rule.update(curvature * w, rule.init(w), product_fn=lambda v: curvature * v)
        >>> [round(float(x), 2) for x in direction], float(state.residual) < 0.01
        ([1.0, 1.0], True)

    Cost: a product an iteration and one more.

    References:
        - Amari, "Natural Gradient Works Efficiently in Learning", 1998, https://doi.org/10.1162/089976698300017746
        - Martens, "Deep learning via Hessian-free optimization", 2010 (conjugate gradients that are cut off; its rule
          of stopping and its adapting of λ are not here)
    """
    check_positive(damping=damping)
    solver = lx.CG(rtol=0.0, atol=1e-2, norm=tree_norm, max_steps=100) if solver is None else solver
    check_instance(solver, lx.AbstractLinearSolver, what="solver", fix="Pass lineax.CG(rtol=0.0, atol=1e-3), for one.")

    def init(params: PyTree) -> NaturalGradientState:
        return NaturalGradientState(jnp.zeros((), jnp.int32), jnp.zeros((), wide_dtype(params)))

    @exact
    def update(
        updates: PyTree,
        state: NaturalGradientState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, NaturalGradientState]:
        product = multiplying(required(product_fn, "product_fn", by="natural_gradient"))
        vectors = space(updates)
        length = norm(vectors.flat)
        unit = divide(vectors.flat, length)

        def damped(v: Float[Array, " dim"]) -> Float[Array, " dim"]:
            return space(product(vectors.tree(v))).flat + damping * v

        operator = lx.FunctionLinearOperator(damped, jax.eval_shape(lambda: unit), lx.positive_semidefinite_tag)
        found = lx.linear_solve(operator, unit, solver, throw=False).value
        residual = like(norm(damped(found) - unit), state.residual)
        direction = like(vectors.tree(length * found), updates)
        return direction, NaturalGradientState(optax.safe_increment(state.step), residual)

    return optax.GradientTransformationExtraArgs(init, update)


def natural_gradient(
    learning_rate: optax.ScalarOrSchedule, *, damping: float = 1e-3, solver: lx.AbstractLinearSolver | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Natural gradient descent: steps of `scale_by_natural_gradient` at a rate.

    .. math:: \theta^+ = \theta-\eta\,(F+\lambda I)^{-1}g

    Args:
        learning_rate: η, no unit, a number or a schedule; 1 is the whole step.
        damping: λ, in units of the curvature; 1e-3 by default.
        solver: of Lineax; by default conjugate gradients to 1 % of the gradient, in 100 iterations at most.

    Returns:
        The optimiser. It needs ``product_fn``.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> optimizer = optimize.natural_gradient(1.0)
        >>> step = jax.jit(follow.train_step(lambda w, scale: jnp.mean(jnp.cosh(scale * w)), optimizer))
        >>> w, scale = jnp.ones(2), jnp.array([0.3, 1.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(4):
        ...     w, state, _ = step(w, state, scale)
        >>> [abs(round(float(x), 2)) for x in w]
        [0.0, 0.0]

    Cost: that of `scale_by_natural_gradient`.

    References:
        - Amari, "Natural Gradient Works Efficiently in Learning", 1998, https://doi.org/10.1162/089976698300017746
    """
    return with_rate(scale_by_natural_gradient(damping=damping, solver=solver), learning_rate)
