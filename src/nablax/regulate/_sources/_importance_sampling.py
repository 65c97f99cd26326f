"""Sample data, or paths of a supernet, in proportion to their gradients' norms, and keep the mean unbiased."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import (
    Key,
    check_count,
    check_floats,
    check_key,
    check_labels,
    check_shape,
    fault,
    nonzero,
    norm,
    required,
    scaled,
    tree_norm,
    wide_dtype,
)
from .._aggregators._arithmetic import combine
from .._aggregators._checks import leading_axis


class ImportanceSamplingState(NamedTuple):
    """What is known of every item.

    Attributes:
        norms: each item's gradient norm when it was last sampled; -1 for one never sampled.
        probabilities: the law of the next draw.
        updates: number of updates so far, by which a falling uniform share is told.
    """

    norms: Float[Array, " items"]
    probabilities: Float[Array, " items"]
    updates: Int[Array, ""]


def importance_sampling(
    items: int, *, uniform: float | optax.Schedule = 0.1, unbiased: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Average gradients of sampled items without bias, and learn from them what to sample.

    .. math::
        g = \frac1K\sum_{k=1}^{K}\frac{g_k}{\prod_e N p_{i_{ke}}},\qquad
        p_i = (1-\delta)\frac{\lVert g_i\rVert}{\sum_j\lVert g_j\rVert} + \frac{\delta}{N}

    Items are rows of data, or operations of a supernet: a gradient then belongs to one item, or to a path, which
    chooses one item on every edge e by the same law. Of rows, with δ = 0 and gradient norms that are up to date, no law
    has a smaller variance :math:`\operatorname{E}\lVert g - \bar g\rVert^2`. Items never sampled count as average ones.
    The norms in use are those of the last time an item came up, a mean where it came up several times; the mean of
    gradients is unbiased however old they are.

    What is stacked are gradients of rows drawn from one loss, not of K losses between which a direction is to be found:
    a check-up says that it does not know the rule behind it.

    Args:
        items: N, how many there are to sample from.
        uniform: δ, the share that is drawn uniformly, in (0, 1]: 0.1 by default, so that no weight of a row exceeds 10;
            or a schedule of it by the number of updates. The authors' falls from 1 to 0 over training:
            ``optax.linear_schedule(1.0, 0.0, steps)``.
        unbiased: whether gradients are weighted, True by default. The authors' are not: their mean is that of the law.

    Returns:
        The aggregator. Items are drawn by `importance_draw` from its state; ``update(grads, state, indices=[K])`` takes
        gradients with a leading axis of what was sampled and which items these are, ``indices=[K, edges]`` for paths.
        ``norms``, shaped like the indices, is what stands for each item's gradient norm, such as
        `classification_norms`; by default, of rows alone, the norm of the whole gradient. Its state is an
        `ImportanceSamplingState`.

    Raises:
        ValueError: no items, δ out of range, indices that are missing or of another number than the gradients, or norms
            that are of another shape, or missing for paths. An index that is no item's raises when it is used.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> slopes = jnp.array([[1.0], [3.0]])
        >>> aggregator = regulate.importance_sampling(2, uniform=0.5)
        >>> updates, state = aggregator.update(slopes, aggregator.init(jnp.zeros(1)), indices=jnp.arange(2))
        >>> updates.tolist(), state.probabilities.tolist()
        ([2.0], [0.375, 0.625])

    Cost:
        The norms of the K gradients where none are given, and a few operations an item.

    References:
        - Lu, Hu, Yang, Sun, Mei, Tan and Song, "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", 2023,
          https://arxiv.org/abs/2302.14772 (norms as the indicator for paths and data, mixed with the uniform law;
          their code, https://github.com/ShunLu91/PA-DA, has one law of operations for all edges, and takes the mean of
          an operation's last norm and its earlier one where we take the last. That unseen items count as average, and
          weights, which the theorem has and the code leaves out, are ours)
    """
    if items < 1 or (isinstance(uniform, float | int) and not 0 < uniform <= 1):
        raise fault(
            expected="items ≥ 1 and uniform in (0, 1]",
            got=f"items={items}, uniform={uniform}",
            fix="A uniform share of 0.1 bounds the weights by 10.",
        )

    def init(params: PyTree) -> ImportanceSamplingState:
        dtype = wide_dtype(params)
        norms = jnp.full(items, -1, dtype)
        return ImportanceSamplingState(norms, jnp.full(items, 1 / items, dtype), jnp.zeros((), jnp.int32))

    def law(norms: Float[Array, " items"], count: Int[Array, ""]) -> Float[Array, " items"]:
        seen = (norms >= 0) & jnp.isfinite(norms)
        share, _ = scaled(jnp.where(seen, norms, 0))
        typical = jnp.sum(share) / jnp.maximum(jnp.sum(seen), 1)
        share = jnp.where(seen, share, typical)
        total = jnp.sum(share)
        even = jnp.asarray(uniform(count) if callable(uniform) else uniform, norms.dtype)
        return jnp.where(total > 0, (1 - even) * share / nonzero(total) + even / items, 1 / items)

    def update(
        grads: PyTree,
        state: ImportanceSamplingState,
        params: PyTree = None,
        *,
        indices: Int[Array, "K ..."] | None = None,
        norms: Float[Array, "K ..."] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ImportanceSamplingState]:
        count = leading_axis(grads, params)
        indices = jnp.asarray(required(indices, "indices", by="importance_sampling"))
        if indices.ndim not in (1, 2) or len(indices) != count:
            raise fault(
                expected=f"indices=[{count}], the items that the gradients belong to, or [{count}, edges] for paths",
                got=str(indices.shape),
                fix="Pass what importance_draw returned.",
            )
        if indices.ndim == 2:
            norms = required(norms, "norms", by="importance_sampling of paths")
        sizes = jax.vmap(tree_norm)(grads) if norms is None else jnp.asarray(norms)
        if sizes.shape != indices.shape:
            raise fault(
                expected=f"norms, one for each of the indices {indices.shape}",
                got=str(sizes.shape),
                fix="Of an operation pass the norm of its own gradient.",
            )
        dtype = state.norms.dtype
        indices = eqx.error_if(
            indices,
            jnp.any((indices < 0) | (indices >= items)),
            f"expected indices from 0 to {items - 1}, got one outside. Pass what importance_draw returned.",
        )
        chosen = state.probabilities[indices].reshape(count, -1)
        weights = jnp.prod(1 / (items * chosen), axis=1) if unbiased else jnp.ones(count, dtype)
        times = jnp.zeros(items, dtype).at[indices].add(1)
        shares = sizes.astype(dtype) / times[indices]
        latest = jnp.where(times > 0, jnp.zeros(items, dtype).at[indices].add(shares), state.norms)
        number = state.updates + 1
        following = ImportanceSamplingState(latest, law(latest, number).astype(dtype), number)
        return combine(grads, weights / count), following

    return optax.GradientTransformationExtraArgs(init, update)


