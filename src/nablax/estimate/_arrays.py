"""Numbers as they come, as arrays that can be differentiated in."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def as_arrays(tree: PyTree) -> PyTree:
    """Python's floats and NumPy's arrays as JAX's; other leaves as they are."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float | np.ndarray) else leaf, tree)


__all__ = ["as_arrays"]
