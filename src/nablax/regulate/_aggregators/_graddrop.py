"""GradDrop: one sign for every component, drawn by how far the gradients agree on it."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import Key, check_key
from ._aggregator import from_step
from ._checks import judged_by_vector
from ._state import Weights


def graddrop(*, key: Key, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Keep, in every component, only the entries of one randomly drawn sign.

    .. math::
        d = \begin{cases}\sum_i\max(g_i,0) & U<P\\ \sum_i\min(g_i,0) & U\ge P\end{cases},\qquad
        P = \tfrac12\Big(1+\frac{\sum_i g_i}{\sum_i|g_i|}\Big),\quad U\sim\mathcal{U}(0,1)

    Component by component, with no Gramian and no weights. In the mean over draws d is
    :math:`(s_+^2-s_-^2)/(s_++s_-) = s_+-s_- = \sum_i g_i` with :math:`s_\pm` the sums of either sign: the sum of the
    gradients, made noisy where they disagree.

    Args:
        key: of the draws; the state holds it and splits it at each step.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: ``key`` is none; leading axes disagree.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.graddrop(key=jax.random.key(0))
        >>> grads = jnp.array([[1.0, 2.0], [3.0, -2.0]])
        >>> update, _ = aggregator.update(grads, aggregator.init(jnp.zeros(2)))
        >>> float(update[0]), abs(float(update[1]))
        (4.0, 2.0)

    Cost:
        A few passes over the gradients.

    References:
        - Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", 2020,
          https://arxiv.org/abs/2010.06808 (on parameters' gradients, without leak)
    """
    check_key(key)

    def step(grads: PyTree, carried: Key) -> tuple[PyTree, Weights, Key]:
        leaves, structure = jax.tree.flatten(grads)
        carried, *keys = jax.random.split(carried, len(leaves) + 1)
        kept = jax.tree.unflatten(structure, [_draw(leaf, k) for leaf, k in zip(leaves, keys)])
        return kept, judged_by_vector(kept), carried

    return from_step(step, weighted=False, memory=lambda params: key, objectives=objectives, throw=throw)


def _draw(leaf: Array, key: Key) -> Array:
    positive = jnp.sum(jnp.maximum(leaf, 0), axis=0)
    negative = jnp.sum(jnp.minimum(leaf, 0), axis=0)
    total = positive - negative
    share = jnp.where(total > 0, positive / jnp.where(total > 0, total, 1), 0)
    drawn = jnp.where(jax.random.uniform(key, share.shape, share.dtype) < share, positive, negative)
    # An infinite entry makes the share NaN, which compares as false: 0 · ∞ keeps it from passing for a zero.
    return drawn + 0 * total
