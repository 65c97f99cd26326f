"""Shampoo: the gradient divided by roots of its Gram matrices, one for each axis."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_count, exact, register_rule, wide_dtype
from .._leaves import over_leaves
from .._settings import check_positive, with_rate
from ._kronecker import Factors, along_all, averaged, per_axis


class ShampooState(NamedTuple):
    """What Shampoo remembers.

    Attributes:
        step: number of steps made.
        grams: of each leaf a tuple, for each axis the sum of Gram matrices with ε on the diagonal, None for axes that
            are too long. A leaf without any matrix has the sum of squares of its elements, plus ε, in the only place.
        roots: their inverse roots, as of the last refresh.
    """

    step: Int[Array, ""]
    grams: PyTree
    roots: PyTree


register_rule(
    ShampooState, unreadable="Shampoo: it turns the gradient by whole matrices, and has no rates one an element"
)


def scale_by_shampoo(
    *, eps: float = 1e-4, every: int = 1, max_size: int = 8192
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by Shampoo, without a learning rate.

    .. math::
        L_t = L_{t-1} + G_tG_t^{\top}, \qquad R_t = R_{t-1} + G_t^{\top}G_t, \qquad
        U_t = L_t^{-1/4}\,G_t\,R_t^{-1/4}, \qquad L_0 = R_0 = \epsilon I

    and for a tensor with k such axes the exponent −1/(2k) for each. Sums are never forgotten, as with Adagrad, which
    this is for scalars and for leaves all of whose axes are too long. Of one gradient, with ε small, U is its polar
    factor.

    Args:
        eps: ε, in units of the squared gradient, 1e-4 by default.
        every: steps from one set of roots to the next, 1 by default. The first step always has its own.
        max_size: axes longer than this have no matrix, 8192 by default.

    Returns:
        The rule; its state is a `ShampooState`.

    Raises:
        ValueError: ε not above 0, or counts below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_shampoo(eps=1e-9)
        >>> gradient = jnp.array([[2.0, 1.0], [1.0, 2.0]])  # eigenvalues 3 and 1
        >>> update, _ = rule.update(gradient, rule.init(gradient))
        >>> bool(jnp.allclose(update, jnp.eye(2), atol=1e-4))  # all singular values are 1
        True

    Cost: for a matrix of m by n, 2m² + 2n² numbers of memory; two products with roots and two with Gram matrices a
        step, and two eigendecompositions at a refresh.

    References:
        - Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018,
          https://arxiv.org/abs/1802.09568 (the text, after memory of its algorithms 1 and 2). The floor under
          eigenvalues, at rounding of the largest, and Adagrad for what has no matrix are ours; grafted lengths, blocks
          and momentum, as later codes have them, are not part.
    """
    check_positive(eps=eps)
    every, max_size = check_count(every, what="every"), check_count(max_size, what="max_size")

    def init(params: PyTree) -> ShampooState:
        def start(leaf: Array) -> Factors:
            dtype, has = wide_dtype(leaf), [0 < side <= max_size for side in leaf.shape]
            if not any(has):
                return (jnp.full(leaf.shape, eps, dtype),)
            return per_axis(leaf.shape, has, lambda side: (eps * jnp.eye(side, dtype=dtype)).astype(dtype))

        grams = jax.tree.map(start, params)
        return ShampooState(jnp.zeros((), jnp.int32), grams, jax.tree.map(jnp.zeros_like, grams))

    def update(
        updates: PyTree, state: ShampooState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ShampooState]:
        def accumulate(g: Array, grams: Any) -> tuple[Factors]:
            wide = g.astype(wide_dtype(g))
            if not _has_matrix(g, grams):
                return ((grams[0] + wide**2,),)
            return (averaged(grams, wide, 1, 1),)

        (grams,) = over_leaves(accumulate, 1, updates, state.grams)

        def refresh(roots: PyTree) -> PyTree:
            def one(g: Array, held: Any) -> tuple[Factors]:
                if not _has_matrix(g, held):
                    return ((jax.lax.rsqrt(held[0]),),)
                axes = sum(gram is not None for gram in held)
                return (tuple(None if gram is None else _inverse_root(gram, 2 * axes, eps) for gram in held),)

            return over_leaves(one, 1, updates, grams)[0]

        roots = jax.lax.cond(state.step % every == 0, refresh, lambda roots: roots, state.roots)

        def apply(g: Array, factors: Any) -> tuple[Array]:
            wide = g.astype(wide_dtype(g))
            return ((along_all(wide, factors) if _has_matrix(g, factors) else wide * factors[0]).astype(g.dtype),)

        (steps,) = over_leaves(apply, 1, updates, roots)
        return steps, ShampooState(optax.safe_increment(state.step), grams, roots)

    return optax.GradientTransformationExtraArgs(init, update)


def shampoo(
    learning_rate: optax.ScalarOrSchedule,
    *,
    eps: float = 1e-4,
    every: int = 1,
    max_size: int = 8192,
    weight_decay: float = 0.0,
    mask: PyTree = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Shampoo: the gradient divided by roots of its Gram matrices, one for each axis.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(U_t + \lambda\theta_t)

    with U of `scale_by_shampoo`. Momentum, where it is wanted, is a link of a chain:
    ``optax.chain(optimize.scale_by_shampoo(), optax.trace(0.9), optax.scale_by_learning_rate(0.1))``.

    Args:
        learning_rate: η, a number or a schedule, in units of the parameters.
        eps: ε, in units of the squared gradient, 1e-4 by default.
        every: steps from one set of roots to the next, 1 by default.
        max_size: axes longer than this have no matrix, 8192 by default.
        weight_decay: λ, decoupled; 0 by default.
        mask: which parameters decay, as in ``optax.adamw``; all by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_shampoo`, or a negative decay of weights.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.shampoo(0.5, eps=1e-9), jnp.diag(jnp.array([1.0, 3.0]))
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)
        >>> [round(float(value), 3) for value in jnp.diag(update)]
        [-0.5, -0.5]

    Cost: as `scale_by_shampoo`.

    References:
        - Gupta et al., https://arxiv.org/abs/1802.09568.
    """
    rule = scale_by_shampoo(eps=eps, every=every, max_size=max_size)
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)


def _has_matrix(leaf: Array, factors: Factors) -> bool:
    return not (len(factors) == 1 and factors[0] is not None and factors[0].shape == leaf.shape)


@exact
def _inverse_root(gram: Float[Array, "side side"], order: int, eps: Any) -> Float[Array, "side side"]:
    """The matrix to the power −1/order; eigenvalues below what rounding of the largest leaves are lifted to that."""
    values, vectors = jnp.linalg.eigh(gram)
    floor = jnp.maximum(eps, values[-1] * gram.shape[0] * jnp.finfo(gram.dtype).eps)
    powers = jnp.maximum(values, floor) ** (-1 / order)
    return (vectors * powers[None, :]) @ vectors.T
