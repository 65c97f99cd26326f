"""Trees as vectors: the inexact array leaves of a pytree in one flat array, everything else set aside."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._convolutions import canonical_convolutions
from ._errors import fault
from ._numerics import wide_dtype

Product = Callable[[PyTree], PyTree]


class Space(NamedTuple):
    """The vector space of a tree's inexact leaves.

    Attributes:
        flat: the tree's own values as a vector.
        tree: vector -> the tree's inexact leaves, in their dtypes; None in place of every other leaf.
        rows: the same for vectors stacked along a leading axis.
    """

    flat: Float[Array, " dim"]
    tree: Callable[[Float[Array, " dim"]], PyTree]
    rows: Callable[[Float[Array, "rows dim"]], PyTree]


def split(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Inexact array leaves, and all the others; None fills the gaps of both."""
    return eqx.partition(tree, eqx.is_inexact_array)


def tangent_of(at: PyTree, direction: PyTree) -> tuple[PyTree, PyTree]:
    """The inexact leaves of a direction at a point, and its others.

    Raises:
        ValueError: its inexact leaves are not those of the point.
    """
    tangent, rest = split(direction)
    given, wanted = (str(jax.tree.structure(tree)) for tree in (tangent, at))
    if given != wanted:
        raise fault(
            expected=f"a direction with the inexact leaves of the parameters, {wanted}",
            got=given,
            fix="Build it from the parameters, as by jax.tree.map or equinox.filter.",
        )
    return tangent, rest


def space(like: PyTree) -> Space:
    """Vectors for trees like this one; halves are widened to float32, in which sums over a network still count.

    Raises:
        ValueError: there is no inexact leaf, or a complex one.
    """
    inexact, _ = split(like)
    leaves = jax.tree.leaves(inexact)
    if not leaves or any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise fault(
            expected="a tree with real floating-point leaves",
            got=", ".join(str(leaf.dtype) for leaf in leaves) or "none",
            fix="Pass arrays of floats; split complex parameters into their real and imaginary parts.",
        )
    flat, unravel = ravel_pytree(inexact)
    narrow, wide = flat.dtype, wide_dtype(flat)

    def tree(vector: Float[Array, " dim"]) -> PyTree:
        return unravel(vector.astype(narrow))

    return Space(flat.astype(wide), tree, jax.vmap(tree))


def flat_product(product: Product, like: PyTree, vectors: Space) -> Callable[[Float[Array, " dim"]], Array]:
    """A linear map of trees as a linear map of vectors, with what does not depend on the vector computed once.

    A product with a Hessian runs the network forward and backward at the same point for every vector. The map is
    linear, hence its own linearisation, and taking that outside of the loop leaves the part that depends on the
    vector inside: about two thirds of the work. Convolutions in there get the layout that is fast in a loop.
    """
    _, others = split(like)

    def function(vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
        inexact, _ = split(product(eqx.combine(vectors.tree(vector), others)))
        image, _ = ravel_pytree(inexact)
        if image.shape != vector.shape:
            raise fault(
                expected=f"a product whose value is shaped like its argument, {vector.size} numbers",
                got=f"{image.size} numbers",
                fix="Return one number per coordinate, in the same tree.",
            )
        return image.astype(vector.dtype)

    return canonical_convolutions(jax.linearize(function, jnp.zeros_like(vectors.flat))[1])
