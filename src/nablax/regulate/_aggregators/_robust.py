"""Krum and the trimmed mean: what some wrong gradients among many cannot move far."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import fault
from ._aggregator import (
    AggregatorState,
    Weights,
    checked,
    combine,
    cosines_and_norms,
    initial,
    leading_axis,
    outcome,
    record,
    relative,
    split,
)


def krum_weights(gramian: Float[Array, "K K"], faulty: int, selected: int = 1) -> Weights:
    r"""Krum's weights of a Gramian; see `krum`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.
        faulty: number of gradients that may be anything.
        selected: number that are averaged.

    Returns:
        `Weights`: ``1/selected`` for those selected, else 0. The residual is zero, and infinite where more than
        ``faulty`` gradients are not finite, so that one of those selected is at infinite distance.

    Raises:
        ValueError: the Gramian is not square; K < 2 ``faulty`` + 3; ``selected`` is not in 1..K.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import krum_weights
        >>> grads = jnp.array([[1.0], [1.1], [1.05], [-50.0], [1.06]])
        >>> krum_weights(grads @ grads.T, 1).weights.tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0]

    Cost:
        One sort of K × K distances.
    """
    return _krum(*split(gramian), faulty, selected)


def krum(
    faulty: int, selected: int = 1, *, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Average the gradients that are nearest to their neighbours.

    .. math::
        s_i = \sum_{j\in N_i}\lVert g_i-g_j\rVert^2,\qquad |N_i| = K-f-2 \text{ nearest}

    The ``selected`` gradients with the smallest scores are averaged. A gradient that holds NaN or infinity is at
    infinite distance from all others and is left out; where too many do, that is a failure and not a zero.

    Args:
        faulty: f, the number of gradients that may be anything.
        selected: number that are averaged, 1 by default.
        objectives: number K. Where it is given, the state records the weights.
        throw: whether too many gradients that are not finite raise; the result is in the state anyway.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: K < 2 f + 3; ``selected`` is not in 1..K; leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.krum(1)
        >>> grads = jnp.array([[1.0], [1.1], [1.05], [jnp.nan], [1.06]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(1)))[0]]
        [1.06]

    Cost:
        One Gramian, one sort of K × K distances, one weighted sum.

    References:
        - Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
          Descent", 2017, https://papers.nips.cc/paper/2017/hash/f4b9ec30ad9f68f89b29639786cb62ef-Abstract.html
    """

    def init(params: optax.Params) -> AggregatorState:
        return initial(params, objectives, None)

    def update(
        grads: optax.Updates, state: AggregatorState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        del extra
        count = leading_axis(grads, params)
        finite = jnp.ones(count, bool)
        for leaf in jax.tree.leaves(grads):
            finite &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))

        def masked(leaf: Array) -> Array:
            return jnp.where(jnp.reshape(finite, (-1,) + (1,) * (leaf.ndim - 1)), leaf, 0)

        grads = jax.tree.map(masked, grads)
        cosines, norms = cosines_and_norms(grads)
        weights = _krum(cosines, norms, faulty, selected, finite)
        return checked(combine(grads, weights.weights), weights, throw), record(state, weights, None)

    return optax.GradientTransformationExtraArgs(init, update)


def _krum(
    cosines: Float[Array, "K K"],
    norms: Float[Array, " K"],
    faulty: int,
    selected: int,
    finite: Array | None = None,
) -> Weights:
    count = len(norms)
    if faulty < 0 or count < 2 * faulty + 3 or not 1 <= selected <= count:
        raise fault(
            expected="faulty ≥ 0, at least 2 faulty + 3 gradients and 1 ≤ selected ≤ K",
            got=f"K={count}, faulty={faulty}, selected={selected}",
            fix="Fewer cannot outvote the faulty ones.",
        )
    finite = jnp.isfinite(norms) if finite is None else finite
    # In units of the median norm, which the faulty ones cannot move far: a huge one must not make all others equal.
    median = jnp.nanmedian(jnp.where(finite, norms, jnp.nan))
    shares = norms / jnp.where(median > 0, median, relative(norms)[1])
    # (n_i − n_j)² + 2 n_i n_j (1 − cos) loses less than n_i² + n_j² − 2 g_i·g_j.
    gaps = shares[:, None] - shares[None, :]
    distances = gaps**2 + 2 * shares[:, None] * shares[None, :] * jnp.maximum(1 - cosines, 0)
    near = finite[:, None] & finite[None, :] & ~jnp.isnan(distances) & ~jnp.eye(count, dtype=bool)
    distances = jnp.where(near, distances, jnp.inf)
    scores = jnp.sum(jnp.sort(distances, axis=1)[:, : count - faulty - 2], axis=1)
    chosen = jnp.argsort(scores, stable=True)[:selected]
    done = jnp.all(jnp.isfinite(scores[chosen]))
    weights = jnp.zeros(count, norms.dtype).at[chosen].set(1 / selected)
    return Weights(weights, jnp.where(done, 0, jnp.inf).astype(norms.dtype), outcome(done))


def trimmed_mean(trim: int) -> optax.GradientTransformationExtraArgs:
    r"""Average each component without its ``trim`` largest and ``trim`` smallest entries.

    Component by component, with no weights. Up to ``trim`` gradients may be anything, NaN included, and every
    component stays within the range of the others.

    Args:
        trim: how many to leave out at either end; 0 gives the mean.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: K ≤ 2 ``trim``; leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.trimmed_mean(1)
        >>> grads = jnp.array([[1.0], [2.0], [1000.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(1)))[0].tolist()
        [2.0]

    Cost:
        One sort along the leading axis.

    References:
        - Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
          Rates", 2018, https://arxiv.org/abs/1803.01498
    """
    if trim < 0:
        raise fault(expected="trim ≥ 0", got=str(trim), fix="0 gives the mean.")

    def init(params: optax.Params) -> AggregatorState:
        return initial(params, None, None)

    def update(
        grads: optax.Updates, state: AggregatorState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        del extra
        count = leading_axis(grads, params)
        if count <= 2 * trim:
            raise fault(expected=f"more than {2 * trim} gradients", got=str(count), fix="Trim less.")
        # NaN sorts last, so that it is trimmed as the largest.
        kept = jax.tree.map(lambda leaf: jnp.mean(jnp.sort(leaf, axis=0)[trim : count - trim], axis=0), grads)
        return kept, state

    return optax.GradientTransformationExtraArgs(init, update)
