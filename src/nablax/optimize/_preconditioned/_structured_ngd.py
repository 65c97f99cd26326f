"""Structured natural gradient descent: factors of the inverse Fisher matrix, followed without any inverse or root."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, PyTree

from ..._core import check_count, check_like, check_rows, exact, fault, norm, register_rule, required, wide_dtype
from .._leaves import over_leaves
from .._settings import check_decays, check_not_negative, check_share, is_zero, with_rate
from ._kron_fit import Factor, metric_times, squeezed
from ._kronecker import along, gram

Structure = Literal["dense", "triangular", "diagonal"]
_STRUCTURES = ("dense", "triangular", "diagonal")
Factors = tuple[Factor, ...]


class StructuredNgdState(NamedTuple):
    """What structured natural gradient descent remembers.

    Attributes:
        step: number of steps made.
        factors: of each leaf a tuple of one K for each axis longer than 1, a matrix or a diagonal.
        moments: the momentum of each, shaped alike.
    """

    step: Int[Array, ""]
    factors: PyTree
    moments: PyTree


register_rule(
    StructuredNgdState, unreadable="structured NGD: it turns the gradient by whole matrices, and has no rates one each"
)


def scale_by_structured_ngd(
    structure: Structure = "dense",
    *,
    rows: int | None = 1,
    damping: float = 1e-3,
    fit_rate: float = 0.01,
    fit_momentum: float = 0.5,
    every: int = 1,
    max_size: int = 8192,
    factor_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the gradient by Kronecker factors of the inverse Fisher matrix, without a learning rate.

    .. math::
        U = CC^{\top}\,G\,KK^{\top}, \qquad CC^{\top}\otimes KK^{\top} \to (F+\lambda I)^{-1}

    of a matrix G of d by p. The factors are followed in coordinates in which their metric is the identity, so that
    natural descent is plain there, and each is the last one times a matrix near I:

    .. math::
        W_K = \Pi\,\tfrac12\Bigl(\lambda\tfrac{\operatorname{tr}C^{\top}C}{d}K^{\top}K
        +\tfrac1d\,E\bigl[K^{\top}G^{\top}CC^{\top}GK\bigr]-I\Bigr),\qquad
        M_K \leftarrow \alpha M_K+W_K,\qquad
        K \leftarrow K-\tfrac{\beta}{\max(1,\lVert M_K\rVert)}\,KM_K

    and likewise C, of the same old factors; a tensor has a factor for each axis, and a vector :math:`KK^{\top}`. There
    is no inverse, root or decomposition, and below β = 1 K stays invertible whatever comes: a fit is of I less a matrix
    of norm β or less. For gradients that are outer products of independent inputs and errors, of covariances U and V,
    it stands still, with λ = 0, where :math:`KK^{\top}\otimes CC^{\top}=U^{-1}\otimes V^{-1}`.

    Π keeps the structure: all of it, the diagonal, or the lower triangle with what is off the diagonal doubled.
    A triangular K has a positive diagonal and reaches every inverse too, by fewer numbers; a diagonal one does not.

    What the expectation is of, the gradients say by themselves: no layer is looked into. By default it is of the
    batch's gradient alone, times ``rows``, the number of rows whose mean that is: what rows share counts too. With
    ``rows=None`` it is over the rows' own gradients, the empirical Fisher matrix, which has to come as ``gradients``.

    Args:
        structure: of factors: ``"dense"`` by default, ``"triangular"`` or ``"diagonal"``.
        rows: how many the gradient is the mean of, 1 by default; None for a stack of gradients, one a row.
        damping: λ, in units of the squared gradient of a row, 1e-3 by default. With 0, factors grow without end where
            gradients vanish.
        fit_rate: β, 0.01 by default, no unit; at most 1, at which a factor may become singular.
        fit_momentum: α, 0.5 by default.
        every: steps from one fit to the next, 1 by default. A fit comes before its step.
        max_size: axes longer than this have a diagonal, 8192 by default (ours).
        factor_dtype: of factors, moments and all arithmetic with them, such as ``jnp.bfloat16``; the parameters' by
            default, single precision at least.

    Returns:
        The rule; its state is a `StructuredNgdState`.

    Raises:
        ValueError: an unknown structure, or settings out of range; at an update with ``rows=None``, ``gradients`` are
            missing or no stack of gradients.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_structured_ngd(damping=1.0, fit_rate=0.3)
        >>> gradient = jnp.array([3.0, 0.0])
        >>> def step(state, _):
        ...     update, state = rule.update(gradient, state)
        ...     return state, update
        >>> _, updates = jax.lax.scan(step, rule.init(gradient), length=200)
        >>> [round(float(u), 3) for u in updates[-1]]  # g / (λ + g²)
        [0.3, 0.0]

    Cost: for a matrix of m by n, 2m² + 2n² numbers of memory (triangles are kept as squares); eight products with
        matrices of its sides at a fit, with each row's gradient where they come, and four a step. Diagonals: 2m + 2n
        numbers, and sums.

    References:
        - Lin et al., "Simplifying Momentum-based Positive-definite Submanifold Optimization with Applications to Deep
          Learning", 2023, https://arxiv.org/abs/2302.09738, and the authors' code
          (https://github.com/yorkerlin/StructuredNGD-DL) for update, λ and α. There layers give inputs and errors, E is
          the product of the two's covariances, β is 1e-2 after a warm-up and unclipped, and a fit comes every 10 steps.
        - Lin et al., "Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order Perspective", 2024,
          https://arxiv.org/abs/2402.03496, and https://github.com/f-dangel/sirfshampoo for E by the batch's gradient,
          any number of axes, the clip and a fit at each step; there the momentum is an average, so that M is half of
          this one.
        - Structures as in https://github.com/f-dangel/singd; its blocks, hierarchies and Toeplitz matrices are left
          out. E by the rows' own gradients is ours.
    """
    if structure not in _STRUCTURES:
        raise fault(expected=f"a structure among {', '.join(_STRUCTURES)}", got=repr(structure), fix="Try 'dense'.")
    if rows is not None:
        check_count(rows, what="rows")
    check_not_negative(damping=damping)
    check_share(fit_rate=fit_rate)
    check_decays(fit_momentum=fit_momentum)
    if factor_dtype is not None and not _is_floats(factor_dtype):
        fix = "jnp.bfloat16 halves the memory; None takes the parameters' own."
        raise fault(expected="a dtype of floats for factor_dtype", got=repr(factor_dtype), fix=fix)
    every, max_size = check_count(every, what="every"), check_count(max_size, what="max_size")

    def init(params: PyTree) -> StructuredNgdState:
        def begin(leaf: Array) -> tuple[Factors, Factors]:
            dtype = factor_dtype or wide_dtype(leaf)

            def unit(side: int) -> Factor:
                whole = structure != "diagonal" and 1 < side <= max_size
                return jnp.eye(side, dtype=dtype) if whole else jnp.ones(side, dtype)

            factors = tuple(map(unit, squeezed(leaf).shape)) if leaf.size else ()
            return factors, jax.tree.map(jnp.zeros_like, factors)

        return StructuredNgdState(jnp.zeros((), jnp.int32), *over_leaves(begin, 2, params))

    def update(
        updates: PyTree, state: StructuredNgdState, params: PyTree = None, *, gradients: PyTree = None, **extra: Any
    ) -> tuple[PyTree, StructuredNgdState]:
        if rows is None:
            stack = _checked_stack(required(gradients, "gradients", by="structured_ngd(rows=None)"), updates)
        else:
            stack = jax.tree.map(lambda g: g[None] * jnp.sqrt(jnp.asarray(rows, g.dtype)), updates)

        def fit(factors: PyTree, moments: PyTree) -> tuple[PyTree, PyTree]:
            def one(g: Array, parts: Array, factors: Factors, moments: Factors) -> tuple[Factors, Factors]:
                if not g.size:
                    return factors, moments
                whole = parts.reshape(len(parts), *squeezed(g).shape).astype(factors[0].dtype)
                steps = _natural(whole, factors, damping, structure == "triangular")
                moments = tuple((fit_momentum * m + w).astype(m.dtype) for m, w in zip(moments, steps))
                return tuple(_moved(k, m, fit_rate) for k, m in zip(factors, moments)), moments

            fitted = over_leaves(one, 2, updates, stack, factors, moments)
            return fitted[0], fitted[1]

        kept = state.factors, state.moments
        factors, moments = jax.lax.cond(state.step % every == 0, fit, lambda *kept: kept, *kept)

        def one(g: Array, factors: Factors) -> tuple[Array]:
            if not g.size:
                return (g,)
            wide = squeezed(g).astype(factors[0].dtype)
            # The metric is KKᵀ; what multiplies by it takes the transposes.
            return (metric_times(tuple(k.T for k in factors), wide).reshape(g.shape).astype(g.dtype),)

        (steps,) = over_leaves(one, 1, updates, factors)
        return steps, StructuredNgdState(optax.safe_increment(state.step), factors, moments)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_floats(dtype: Any) -> bool:
    try:
        return bool(jnp.issubdtype(jnp.dtype(dtype), jnp.floating))
    except TypeError:
        return False


