"""Saddle-free Newton: the Hessian's absolute value in a Krylov space, so that saddles push away."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import canonical_convolutions, check_count, divide, exact, fault, register_rule, required, wide_dtype
from .._answers import multiplying, one_value
from .._leaves import like
from .._settings import check_not_negative, with_rate
from ._krylov import krylov


class SaddleFreeState(NamedTuple):
    """What saddle-free Newton remembers.

    Attributes:
        step: number of steps made.
        damping: λ of the last step, in units of the curvature.
        lowest: the least curvature seen in the last step's space; below zero at a saddle.
    """

    step: Int[Array, ""]
    damping: Float[Array, ""]
    lowest: Float[Array, ""]


register_rule(SaddleFreeState, unreadable="saddle-free Newton: it turns the gradient by the whole Hessian")


def scale_by_saddle_free_newton(
    *, dimensions: int = 20, damping: float | Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient over the Hessian's absolute value, without a learning rate.

    .. math::
        V\big(|T|+\lambda I\big)^{-1}V^{\top}g,\qquad T = V^{\top}HV,\qquad
        |T| = \sum_i|\tau_i|\,u_iu_i^{\top}

    V is an orthonormal basis of the gradient's Krylov space and τ, u eigenvalues and vectors of T. Newton's step goes
    to where the gradient vanishes, and so to saddles; with absolute values it goes down along negative curvatures too,
    by as much as it would go up.

    Args:
        dimensions: of the Krylov space, 20 by default; where there are no more parameters than that all of it is exact.
        damping: λ in units of the curvature; of several the one whose whole step has the lowest loss on the batch, from
            1e-3 to 10 by default.

    Returns:
        The rule; its state is a `SaddleFreeState`. It needs ``product_fn``, and for several λ ``params`` and
        ``value_fn``.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> curvature = jnp.array([4.0, -0.5])
        >>> rule = optimize.scale_by_saddle_free_newton(damping=0.0)
        >>> w = jnp.array([1.0, 1.0])
        >>> scaled, state = rule.update(curvature * w, rule.init(w), product_fn=lambda v: curvature * v)
        >>> [round(float(x), 3) for x in w - scaled], round(float(state.lowest), 3)
        ([0.0, 2.0], -0.5)

    Cost: ``dimensions`` Hessian products, and for several λ a forward pass each; the memory of ``dimensions``
        gradients.

    References:
        - Pascanu, Dauphin, Ganguli and Bengio, "On the saddle point problem for non-convex optimization", 2014,
          https://arxiv.org/abs/1405.4604, and Dauphin et al., 2014, https://arxiv.org/abs/1406.2572.
        - code of others, which lists where it leaves the text, https://github.com/dave-fernandes/SaddleFreeOptimizer
          (the same: Lanczos from the gradient, 20 dimensions, the absolute value there plus λ. It makes no basis
          orthogonal again, may make further steps in a space, and follows one λ from 0.01 by how well the loss was
          foretold, where the text tries several and takes the one of the lowest loss, as here). The grid of λ is ours.
    """
    dimensions = check_count(dimensions, what="dimensions")
    several = isinstance(damping, Sequence)
    grid = tuple(damping) if isinstance(damping, Sequence) else (damping,)
    if not grid:
        raise fault(expected="a damping, or several", got="none", fix="Leave damping out for its default.")
    for one in grid:
        check_not_negative(damping=one)

    def init(params: PyTree) -> SaddleFreeState:
        zero = jnp.zeros((), wide_dtype(params))
        return SaddleFreeState(jnp.zeros((), jnp.int32), zero, jnp.zeros_like(zero))

    @exact
    def update(
        updates: PyTree,
        state: SaddleFreeState,
        params: PyTree = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, SaddleFreeState]:
        name = "saddle_free_newton"
        spectrum = krylov(multiplying(required(product_fn, "product_fn", by=name)), updates, dimensions)

        def scaled(damping: Array) -> PyTree:
            size = jnp.abs(spectrum.eigenvalues) + damping
            return spectrum.tree(divide(spectrum.coordinates, size))

        candidates = jnp.stack([jnp.asarray(one, spectrum.eigenvalues.dtype) for one in grid])
        chosen = candidates[0]
        if several:
            here = required(params, "params", by=name)
            value = required(value_fn, "value_fn", by=name)

            @canonical_convolutions
            def after(damping: Array) -> Array:
                there = jax.tree.map(lambda p, u: (p - u).astype(p.dtype), here, scaled(damping))
                return one_value(value(there), by=name)

            values = jax.lax.map(after, candidates)
            # A loss that is no number is no low one; where none is a number the most damped is taken.
            order = jnp.where(jnp.isfinite(values), values, jnp.inf)
            chosen = jnp.where(jnp.any(jnp.isfinite(values)), candidates[jnp.argmin(order)], jnp.max(candidates))
        following = SaddleFreeState(optax.safe_increment(state.step), chosen, spectrum.eigenvalues[0])
        return like(scaled(chosen), updates), like(following, state)

    return optax.GradientTransformationExtraArgs(init, update)


def saddle_free_newton(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    dimensions: int = 20,
    damping: float | Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> optax.GradientTransformationExtraArgs:
    r"""Saddle-free Newton: steps of `scale_by_saddle_free_newton` at a rate.

    .. math::
        \theta^+ = \theta-\eta\,V\big(|V^{\top}HV|+\lambda I\big)^{-1}V^{\top}g

    Args:
        learning_rate: η, no unit, a number or a schedule; 1, the whole step, by default.
        dimensions: of the Krylov space V, 20 by default.
        damping: λ in units of the curvature; of several the one whose whole step has the lowest loss on the batch.

    Returns:
        The optimiser. It needs ``product_fn``, and for several λ ``params`` and ``value_fn``.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> optimizer = optimize.saddle_free_newton()
        >>> step = jax.jit(follow.train_step(lambda w, batch: (w[0] * w[1] - batch) ** 2, optimizer))
        >>> w = jnp.array([1e-3, 2e-3])  # beside the saddle at 0
        >>> state = optimizer.init(w)
        >>> for _ in range(20):
        ...     w, state, _ = step(w, state, jnp.array(1.0))
        >>> round(float(w[0] * w[1]), 3)
        1.0

    Cost: that of `scale_by_saddle_free_newton`.

    References:
        - Pascanu, Dauphin, Ganguli and Bengio, "On the saddle point problem for non-convex optimization", 2014,
          https://arxiv.org/abs/1405.4604
    """
    return with_rate(scale_by_saddle_free_newton(dimensions=dimensions, damping=damping), learning_rate)
