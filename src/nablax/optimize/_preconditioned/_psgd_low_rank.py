"""PSGD with one metric for all parameters together: a diagonal and a matrix of low rank."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..._core import (
    Key,
    check_count,
    check_key,
    fault,
    register_rule,
    required,
    wide_dtype,
)
from .._answers import multiplying
from .._settings import is_zero, with_rate
from ._low_rank_fit import LowRankFit, damped, low_rank_begun, low_rank_fitted, low_rank_times
from ._psgd import Criterion, check_fit, clipped, first_scale, when_due


class PsgdLowRankState(NamedTuple):
    """What PSGD of low rank remembers.

    Attributes:
        step: number of steps made.
        mu: average of gradients, as one vector; empty without momentum.
        fit: the metric.
    """

    step: Int[Array, ""]
    mu: Any
    fit: LowRankFit


register_rule(
    PsgdLowRankState, unreadable="PSGD: it turns the gradient by a whole matrix, and has no rates one an element"
)


def scale_by_psgd_low_rank(
    rank: int = 10,
    criterion: Criterion = "whitening",
    *,
    momentum: float = 0.0,
    fit_rate: float = 0.1,
    probability: float = 1.0,
    damping: float = 1e-9,
    scale: float | None = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by PSGD of low rank, without a learning rate.

    .. math:: P = Q^{\top}Q, \qquad Q = (I+UV^{\top})\operatorname{diag}(d)

    fitted to the criterion of `scale_by_psgd` by relative steps :math:`dQ=\mathcal EQ`: of d at each step, of U or of V
    by the toss of a coin. All parameters are one vector, so that what belongs together in different tensors is found
    too; no tensor's shape matters. With whitening the update is clipped at a root mean square of 2, and each element at
    10.

    Args:
        rank: columns of U and of V, 10 by default. Take some more than the curvature has large directions: with as
            many as it takes the fit may creep.
        criterion: ``"whitening"`` by default, or ``"newton"``, which needs ``product_fn``.
        momentum: β of the gradient's average, 0 by default.
        fit_rate: of the steps of the metric, no unit, 0.1 by default.
        probability: how often the metric is fitted, 1 by default.
        damping: noise added to what is fitted, in its unit, 1e-9 by default.
        scale: d at first; by default from the first gradient or product h, :math:`(\overline{h^4})^{-1/8}`.
        key: of the start, the probes and the coin.

    Returns:
        The rule; its state is a `PsgdLowRankState`.

    Raises:
        ValueError: as `scale_by_psgd`; a rank below 1, or not below the number of parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_psgd_low_rank(1, key=jax.random.key(0))
        >>> params = {"weight": jnp.ones((2, 2)), "bias": jnp.ones(2)}
        >>> update, state = rule.update(params, rule.init(params))
        >>> state.fit.u.shape
        (6, 1)

    Cost: (2 rank + 1) numbers of memory a parameter, one more with momentum; four passes over U and V where the metric
        is applied, some twenty where it is fitted. ``"newton"``: a Hessian product at each fit.

    References:
        - As `scale_by_psgd`; the author's ``LRAWhiten`` and ``LRANewton``.
    """
    check_fit(criterion, momentum=momentum, fit_rate=fit_rate, probability=probability, damping=damping, scale=scale)
    check_key(key)
    rank = check_count(rank, what="rank")
    averages = not is_zero(momentum)
    newton = criterion == "newton"
    start_key, step_key = jax.random.split(key)

    def init(params: PyTree) -> PsgdLowRankState:
        flat = _vector(params)
        if rank >= flat.size:
            raise fault(expected=f"more parameters than the rank {rank}", got=flat.size, fix="Pass a lower rank.")
        fit = low_rank_begun(jnp.ones_like(flat), rank, start_key)
        return PsgdLowRankState(jnp.zeros((), jnp.int32), flat * 0 if averages else optax.MaskedNode(), fit)

    def update(
        updates: PyTree,
        state: PsgdLowRankState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PsgdLowRankState]:
        flat, unflatten = _vector(updates), ravel_pytree(updates)[1]
        probe_key, due_key, fit_key = jax.random.split(jax.random.fold_in(step_key, state.step), 3)
        product = multiplying(required(product_fn, "product_fn", by="psgd_low_rank('newton')")) if newton else None

        def refit(fit: LowRankFit) -> LowRankFit:
            probe, h = jax.random.normal(probe_key, flat.shape, flat.dtype), flat
            if product is not None:
                vector = unflatten(probe.astype(ravel_pytree(updates)[0].dtype))
                h, probe = _vector(product(vector)), _vector(vector)
            size = scale if scale is not None else first_scale(h, damping)
            fit = fit._replace(diagonal=jnp.where(state.step == 0, size, fit.diagonal).astype(flat.dtype))
            noise_key, coin_key = jax.random.split(fit_key)
            noise = jax.random.normal(noise_key, flat.shape, flat.dtype) if newton else probe
            h = damped(h, damping, noise)
            return low_rank_fitted(fit, probe, h, jax.random.bernoulli(coin_key), rate=fit_rate, decay=0.9)

        fit = when_due(refit, state.fit, state.step, probability, due_key)
        mu, seen = state.mu, flat
        if averages:
            decay = jnp.minimum(state.step / (1 + state.step), momentum)
            mu = seen = (decay * mu + (1 - decay) * flat).astype(flat.dtype)
        step = low_rank_times(fit, seen)
        if not newton:
            step = clipped(step)
        step = jax.tree.map(lambda new, g: new.astype(g.dtype), _split(step, updates), updates)
        return step, PsgdLowRankState(optax.safe_increment(state.step), mu, fit)

    return optax.GradientTransformationExtraArgs(init, update)


