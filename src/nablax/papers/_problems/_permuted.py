"""Tasks of permuted digits that are drawn within a program, so that methods can be tuned on keys of their own."""

import jax
import jax.numpy as jnp

from ..._core import Key
from ._classifier import digits
from ._continual import Tasks


def drawn_tasks(key: Key, tasks: int, train: int = 1280) -> Tasks:
    """Permute the pixels of the 8 by 8 digits differently in each task but the first.

    Args:
        key: of the permutations and of the split into training and test set.
        tasks: in the sequence.
        train: training samples; the remaining ones of the 1797 test.

    Returns:
        Tasks, without leading axes before that of the tasks.
    """
    images, labels = digits()
    order_key, pixel_key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(labels))
    images, labels = (images[order] - jnp.mean(images)) / jnp.std(images), labels[order]
    others = jax.vmap(lambda k: jax.random.permutation(k, 64))(jax.random.split(pixel_key, tasks - 1))
    pixels = jnp.concatenate([jnp.arange(64)[None], others])
    views = jax.vmap(lambda places: images[:, places])(pixels)
    classes = jnp.broadcast_to(labels[None], (tasks, len(labels)))
    return Tasks(views[:, :train], classes[:, :train], views[:, train:], classes[:, train:])


__all__ = ["drawn_tasks"]
