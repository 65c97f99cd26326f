"""A momentum for each cluster of the data, taken off the gradients of its rows: variance within clusters is left."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_rows, exact, fault, register_rule, required, wide_dtype
from .._leaves import like, over_leaves
from .._settings import check_decays, with_rate


class MultiMomentumState(NamedTuple):
    """What variance reduction by clusters remembers.

    Attributes:
        momenta: average gradient of each cluster, on a leading axis before the parameters' own.
    """

    momenta: PyTree


register_rule(MultiMomentumState, unreadable="multi-momentum: gradients are corrected by averages of their clusters")


def scale_by_multi_momentum(
    shares: Sequence[float] | Float[np.ndarray, " clusters"], *, decay: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""Take a momentum of its own cluster off each gradient, and add the mean of all of them.

    .. math::
        v = \frac1K\sum_{i=1}^K\,(g_i - m_{k_i}) + \sum_j p_j m_j, \qquad
        m_k \leftarrow \beta m_k + (1-\beta)\,\overline{g}_k \quad\text{for the clusters that were drawn}

    with :math:`\overline g_k` the mean over the gradients of cluster k. Where rows are drawn from all the data, or
    clusters with their shares p, the mean of v is the gradient's, whatever the momenta are: they are brought up to date
    only after it. Its variance is that within the clusters, once the momenta have found their gradients. Singletons
    with β = 0 are SAGA.

    Args:
        shares: p, how much of the data each cluster holds, of sum 1; of the data, not of a batch.
        decay: β, in [0, 1); 0.9 by default, ours. 0 keeps the last gradient of each cluster.

    Returns:
        The rule; its state is a `MultiMomentumState`. It needs ``cluster``: a whole number, where the gradient is of
        rows of one cluster, or K of them, where gradients come as a stack with a leading axis K, each of rows of one
        cluster; none of it goes out. Momentum and rates come after it.

    Raises:
        ValueError: shares that are none, a decay outside [0, 1), gradients that are no stack of K; at an update,
            ``cluster`` is missing, is not whole, or (while it runs) numbers a cluster that does not exist.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_multi_momentum([0.5, 0.5], decay=0.0)
        >>> state = rule.init(jnp.zeros(1))
        >>> for cluster, gradient in enumerate([1.0, 3.0]):
        ...     _, state = rule.update(jnp.array([gradient]), state, cluster=cluster)
        >>> rule.update(jnp.array([1.0]), state, cluster=0)[0].tolist()  # the mean of both, from one
        [2.0]

    Cost: as many arrays of memory as there are clusters; a stack of gradients, where several clusters share a batch.

    References:
        - Tondji, Kashubin and Cisse, "Variance Reduction in Deep Learning: More Momentum is All You Need", 2021,
          https://arxiv.org/abs/2111.11828, after the abstract; the estimate is that of SAGA (Defazio et al., 2014,
          https://arxiv.org/abs/1407.0202) with clusters for rows, derived here, and the decay's default is ours.
    """
    numbers = np.asarray(shares)
    row = numbers.ndim == 1 and numbers.dtype.kind in "iuf"
    if not row or not (np.all(numbers >= 0) and abs(np.sum(numbers, dtype=np.float64) - 1) <= 1e-5):
        raise fault(
            expected="shares of the clusters, none negative, of sum 1",
            got=f"{shares!r}",
            fix="Take numpy.bincount(clusters) / len(clusters).",
        )
    check_decays(decay=decay)
    numbers = numbers.astype(np.float64)

    def init(params: PyTree) -> MultiMomentumState:
        return MultiMomentumState(
            jax.tree.map(lambda leaf: jnp.zeros((len(numbers), *leaf.shape), wide_dtype(leaf)), params)
        )

    @exact
    def update(
        updates: PyTree,
        state: MultiMomentumState,
        params: PyTree = None,
        *,
        cluster: Int[Array, " K"] | int | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MultiMomentumState]:
        groups = _checked(required(cluster, "cluster", by="multi_momentum"), len(numbers))
        if groups.ndim:
            fix = "Pass a stack of gradients, one for each number in cluster."
            check_rows(updates, len(groups), what="gradients", fix=fix)
        else:
            groups, updates = groups[None], jax.tree.map(lambda g: g[None], updates)
        counts = jnp.zeros(len(numbers), jnp.int32).at[groups].add(1)

        def one(g: Array, momenta: Array) -> tuple[Array, Array]:
            wide = g.astype(momenta.dtype)
            estimate = jnp.mean(wide - momenta[groups], 0) + jnp.tensordot(jnp.asarray(numbers, wide.dtype), momenta, 1)
            drawn = counts.reshape(-1, *[1] * (wide.ndim - 1))
            means = jnp.zeros_like(momenta).at[groups].add(wide) / jnp.maximum(drawn, 1)
            renewed = jnp.where(drawn > 0, decay * momenta + (1 - decay) * means, momenta)
            return estimate.astype(g.dtype), like(renewed, momenta)

        steps, momenta = over_leaves(one, 2, updates, state.momenta)
        return steps, MultiMomentumState(momenta)

    return optax.GradientTransformationExtraArgs(init, update)


def multi_momentum(
    learning_rate: optax.ScalarOrSchedule,
    shares: Sequence[float] | Float[np.ndarray, " clusters"],
    *,
    decay: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic gradient descent with the variance between clusters taken off.

    .. math:: \theta_{t+1} = \theta_t - \eta\,v_t

    with :math:`v` of `scale_by_multi_momentum`. It is worth its memory where the gradients of a cluster are alike:
    classes, sources, machines. Rows thrown together at random gain nothing.

    Args:
        learning_rate: η, a number or a schedule.
        shares: p, how much of the data each cluster holds.
        decay: β, 0.9 by default, ours.

    Returns:
        The optimiser. It needs ``cluster``.

    Raises:
        ValueError: as `scale_by_multi_momentum`, or a negative rate.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.multi_momentum(0.5, [0.25, 0.75]), jnp.array([1.0])
        >>> stack = jnp.array([[1.0], [3.0]])
        >>> update, _ = optimizer.update(stack, optimizer.init(x), x, cluster=jnp.array([0, 1]))
        >>> optax.apply_updates(x, update).tolist()
        [0.0]

    Cost: as `scale_by_multi_momentum`.

    References:
        - Tondji, Kashubin and Cisse, https://arxiv.org/abs/2111.11828, after the abstract.
    """
    return with_rate(scale_by_multi_momentum(shares, decay=decay), learning_rate)


def _checked(cluster: Any, count: int) -> Int[Array, "..."]:
    """The clusters as an array of one number or one axis, all of them clusters that exist."""
    groups = jnp.asarray(cluster)
    if not jnp.issubdtype(groups.dtype, jnp.integer) or groups.ndim > 1 or not groups.size:
        raise fault(
            expected="a cluster as a whole number, or one axis of them",
            got=f"{groups.dtype}{list(groups.shape)}",
            fix="Number the clusters from 0, in the order of their shares.",
        )
    return eqx.error_if(
        groups,
        jnp.any((groups < 0) | (groups >= count)),
        f"expected clusters from 0 to {count - 1}, as many as there are shares, got another. Number them from 0.",
    )
