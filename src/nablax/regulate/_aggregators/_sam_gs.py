"""SAM-GS: gradients brought to one length where their lengths differ, steered by momentum where they do not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import fault
from ._aggregator import (
    AggregatorState,
    closed_form,
    combine,
    cosines_and_norms,
    initial,
    inverse,
    judged,
    leading_axis,
    record,
    relative,
)


class _Memory(NamedTuple):
    momentum: PyTree
    dissimilarity: Float[Array, ""]
    steps: Int[Array, ""]


def sam_gs(
    objectives: int, *, threshold: float = 0.9, decay: float = 0.9, similarity_decay: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""Equalise the gradients' lengths where any pair's differ, else modulate each by its own momentum.

    .. math::
        \psi_{ij} = \frac{2\lVert g_i\rVert\lVert g_j\rVert}{\lVert g_i\rVert^2+\lVert g_j\rVert^2},\qquad
        d = \begin{cases}\bar n\sum_i g_i/\lVert g_i\rVert & \min\psi<\gamma\\
        \sum_i g_i\odot|\hat m_i|/\sqrt{\hat v} & \text{else}\end{cases}

    :math:`\bar n` is the mean length, :math:`m_i` the average of :math:`g_i` and
    :math:`v \leftarrow \beta v + (1-\beta)(1-\bar\psi)^2 + 10^{-8}`, with hats for bias correction. Opposite
    directions are left alone. The second case grows with the square of the gradients' unit, as published: follow it by
    an optimiser that does not mind (Adam), and expect jumps in size where the case changes.

    Args:
        objectives: number K of objectives.
        threshold: :math:`\gamma`, 0.9 by default.
        decay: of the momenta.
        similarity_decay: of the average dissimilarity.

    Returns:
        A gradient transformation; leading axis K in, none out. The state's weights are those of the first case, and
        ones in the second.

    Raises:
        ValueError: a threshold or decay is not in range; leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.sam_gs(2)
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 9.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0].tolist()
        [5.0, 5.0]

    Cost:
        One Gramian, three passes over the gradients; K gradients of memory.

    References:
        - Borsani, Rosani, Nicosia and Di Fatta, "Gradient Similarity Surgery in Multi-Task Deep Learning", 2025,
          https://arxiv.org/abs/2506.06130 and the authors' code, which the second case follows
    """
    if not (0 <= threshold <= 1 and 0 <= decay < 1 and 0 <= similarity_decay < 1):
        raise fault(
            expected="a threshold in [0, 1] and decays in [0, 1)",
            got=f"threshold={threshold}, decay={decay}, similarity_decay={similarity_decay}",
            fix="See the docstring.",
        )

    def init(params: optax.Params) -> AggregatorState:
        state = initial(params, objectives, None)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((objectives, *jnp.shape(leaf)), leaf.dtype), params)
        return state._replace(inner=_Memory(zeros, jnp.zeros((), state.residual.dtype), jnp.zeros((), jnp.int32)))

    def update(
        grads: optax.Updates, state: AggregatorState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        del extra
        count = leading_axis(grads, params)
        memory: _Memory = state.inner
        cosines, norms = cosines_and_norms(grads)
        shares, _ = relative(norms)
        squares = shares[:, None] ** 2 + shares[None, :] ** 2
        similar = 2 * shares[:, None] * shares[None, :] / jnp.where(squares > 0, squares, 1)
        similar = jnp.where(squares > 0, similar, 1)
        pair = ~jnp.tri(count, dtype=bool)
        average = jnp.sum(jnp.where(pair, similar, 0)) / max(count * (count - 1) // 2, 1)
        average = average if count > 1 else jnp.ones_like(average)
        steps = memory.steps + 1
        spread = similarity_decay * memory.dissimilarity + (1 - similarity_decay) * (1 - average) ** 2 + 1e-8
        spread = spread.astype(memory.dissimilarity.dtype)
        momentum = jax.tree.map(lambda m, g: (decay * m + (1 - decay) * g).astype(m.dtype), memory.momentum, grads)
        fresh = 1 - jnp.asarray(decay, norms.dtype) ** steps
        level = jnp.sqrt(spread / (1 - jnp.asarray(similarity_decay, spread.dtype) ** steps))
        unequal = jnp.any(pair & (similar < threshold))
        weights = jnp.where(unequal, jnp.mean(norms) * inverse(norms), 1)

        def modulated(leaf: Array, m: Array) -> Array:
            return jnp.sum(leaf * (jnp.abs(m) / fresh / level).astype(leaf.dtype), axis=0)

        equalised = combine(grads, weights)
        update = jax.tree.map(lambda e, g, m: jnp.where(unequal, e, modulated(g, m)), equalised, grads, momentum)
        return update, record(state, judged(closed_form(weights), cosines, norms), _Memory(momentum, spread, steps))

    return optax.GradientTransformationExtraArgs(init, update)
