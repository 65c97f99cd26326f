"""Sample data, or paths of a supernet, in proportion to their gradients' norms, and keep the mean unbiased."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, check_count, check_key, fault, nonzero, required, scaled, tree_norm, wide_dtype
from .._aggregators._arithmetic import combine
from .._aggregators._checks import leading_axis


class ImportanceSamplingState(NamedTuple):
    """What is known of every item.

    Attributes:
        norms: each item's gradient norm when it was last sampled; -1 for one never sampled.
        probabilities: the law of the next draw.
    """

    norms: Float[Array, " items"]
    probabilities: Float[Array, " items"]


def importance_sampling(items: int, *, uniform: float = 0.1) -> optax.GradientTransformationExtraArgs:
    r"""Average gradients of sampled items without bias, and learn from them what to sample.

    .. math::
        g = \frac1K\sum_{k=1}^{K}\frac{g_{i_k}}{N p_{i_k}},\qquad
        p_i = (1-\delta)\frac{\lVert g_i\rVert}{\sum_j\lVert g_j\rVert} + \frac{\delta}{N}

    With δ = 0 and norms that are up to date, no law has a smaller variance
    :math:`\operatorname{E}\lVert g - \bar g\rVert^2`. Items never sampled count as average ones. The norms in use are
    those of the last time an item came up; the mean is unbiased however old they are.

    Args:
        items: N, how many there are to sample from: rows of data, or paths.
        uniform: δ, the share that is drawn uniformly, in (0, 1], 0.1 by default. No weight exceeds 1/δ.

    Returns:
        The aggregator. Items are drawn by `importance_draw` from its state; ``update(grads, state, indices=[K])`` takes
        gradients with a leading axis of sampled items and which ones these are. Its state is an
        `ImportanceSamplingState`.

    Raises:
        ValueError: no items, δ out of range, or indices that are missing or of another number than the gradients. An
            index that is no item's raises when it is used.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> slopes = jnp.array([[1.0], [3.0]])
        >>> aggregator = regulate.importance_sampling(2, uniform=0.5)
        >>> updates, state = aggregator.update(slopes, aggregator.init(jnp.zeros(1)), indices=jnp.arange(2))
        >>> updates.tolist(), state.probabilities.tolist()
        ([2.0], [0.375, 0.625])

    Cost:
        The norms of the K gradients, and a few operations an item.

    References:
        - Lu, Hu, Yang, Sun, Mei, Tan and Song, "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", 2023,
          https://arxiv.org/abs/2302.14772 (norms as the indicator for paths and data, mixed with the uniform law; that
          unseen items count as average is ours, and so is the norm of the whole gradient)
    """
    if items < 1 or not 0 < uniform <= 1:
        raise fault(
            expected="items ≥ 1 and uniform in (0, 1]",
            got=f"items={items}, uniform={uniform}",
            fix="A uniform share of 0.1 bounds the weights by 10.",
        )

    def init(params: PyTree) -> ImportanceSamplingState:
        dtype = wide_dtype(params)
        return ImportanceSamplingState(jnp.full(items, -1, dtype), jnp.full(items, 1 / items, dtype))

    def law(norms: Float[Array, " items"]) -> Float[Array, " items"]:
        seen = (norms >= 0) & jnp.isfinite(norms)
        share, _ = scaled(jnp.where(seen, norms, 0))
        typical = jnp.sum(share) / jnp.maximum(jnp.sum(seen), 1)
        share = jnp.where(seen, share, typical)
        total = jnp.sum(share)
        return jnp.where(total > 0, (1 - uniform) * share / nonzero(total) + uniform / items, 1 / items)

    def update(
        grads: PyTree,
        state: ImportanceSamplingState,
        params: PyTree = None,
        *,
        indices: Int[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ImportanceSamplingState]:
        count = leading_axis(grads, params)
        indices = required(indices, "indices", by="importance_sampling")
        if jnp.shape(indices) != (count,):
            raise fault(
                expected=f"indices=[{count}], the items that the gradients belong to",
                got=str(jnp.shape(indices)),
                fix="Pass what importance_draw returned.",
            )
        dtype = state.norms.dtype
        indices = jnp.asarray(indices)
        indices = eqx.error_if(
            indices,
            jnp.any((indices < 0) | (indices >= items)),
            f"expected indices from 0 to {items - 1}, got one outside. Pass what importance_draw returned.",
        )
        weights = 1 / (count * items * state.probabilities[indices])
        norms = state.norms.at[indices].set(jax.vmap(tree_norm)(grads).astype(dtype))
        return combine(grads, weights), ImportanceSamplingState(norms, law(norms).astype(dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def importance_draw(state: ImportanceSamplingState, count: int, *, key: Key) -> Int[Array, " count"]:
    """Draw items from the state's law, with replacement.

    Args:
        state: of `importance_sampling`.
        count: how many to draw.
        key: of the draw.

    Returns:
        Indices ``[count]``.

    Raises:
        ValueError: ``count`` is not a positive whole number, or ``key`` is no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> state = regulate.importance_sampling(5).init(jnp.zeros(1))
        >>> regulate.importance_draw(state, 3, key=jax.random.key(0)).shape
        (3,)

    Cost:
        One pass over the probabilities.
    """
    count = check_count(count, what="count")
    check_key(key)
    return jax.random.choice(key, state.probabilities.shape[0], (count,), p=state.probabilities)