def classification_norms(logits: Float[Array, "rows classes"], labels: Int[Array, " rows"]) -> Float[Array, " rows"]:
    r"""Size of each row's gradient of cross-entropy by its logits, which costs no pass back.

    .. math::
        \lVert\nabla_z \ell\rVert_2 = \lVert\operatorname{softmax}(z) - \mathrm{onehot}(y)\rVert_2

    A stand-in for the norm of the whole gradient, which is this one pulled back through the network.

    Args:
        logits: z, of each row.
        labels: y, the right class of each row.

    Returns:
        One number a row, from 0 to √2, for the ``norms`` of `importance_sampling`.

    Raises:
        ValueError: logits are not ``[rows, classes]`` of floats; labels are not one class a row.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> norms = regulate.classification_norms(jnp.array([[0.0, 0.0], [9.0, -9.0]]), jnp.array([0, 0]))
        >>> [round(float(norm), 3) for norm in norms]
        [0.707, 0.0]

    Cost:
        One softmax.

    References:
        - Lu, Hu, Yang, Sun, Mei, Tan and Song, "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", 2023,
          https://arxiv.org/abs/2302.14772 (what stands for the norm of data)
    """
    logits = check_shape(logits, (None, None), what="logits", fix="Give each row one for every class.")
    check_floats(logits, what="logits", fix="Convert them to a float dtype.")
    labels = check_labels(labels, len(logits), classes=logits.shape[1])
    return norm(jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), -1)


def importance_draw(state: ImportanceSamplingState, count: int, *, key: Key) -> Int[Array, " count"]:
    """Draw items from the state's law, with replacement; of operations, one for every edge of a path.

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
