"""Newton's step with damping in proportion to the gradient's norm, the proportion found on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import (
    check_count,
    check_like,
    described,
    divide,
    exact,
    fault,
    register_rule,
    required,
    tree_norm,
    wide_dtype,
)
from .._answers import looking, multiplying, one_value
from .._leaves import like
from .._settings import check_positive
from ._krylov import krylov

_LEAST, _MOST, _TRIES = 1e-9, 1e30, 40


class GradientNormalisedState(NamedTuple):
    """What gradient-normalised Newton remembers.

    Attributes:
        step: number of steps made.
        gamma: γ, which the next step tries first, in units of the parameters.
        tries: how many γ the last step tried.
        accepted: whether one of them would do; where none did, nothing was moved.
    """

    step: Int[Array, ""]
    gamma: Float[Array, ""]
    tries: Int[Array, ""]
    accepted: Bool[Array, ""]


register_rule(
    GradientNormalisedState, unreadable="gradient-normalised Newton: it turns the gradient by the whole curvature"
)


def gradient_normalised_newton(
    *, gamma: float = 1.0, dimensions: int = 100, metric: PyTree = None
) -> optax.GradientTransformationExtraArgs:
    r"""Newton's method with damping in proportion to the gradient's norm, for exact and approximate curvatures.

    .. math::
        \theta^+ = \theta-(H+\lambda B)^{-1}g,\qquad \lambda = \frac{\lVert g\rVert_*}{\gamma},\qquad
        \lVert g\rVert_*^2 = g^{\top}B^{-1}g

    γ, the radius within which the curvature tells how the gradient changes, is found by trial: it is halved until the
    step lowers the loss by :math:`\lVert g^+\rVert_*^2/8\lambda` at least, and doubled for the next step. So steps are
    short where the model is poor and become Newton's near a minimum, with nothing to tune.

    H is what ``product_fn`` multiplies with: the loss's Hessian by default, and by ``extra`` of the loop any other,
    such as `nablax.calculus.gauss_newton_product` or `nablax.calculus.fisher_product`. Where :math:`H+\lambda B` is
    not positive definite, γ is halved too.

    Args:
        gamma: γ tried first, in units of the parameters (measured by B); 1, the authors', by default.
        dimensions: of the Krylov space of the gradient in which the step is taken, 100 by default; where there are no
            more parameters than that the step is exact.
        metric: B, positive numbers, a tree shaped like the parameters; 1 by default. Parameters that are large where
            others are small want a small one.

    Returns:
        The optimiser; its state is a `GradientNormalisedState`. It needs ``params``, ``value``, ``grad_fn`` and
        ``product_fn``, all of one batch; it takes no learning rate, and goes last in a chain, with nothing before it
        that changes the gradient.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing, or the metric is not shaped like the
            parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> optimizer = optimize.gradient_normalised_newton()
        >>> step = follow.train_step(lambda w, batch: jnp.sum(jnp.sqrt(1 + batch * (w - 2) ** 2)), optimizer)
        >>> w = jnp.full(2, 50.0)  # from where Newton's step goes off to -1e5
        >>> state = optimizer.init(w)
        >>> for _ in range(20):
        ...     w, state, _ = jax.jit(step)(w, state, jnp.array([1.0, 4.0]))
        >>> [round(float(x), 3) for x in w]
        [2.0, 2.0]

    Cost: ``dimensions`` products (no more than parameters), and a value and gradient a try: two in a step on average,
        40 at most. The memory of ``dimensions`` gradients.

    References:
        - Semenov, Jaggi and Doikov, "Gradient-Normalized Smoothness for Optimization with Approximate Hessians", 2025,
          https://arxiv.org/abs/2506.13710 (their code, epfml/grad-norm-smooth: the step, its test, factors and first
          γ). There the whole matrix is factorised at each try; one decomposition in a Krylov space for all tries, B as
          a diagonal, and standing still after 40 tries in vain, where that code moves all the same, are ours.
    """
    check_positive(gamma=gamma)
    dimensions = check_count(dimensions, what="dimensions")
    _check_metric(metric)

    def init(params: PyTree) -> GradientNormalisedState:
        _roots(metric, params)
        return GradientNormalisedState(
            jnp.zeros((), jnp.int32),
            jnp.asarray(gamma, wide_dtype(params)),
            jnp.zeros((), jnp.int32),
            jnp.array(True),
        )

    @exact
    def update(
        updates: PyTree,
        state: GradientNormalisedState,
        params: PyTree = None,
        *,
        value: Array | None = None,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, GradientNormalisedState]:
        name = "gradient_normalised_newton"
        params = required(params, "params", by=name)
        value = one_value(required(value, "value", by=name), by=name)
        look = looking(required(grad_fn, "grad_fn", by=name), updates)
        product = multiplying(required(product_fn, "product_fn", by=name))
        roots = _roots(metric, updates)

        def over_roots(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf, root: (leaf / root).astype(leaf.dtype), tree, roots)

        gradient = over_roots(updates)
        length = tree_norm(gradient)
        spectrum = krylov(lambda v: over_roots(product(over_roots(v))), gradient, dimensions)

        def move(radius: Array) -> tuple[PyTree, Array]:
            curved = spectrum.eigenvalues + length / radius
            step = spectrum.tree(divide(-spectrum.coordinates, curved))
            return like(over_roots(step), updates), jnp.all((curved > 0) | (length == 0))

        def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            tries, radius, _ = carry
            step, positive = move(radius)
            after, slope = look(jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, step))
            rest = tree_norm(over_roots(slope))
            # The decrease times 8 λ against the square of the new gradient's norm, both over the old one's.
            good = positive & (8 * (value - one_value(after, by=name)) >= radius * rest * divide(rest, length))
            return tries + 1, jnp.where(good, radius, radius / 2), good

        start = jnp.zeros((), jnp.int32), state.gamma, jnp.array(False)
        tries, radius, accepted = jax.lax.while_loop(lambda c: (c[0] < _TRIES) & ~c[2], attempt, start)
        step, _ = move(radius)
        step = jax.tree.map(lambda u: jnp.where(accepted, u, jnp.zeros_like(u)), step)
        grown = jnp.clip(jnp.where(length > 0, 2 * radius, radius), _LEAST, _MOST)
        # After tries in vain the radius is the one of before: another batch may have a use for it.
        following = jnp.where(accepted, grown, state.gamma)
        return step, GradientNormalisedState(optax.safe_increment(state.step), following, tries, accepted)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_metric(metric: PyTree) -> None:
    """Refuse a metric that is not of positive numbers; what is traced is taken as it is."""
    for leaf in jax.tree.leaves(metric):
        if isinstance(leaf, jax.core.Tracer):
            continue
        numbers = np.asarray(leaf)
        if numbers.dtype.kind not in "iuf" and not jnp.issubdtype(numbers.dtype, jnp.floating):
            raise fault(expected="a metric of positive numbers", got=described(metric), fix="B measures lengths.")
        if not np.all((numbers > 0) & np.isfinite(numbers)):
            raise fault(expected="a metric of positive numbers", got="others among them", fix="B measures lengths.")


def _roots(metric: PyTree, tree: PyTree) -> PyTree:
    """Square roots of the metric, of 1 where there is none."""
    if metric is None:
        return jax.tree.map(lambda leaf: jnp.ones((), wide_dtype(leaf)), tree)
    check_like(metric, tree, what="a metric that", fix="Pass a tree of numbers like the parameters.")
    return jax.tree.map(jnp.sqrt, metric)