def structured_ngd(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    structure: Structure = "dense",
    *,
    momentum: float = 0.9,
    rows: int | None = 1,
    damping: float = 1e-3,
    fit_rate: float = 0.01,
    fit_momentum: float = 0.5,
    every: int = 1,
    max_size: int = 8192,
    factor_dtype: DTypeLike | None = None,
    weight_decay: float = 0.0,
    mask: PyTree = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Natural gradient descent with structured Kronecker factors, free of inverses and stable in half precision.

    .. math:: v \leftarrow \mu v+U, \qquad \theta \leftarrow \theta-\eta\,(v+\kappa\theta)

    with U of `scale_by_structured_ngd`.

    Args:
        learning_rate: η, a number or a schedule; 1e-3 by default.
        structure: ``"dense"`` by default, ``"triangular"`` or ``"diagonal"``.
        momentum: μ, 0.9 by default.
        rows: how many the gradient is the mean of, 1 by default; None for a stack of gradients, one a row.
        damping: λ, 1e-3 by default.
        fit_rate: β, 0.01 by default.
        fit_momentum: α, 0.5 by default.
        every: steps from one fit to the next, 1 by default.
        max_size: axes longer than this have a diagonal, 8192 by default.
        factor_dtype: of factors and of arithmetic with them.
        weight_decay: κ, decoupled, 0 by default; the authors' goes through the momentum.
        mask: which parameters decay, as in ``optax.adamw``; all by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_structured_ngd`, or a negative rate or decay.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.structured_ngd(0.1, "diagonal"), jnp.ones((2, 3))
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)
        >>> optax.apply_updates(x, update).shape
        (2, 3)

    Cost: as `scale_by_structured_ngd`, and an array of memory.

    References:
        - Lin et al., https://arxiv.org/abs/2302.09738 and https://arxiv.org/abs/2402.03496, whose code's defaults
          these are, but for ``rows``, which that code looks up.
    """
    check_decays(momentum=momentum)
    rule = scale_by_structured_ngd(
        structure,
        rows=rows,
        damping=damping,
        fit_rate=fit_rate,
        fit_momentum=fit_momentum,
        every=every,
        max_size=max_size,
        factor_dtype=factor_dtype,
    )
    rule = rule if is_zero(momentum) else optax.chain(rule, optax.trace(momentum))
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)


def _checked_stack(gradients: PyTree, updates: PyTree) -> PyTree:
    fix = "Take regulate.multi_value_and_grad of the rows' losses, regulate.mean() before this rule, no mask round it."
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], x.dtype), gradients)
    check_like(one, updates, what="gradients of which each, one a row,", fix=fix)
    if leaves := jax.tree.leaves(gradients):
        check_rows(gradients, max(1, *jnp.shape(leaves[0])[:1]), what="gradients", fix=fix)
    return gradients


@exact
def _natural(parts: Array, factors: Factors, damping: Any, triangular: bool) -> list[Factor]:
    """W of each axis, of gradients on a leading axis."""
    for axis, k in enumerate(factors, 1):
        if k.ndim == 2:
            parts = along(parts, k.T, axis)
        else:
            parts = parts * k.reshape([-1 if i == axis else 1 for i in range(parts.ndim)])
    traces = [jnp.sum(k * k) / len(k) for k in factors]
    found = []
    for axis, k in enumerate(factors):
        shared = parts.size // len(k)  # rows times the other sides
        others = damping * jnp.prod(jnp.stack([*traces[:axis], *traces[axis + 1 :], jnp.ones_like(traces[0])]))
        if k.ndim == 2:
            w = (others * k.T @ k + gram(parts, axis + 1) / shared - jnp.eye(len(k), dtype=k.dtype)) / 2
            found.append(jnp.tril(w) + jnp.tril(w, -1) if triangular else (w + w.T) / 2)
        else:
            squares = jnp.sum(parts**2, axis=[i for i in range(parts.ndim) if i != axis + 1])
            found.append((others * k**2 + squares / shared - 1) / 2)
    return found


@exact
def _moved(k: Factor, m: Factor, rate: Any) -> Factor:
    """A factor times what is near the identity: as far as the rate at most, so that it stays invertible."""
    m = rate / jnp.maximum(1, norm(m)).astype(m.dtype) * m
    return (k - (k @ m if k.ndim == 2 else k * m)).astype(k.dtype)
