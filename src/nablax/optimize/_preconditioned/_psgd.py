"""PSGD: a metric fitted to the noise of gradients or to the curvature, by relative steps on its Kronecker factors."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import Key, check_count, check_key, fault, nonzero, norm, register_rule, required, wide_dtype
from .._answers import multiplying
from .._leaves import like, wide_zeros
from .._settings import check_decays, check_not_negative, check_positive, check_share, is_zero, with_rate
from ._kron_fit import KronFit, begun, fitted, metric_times, squeezed
from ._stacks import over_stacks

Criterion = Literal["whitening", "newton"]


class PsgdState(NamedTuple):
    """What PSGD remembers.

    Attributes:
        step: number of steps made.
        mu: average of gradients, shaped like the parameters; empty without momentum.
        fits: of each leaf the factors of its metric, and how strongly the criterion bends in each.
    """

    step: Int[Array, ""]
    mu: PyTree
    fits: PyTree


register_rule(PsgdState, unreadable="PSGD: it turns the gradient by whole matrices, and has no rates one an element")


def scale_by_psgd(
    criterion: Criterion = "whitening",
    *,
    momentum: float = 0.0,
    fit_rate: float = 0.1,
    probability: float = 1.0,
    max_size: int = 10_000,
    max_skew: float = 1.0,
    damping: float = 1e-9,
    scale: float | None = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by PSGD with Kronecker factors, without a learning rate.

    .. math::
        \min_Q\; E\big[h^{\top}Ph + v^{\top}P^{-1}v\big], \qquad P = Q^{\top}Q, \qquad Q = Q_1\otimes\dots\otimes Q_d,
        \qquad v\sim\mathcal N(0, I)

    and the update is P times the gradient, or its average. With h the gradient (``"whitening"``) P tends to
    :math:`E[gg^{\top}]^{-1/2}`, with :math:`h = Hv` (``"newton"``) to :math:`|H|^{-1}`, as far as factors can be
    either. At each step

    .. math::
        Q_i \leftarrow Q_i - \tfrac{\mu}{\ell_i}\,(A_i - B_i)\,Q_i

    with :math:`A_i` the Gram matrix of Ph along axis i, :math:`B_i` that of v (of whitening its mean, a multiple of I),
    and :math:`\ell_i` a running bound of their norm, so that μ has no unit; :math:`Q_i` is then turned towards
    symmetry. An axis too long for a matrix has a diagonal; ``max_size=1`` makes all of them diagonals. With whitening
    the update of each tensor is clipped at a root mean square of 2, and each element at 10, as the authors do: at small
    gradients nothing else would bound it.

    Args:
        criterion: ``"whitening"`` by default, or ``"newton"``, which needs ``product_fn``.
        momentum: β of the gradient's average, :math:`\min(\beta, t/(t+1))` at step t; 0 by default: none.
        fit_rate: μ, 0.1 by default, no unit.
        probability: how often the metric is fitted, 1 by default; once it has settled 0.1 saves most of the cost.
        max_size: axes longer than this have a diagonal, 10,000 by default (ours; the authors': none is too long).
        max_skew: and those whose length squared is more than this times the number of elements, 1 by default, so
            that no factor is larger than the tensor, and vectors have diagonals.
        damping: noise added to h, in its unit, 1e-9 by default.
        scale: Q at first, a multiple of I; by default from the first h, :math:`(\max \overline{h^4})^{-1/8}`, the
            maximum being over leaves.
        key: of the probes and of what else is drawn. Each step draws anew.

    Returns:
        The rule; its state is a `PsgdState`.

    Raises:
        ValueError: an unknown criterion, no key, or settings out of range; at an update by ``"newton"``, ``product_fn``
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_psgd(key=jax.random.key(0))
        >>> gradient = jnp.array([100.0, -0.1])
        >>> def step(state, _):
        ...     update, state = rule.update(gradient, state)
        ...     return state, update
        >>> _, updates = jax.lax.scan(step, rule.init(gradient), length=200)
        >>> [round(float(u), 1) for u in updates[-1]]  # both have become of size 1
        [1.0, -1.0]

    Cost: for a matrix of m by n, m² + n² numbers of memory (a side longer than ``max_skew`` times the other is a
        diagonal, m or n alone), and mn with momentum; ten or so products with matrices of its sides where the metric is
        fitted, four where it is applied. ``"newton"``: a Hessian product at each fit.

    References:
        - Pooladzandi and Li, "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", 2024,
          https://arxiv.org/abs/2402.04553; Li, "Stochastic Hessian Fitting on Lie Group", 2024,
          https://arxiv.org/abs/2402.11858; and the author's code as of 2026 (https://github.com/lixilinx/psgd_torch),
          whose default geometry ("Q0.5EQ1.5"), bounds and clipping these are.
    """
    check_fit(criterion, momentum=momentum, fit_rate=fit_rate, probability=probability, damping=damping, scale=scale)
    check_key(key)
    check_positive(max_skew=max_skew)
    max_size = check_count(max_size, what="max_size")
    averages = not is_zero(momentum)
    newton = criterion == "newton"

    def begin(leaf: Array, size: Any) -> KronFit:
        return begun(squeezed(leaf), size, max_size=max_size, max_skew=max_skew)

    def init(params: PyTree) -> PsgdState:
        wide = wide_zeros(params)
        fits = jax.tree.map(lambda leaf: begin(leaf, 1.0), wide)
        return PsgdState(jnp.zeros((), jnp.int32), wide if averages else optax.MaskedNode(), fits)

    def update(
        updates: PyTree,
        state: PsgdState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PsgdState]:
        wide = jax.tree.map(lambda g: g.astype(wide_dtype(g)), updates)
        now = jax.random.fold_in(key, state.step)
        probe_key, due_key, *_ = jax.random.split(now, 3)
        product = multiplying(required(product_fn, "product_fn", by="psgd('newton')")) if newton else None

        def pair() -> tuple[PyTree, PyTree]:
            """What is fitted to: products and their probes, or gradients and nothing."""
            if product is None:
                return wide, None
            draws = iter(jax.random.split(probe_key, len(jax.tree.leaves(updates)) or 1))
            probes = jax.tree.map(lambda g: jax.random.normal(next(draws), g.shape, g.dtype), updates)
            return tuple(jax.tree.map(lambda x: x.astype(wide_dtype(x)), tree) for tree in (product(probes), probes))

        def refit(fits: PyTree) -> PyTree:
            hs, probes = pair()
            size = scale if scale is not None else first_scale(hs, damping)
            leaves, structure = jax.tree.flatten(hs)
            places = jax.tree.unflatten(structure, range(len(leaves)))

            def one(h: Array, fit: KronFit, place: Any, *probe: Array) -> tuple[KronFit]:
                fit = jax.tree.map(lambda a, b: jnp.where(state.step == 0, a, b).astype(b.dtype), begin(h, size), fit)
                v = squeezed(probe[0]) if probe else None
                drawn = jax.random.fold_in(jax.random.fold_in(now, 1), place)
                return (fitted(fit, squeezed(h), v, drawn, rate=fit_rate, decay=0.9, damping=damping),)

            return over_stacks(one, 1, hs, fits, places, *([probes] if newton else []))[0]

        fits = when_due(refit, state.fits, state.step, probability, due_key)
        mu = state.mu
        if averages:
            decay = jnp.minimum(state.step / (1 + state.step), momentum)
            mu = like(jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, mu, wide), mu)

        def apply(g: Array, along: Array, fit: KronFit) -> tuple[Array]:
            step = metric_times(fit.factors, squeezed(along)).reshape(g.shape)
            return ((step if newton else clipped(step)).astype(g.dtype),)

        (steps,) = over_stacks(apply, 1, updates, mu if averages else wide, fits)
        return steps, PsgdState(optax.safe_increment(state.step), mu, fits)

    return optax.GradientTransformationExtraArgs(init, update)


