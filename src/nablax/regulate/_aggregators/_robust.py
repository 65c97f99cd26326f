"""Krum and the trimmed mean: what some wrong gradients among many cannot move far."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import fault, peak
from ._aggregator import aggregator, from_step
from ._arithmetic import finite, split
from ._checks import judged_by_vector
from ._state import Weights, outcome


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
    cosines, norms = split(gramian)
    return _krum(cosines, norms, jnp.isfinite(norms), faulty, selected)


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
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

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

    def prepare(grads: PyTree, nothing: None) -> tuple[PyTree, Bool[Array, " K"]]:
        """Bad rows become zeros, for 0 · NaN is no 0 in the sum; which they were is told to the weighting."""
        del nothing
        each = [finite(leaf, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(grads)]
        valid = jnp.all(jnp.stack(each), axis=0)

        def masked(leaf: Array) -> Array:
            return jnp.where(valid.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)

        return jax.tree.map(masked, grads), valid

    def weigh(cosines: Array, norms: Array, valid: Bool[Array, " K"]) -> tuple[Weights, None]:
        return _krum(cosines, norms, valid, faulty, selected), None

    return aggregator(weigh, prepare=prepare, objectives=objectives, throw=throw)


def _krum(
    cosines: Float[Array, "K K"],
    norms: Float[Array, " K"],
    valid: Bool[Array, " K"],
    faulty: int,
    selected: int,
) -> Weights:
    count = len(norms)
    if faulty < 0 or count < 2 * faulty + 3 or not 1 <= selected <= count:
        raise fault(
            expected="faulty ≥ 0, at least 2 faulty + 3 gradients and 1 ≤ selected ≤ K",
            got=f"K={count}, faulty={faulty}, selected={selected}",
            fix="Fewer cannot outvote the faulty ones.",
        )
    # In units of the median norm, which the faulty ones cannot move far: a huge one must not make all others equal.
    median = jnp.nanmedian(jnp.where(valid, norms, jnp.nan))
    shares = norms / jnp.where(median > 0, median, peak(norms))
    # (n_i − n_j)² + 2 n_i n_j (1 − cos) loses less than n_i² + n_j² − 2 g_i·g_j.
    gaps = shares[:, None] - shares[None, :]
    distances = gaps**2 + 2 * shares[:, None] * shares[None, :] * jnp.maximum(1 - cosines, 0)
    near = valid[:, None] & valid[None, :] & ~jnp.isnan(distances) & ~jnp.eye(count, dtype=bool)
    distances = jnp.where(near, distances, jnp.inf)
    scores = jnp.sum(jnp.sort(distances, axis=1)[:, : count - faulty - 2], axis=1)
    chosen = jnp.argsort(scores, stable=True)[:selected]
    done = jnp.all(jnp.isfinite(scores[chosen]))
    weights = jnp.zeros(count, norms.dtype).at[chosen].set(1 / selected)
    return Weights(weights, jnp.where(done, 0, jnp.inf).astype(norms.dtype), outcome(done))


def trimmed_mean(
    trim: int, *, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Average each component without its ``trim`` largest and ``trim`` smallest entries.

    Component by component, with no weights. Up to ``trim`` gradients may be anything, NaN included, and every
    component stays within the range of the others; where more are not finite, that is a failure.

    Args:
        trim: how many to leave out at either end; 0 gives the mean.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

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

    def step(grads: PyTree, nothing: None) -> tuple[PyTree, Weights, None]:
        count = len(jax.tree.leaves(grads)[0])
        if count <= 2 * trim:
            raise fault(expected=f"more than {2 * trim} gradients", got=str(count), fix="Trim less.")
        # NaN sorts last, so that it is trimmed as the largest.
        kept = jax.tree.map(lambda leaf: jnp.mean(jnp.sort(leaf, axis=0)[trim : count - trim], axis=0), grads)
        return kept, judged_by_vector(kept), nothing

    return from_step(step, weighted=False, objectives=objectives, throw=throw)
