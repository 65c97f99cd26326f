"""A network whose weights are one vector while it is trained."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


class Flat(eqx.Module):
    """A model, its floating arrays laid end to end.

    An optimiser, an average of the weights and a check that they are finite work number by number. On some forty arrays
    each of them is some forty small programs to compile, and as many to start in each step; on a vector it is one.

    Attributes:
        vector: the numbers, in the order of the model's leaves.
        arrays: shapes in place of the arrays.
        rest: what is no floating array.

    Example:
        >>> import jax.numpy as jnp
        >>> flat = Flat.of({"weight": jnp.ones((2, 3)), "bias": jnp.zeros(2)})
        >>> flat.vector.shape, flat.whole()["weight"].shape
        ((8,), (2, 3))
    """

    vector: Float[Array, " numbers"]
    arrays: PyTree
    rest: PyTree

    @classmethod
    def of(cls, model: PyTree) -> Self:
        """Lay a model's arrays end to end; they are all of one type."""
        arrays, rest = eqx.partition(model, eqx.is_inexact_array)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
        return cls(jnp.asarray(np.concatenate([np.ravel(x) for x in jax.tree.leaves(arrays)])), shapes, rest)

    def whole(self) -> Any:
        """The model again; in NumPy's arrays outside of a program."""
        shapes, tree = jax.tree.flatten(self.arrays)
        ends = np.cumsum([shape.size for shape in shapes])
        # Outside of a program each array's split would be compiled by itself.
        split: Any = jnp.split if isinstance(self.vector, jax.core.Tracer) else np.split
        parts = split(self.vector, ends[:-1])
        arrays = [part.reshape(shape.shape) for part, shape in zip(parts, shapes, strict=True)]
        return eqx.combine(jax.tree.unflatten(tree, arrays), self.rest)


__all__ = ["Flat"]