def psgd(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    criterion: Criterion = "whitening",
    *,
    momentum: float = 0.0,
    fit_rate: float = 0.1,
    probability: float = 1.0,
    max_size: int = 10_000,
    max_skew: float = 1.0,
    damping: float = 1e-9,
    scale: float | None = None,
    weight_decay: float = 0.0,
    mask: PyTree = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""PSGD: a metric fitted to the noise of gradients or to the curvature, by its Kronecker factors.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(P_t g_t + \lambda\theta_t)

    with P of `scale_by_psgd`.

    Args:
        learning_rate: η, a number or a schedule; 1e-3 by default. By ``"newton"`` it has no unit, and 1e-2 is the
            authors'; where the loss is nearly quadratic and without noise it may be near 1.
        criterion: ``"whitening"`` or ``"newton"``.
        momentum: β, 0 by default; 0.9 is usual.
        fit_rate: of the metric, 0.1 by default.
        probability: how often the metric is fitted, 1 by default.
        max_size: axes longer than this have a diagonal.
        max_skew: and those whose square is more than this times the number of elements.
        damping: of what the metric is fitted to, 1e-9 by default.
        scale: of Q at first; by default from what comes first.
        weight_decay: λ, decoupled; 0 by default.
        mask: which parameters decay, as in ``optax.adamw``; all by default.
        key: of all that is drawn.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_psgd`, or a negative decay of weights.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> curvature = jnp.array([1.0, 1e4])  # of a loss without noise
        >>> optimizer = optimize.psgd(0.5, "newton", key=jax.random.key(0))
        >>> def step(carry, _):
        ...     x, state = carry
        ...     update, state = optimizer.update(curvature * x, state, x, product_fn=lambda v: curvature * v)
        ...     return (x + update, state), None
        >>> x = jnp.ones(2)
        >>> (x, state), _ = jax.lax.scan(step, (x, optimizer.init(x)), length=300)
        >>> bool(jnp.all(jnp.abs(x) < 1e-6))
        True

    Cost: as `scale_by_psgd`.

    References:
        - As `scale_by_psgd`.
    """
    rule = scale_by_psgd(
        criterion,
        momentum=momentum,
        fit_rate=fit_rate,
        probability=probability,
        max_size=max_size,
        max_skew=max_skew,
        damping=damping,
        scale=scale,
        key=key,
    )
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)


def check_fit(criterion: Any, *, momentum: Any, fit_rate: Any, probability: Any, damping: Any, scale: Any) -> None:
    """Refuse settings of a fit, of factors or of low rank, that cannot be.

    Raises:
        ValueError: one cannot.
    """
    if criterion not in ("whitening", "newton"):
        raise fault(
            expected="the criterion 'whitening' or 'newton'", got=repr(criterion), fix="The default is 'whitening'."
        )
    check_decays(momentum=momentum)
    check_share(fit_rate=fit_rate, probability=probability)
    if scale is not None:
        check_positive(scale=scale)
    check_not_negative(damping=damping)


def when_due(refit: Callable[[Any], Any], fit: Any, step: Array, probability: Any, key: Key) -> Any:
    """The fit anew, at the first step and at a share of the others."""
    if isinstance(probability, int | float) and probability >= 1:
        return refit(fit)
    due = (step == 0) | (jax.random.uniform(key) < probability)
    return jax.lax.cond(due, refit, lambda fit: fit, fit)


def first_scale(hs: PyTree, damping: float) -> Array:
    """The fourth moment of the largest leaf, damped, to the power −1/8, in units that keep it within number range.

    A leaf that is not finite has no say, so that it spoils itself alone.
    """
    leaves = [leaf for leaf in jax.tree.leaves(hs) if leaf.size]
    if not leaves:
        return jnp.ones(())
    peaks = [nonzero(jnp.max(jnp.abs(leaf))) for leaf in leaves]
    sizes = [p * jnp.mean((leaf / p) ** 4) ** 0.25 for p, leaf in zip(peaks, leaves)]
    size = jnp.max(jnp.stack([jnp.where(jnp.isfinite(s), s, 0).astype(jnp.result_type(*sizes)) for s in sizes]))
    unit = nonzero(jnp.maximum(size, damping))
    return (unit * ((size / unit) ** 4 + (damping / unit) ** 4) ** 0.25) ** -0.5


def clipped(step: Array) -> Array:
    """An array with a root mean square of 2 at most, and elements of 10 at most."""
    size = norm(step) / step.size**0.5 if step.size else jnp.ones(())
    return jnp.clip(step * jnp.minimum(1, 2 / nonzero(size)), -10, 10)
