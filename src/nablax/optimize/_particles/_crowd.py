"""Particles on a leading axis."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._core import fault


def crowd(start: PyTree, *, least: int) -> int:
    """How many particles there are.

    Raises:
        ValueError: arrays disagree, or there are too few.
    """
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(start)}
    if len(counts) != 1 or counts == {()} or min(counts)[0] < least:
        raise fault(
            expected=f"particles, at least {least}, on a leading axis that all arrays share",
            got=f"leading axes {sorted(counts)}",
            fix="Stack them: jax.vmap(init)(jax.random.split(key, 200)), for one.",
        )
    return int(min(counts)[0])
