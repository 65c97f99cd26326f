"""Bloop: an auxiliary loss that may move only where the main loss does not care."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..._core import fault, scaled
from ._aggregator import from_step
from ._checks import judged_by_vector
from ._state import Weights


def bloop(
    strength: float = 0.1, *, decay: float = 0.9, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Add to the main gradient what of the auxiliary one is orthogonal to the main gradient's running average.

    .. math::
        d = g_0 + \lambda\Big(a - \frac{\langle a, m\rangle}{\lVert m\rVert^2}m\Big),\qquad
        m \leftarrow \beta m + (1-\beta)g_0,\qquad a = \sum_{i\ge1}g_i

    The first objective is the main one, the others are added up to the auxiliary. The average is what makes the
    projection right for mini-batches: noise in :math:`g_0` would let most of the auxiliary gradient through, along the
    true main gradient too, and the stationary points would be those of a mixture of losses. With ``decay=0`` this is
    projection against the current gradient.

    Args:
        strength: :math:`\lambda`, by default the authors' 0.1.
        decay: :math:`\beta`, by default the authors' 0.9; where batches are noisy a longer average, of 0.99, lets less
            of the auxiliary gradient through along the main one.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out. ``state.inner`` is the average.

    Raises:
        ValueError: the decay is not in [0, 1); fewer than two objectives.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.bloop(1.0)
        >>> grads = jnp.array([[1.0, 0.0], [-5.0, 2.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0].tolist()
        [1.0, 2.0]

    Cost:
        Four passes over the gradients, one gradient of memory.

    References:
        - Hsieh, Thornton, Ndiaye, Klein, Cuturi and Ablin, "Careful with that Scalpel: Improving Gradient Surgery with
          an EMA", 2024, https://arxiv.org/abs/2402.02998 and the authors' code, in which too the average takes in the
          current gradient before the projection (it starts from the first gradient there, from zero here: as only its
          direction counts, the first gradient has the weight of any other)
    """
    if not 0 <= decay < 1:
        raise fault(expected="a decay in [0, 1)", got=str(decay), fix="0.99 averages over about 100 steps.")

    def step(grads: PyTree, average: PyTree) -> tuple[PyTree, Weights, PyTree]:
        if len(jax.tree.leaves(grads)[0]) < 2:
            raise fault(expected="two objectives or more", got="1", fix="The first is main, the others auxiliary.")
        average = jax.tree.map(lambda m, g: (decay * m + (1 - decay) * g[0]).astype(m.dtype), average, grads)
        # In units of their largest entries, so that no square leaves the number range.
        direction, _ = scaled(average)
        auxiliary, size = scaled(jax.tree.map(lambda g: jnp.sum(g[1:], axis=0), grads))
        square = optax.tree.vdot(direction, direction)
        share = optax.tree.vdot(auxiliary, direction) / jnp.where(square > 0, square, 1)
        update = jax.tree.map(
            lambda g, a, m: (g[0] + strength * (size * (a - share * m))).astype(g.dtype), grads, auxiliary, direction
        )
        return update, judged_by_vector(update), average

    return from_step(
        step,
        weighted=False,
        memory=lambda params: jax.tree.map(jnp.zeros_like, params),
        objectives=objectives,
        throw=throw,
    )
