"""SAM-GS: gradients brought to one length where their lengths differ, steered by momentum where they do not."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import divide, fault, peak, wide_dtype
from ._aggregator import aggregator
from ._state import Weights


class _Memory(NamedTuple):
    """Averages of the gradients and of how unlike their lengths are, and the steps they were taken over."""

    momentum: PyTree
    dissimilarity: Float[Array, ""]
    steps: Int[Array, ""]


def sam_gs(
    *,
    objectives: int,
    threshold: float = 0.7,
    decay: float = 0.9,
    similarity_decay: float = 0.99,
    throw: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Equalise the gradients' lengths where they differ on average, else modulate each by its own momentum.

    .. math::
        \psi_{ij} = \frac{2\lVert g_i\rVert\lVert g_j\rVert}{\lVert g_i\rVert^2+\lVert g_j\rVert^2},\qquad
        d = \begin{cases}\bar n\sum_i g_i/\lVert g_i\rVert & \bar\psi<\gamma\\
        \sum_i g_i\odot|\hat m_i|/\sqrt{\hat v} & \text{else}\end{cases}

    :math:`\bar n` is the mean length, :math:`\bar\psi` the mean over pairs, :math:`m_i` the average of :math:`g_i` and
    :math:`v \leftarrow \beta v + (1-\beta)(1-\bar\psi)^2 + 10^{-8}`, with hats for bias correction. Opposite
    directions are left alone. The second case grows with the square of the gradients' unit, as published: follow it by
    an optimiser that does not mind (Adam), and expect jumps in size where the case changes.

    Args:
        objectives: number K, asked for by the memory; see `aggregator`.
        threshold: :math:`\gamma`. The default is the authors' for networks, met by two lengths 2.4 times apart; for
            problems in the plane they take 0.1, 20 times apart.
        decay: of the momenta; the authors'.
        similarity_decay: of the average dissimilarity; the authors'.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out. The state's weights are those of the first case, and
        ones in the second.

    Raises:
        ValueError: a threshold or decay is not in range; leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.sam_gs(objectives=2)
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 9.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0].tolist()
        [5.0, 5.0]

    Cost:
        One Gramian, three passes over the gradients; K gradients of memory.

    References:
        - Borsani, Rosani, Nicosia and Di Fatta, "Gradient Similarity Surgery in Multi-Task Deep Learning", 2025,
          https://arxiv.org/abs/2506.06130 and the authors' code for supervised learning, which this follows (for
          control they equalise where any single pair differs)
    """
    if not (0 <= threshold <= 1 and 0 <= decay < 1 and 0 <= similarity_decay < 1):
        raise fault(
            expected="a threshold in [0, 1] and decays in [0, 1)",
            got=f"threshold={threshold}, decay={decay}, similarity_decay={similarity_decay}",
            fix="See the docstring.",
        )

    def memory(params: PyTree) -> _Memory:
        zeros = jax.tree.map(lambda leaf: jnp.zeros((objectives, *jnp.shape(leaf)), leaf.dtype), params)
        return _Memory(zeros, jnp.zeros((), wide_dtype(params)), jnp.zeros((), jnp.int32))

    def prepare(grads: PyTree, kept: _Memory) -> tuple[PyTree, tuple[_Memory, PyTree]]:
        momentum = jax.tree.map(lambda m, g: (decay * m + (1 - decay) * g).astype(m.dtype), kept.momentum, grads)
        steps = kept.steps + 1
        dtype = kept.dissimilarity.dtype
        fresh = 1 - jnp.asarray(decay, dtype) ** steps

        # Summed here, where the gradients are, at a dissimilarity of 1, for what it is takes their norms.
        def modulated(leaf: Array, m: Array) -> Array:
            return jnp.sum(leaf.astype(dtype) * (jnp.abs(m) / fresh), axis=0)

        return grads, (kept._replace(momentum=momentum, steps=steps), jax.tree.map(modulated, grads, momentum))

    def weigh(cosines: Array, norms: Array, seen: tuple[_Memory, PyTree]) -> tuple[Weights, tuple]:
        del cosines
        kept, modulated = seen
        similar = _similarities(norms)
        unlike = jnp.sum(1 - similar) / max(len(similar), 1)
        spread = similarity_decay * kept.dissimilarity + (1 - similarity_decay) * unlike**2 + 1e-8
        kept = kept._replace(dissimilarity=spread.astype(kept.dissimilarity.dtype))
        unequal = jnp.sum(similar) < threshold * len(similar)
        weights = jnp.where(unequal, divide(jnp.mean(norms), norms), 1)
        return Weights(weights), (kept, modulated, unequal)

    def finish(vector: PyTree, seen: tuple[_Memory, PyTree, Array]) -> tuple[PyTree, _Memory]:
        kept, modulated, unequal = seen
        # The average starts from zero: what it is short of is made up for.
        fresh = 1 - jnp.asarray(similarity_decay, kept.dissimilarity.dtype) ** kept.steps
        level = jnp.sqrt(kept.dissimilarity / fresh)

        def chosen(equal: Array, other: Array) -> Array:
            return jnp.where(unequal, equal, (other / level).astype(equal.dtype))

        return jax.tree.map(chosen, vector, modulated), kept

    return aggregator(weigh, prepare=prepare, finish=finish, memory=memory, objectives=objectives, throw=throw)


def _similarities(norms: Float[Array, " K"]) -> Float[Array, " pairs"]:
    """ψ of every pair: 1 for equal lengths, two of zero included."""
    shares = norms / peak(norms)
    i, j = jnp.triu_indices(len(norms), 1)
    return divide(2 * shares[i] * shares[j], shares[i] ** 2 + shares[j] ** 2, otherwise=1)