def psgd_low_rank(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    rank: int = 10,
    criterion: Criterion = "whitening",
    *,
    momentum: float = 0.0,
    fit_rate: float = 0.1,
    probability: float = 1.0,
    damping: float = 1e-9,
    scale: float | None = None,
    weight_decay: float = 0.0,
    mask: PyTree = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""PSGD with one metric for all parameters together, a diagonal and a matrix of low rank.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(P_t g_t + \lambda\theta_t)

    with P of `scale_by_psgd_low_rank`.

    Args:
        learning_rate: η, a number or a schedule; 1e-3 by default, 1e-2 is the author's by ``"newton"``.
        rank: of the matrix, 10 by default.
        criterion: ``"whitening"`` or ``"newton"``.
        momentum: β, 0 by default.
        fit_rate: of the metric, 0.1 by default.
        probability: how often the metric is fitted, 1 by default.
        damping: of what the metric is fitted to, 1e-9 by default.
        scale: of the diagonal at first; by default from what comes first.
        weight_decay: λ, decoupled; 0 by default.
        mask: which parameters decay, as in ``optax.adamw``; all by default.
        key: of all that is drawn.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_psgd_low_rank`, or a negative decay of weights.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> optimizer = optimize.psgd_low_rank(0.1, 1, key=jax.random.key(0))
        >>> x = jnp.ones(4)
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)
        >>> bool(jnp.all(update < 0))
        True

    Cost: as `scale_by_psgd_low_rank`.

    References:
        - As `scale_by_psgd`.
    """
    rule = scale_by_psgd_low_rank(
        rank,
        criterion,
        momentum=momentum,
        fit_rate=fit_rate,
        probability=probability,
        damping=damping,
        scale=scale,
        key=key,
    )
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)


def _vector(tree: PyTree) -> Float[Array, " dim"]:
    """All arrays of a tree as one vector, in single precision at least."""
    dtype = wide_dtype(tree)
    return ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(dtype), tree))[0]


def _split(vector: Float[Array, " dim"], like: PyTree) -> PyTree:
    """The vector as a tree again, in its own type."""
    return ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(vector.dtype), like))[1](vector)
