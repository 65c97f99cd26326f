"""The curvature in a Krylov space of the gradient, decomposed: what functions of it make of the gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Product, norm, space
from ...calculus import lanczos


class Spectrum(NamedTuple):
    """A gradient among eigenvectors of the curvature, which are exact in a space that the curvature does not leave.

    Attributes:
        eigenvalues: ascending, in units of the curvature.
        coordinates: of the gradient on each eigenvector.
        tree: coordinates -> tree like the parameters, on these eigenvectors.
    """

    eigenvalues: Float[Array, " dimensions"]
    coordinates: Float[Array, " dimensions"]
    tree: Callable[[Float[Array, " dimensions"]], PyTree]


def krylov(product: Product, gradient: PyTree, dimensions: int) -> Spectrum:
    """Decompose a symmetric map on the Krylov space that its powers span of the gradient.

    The gradient lies in the space, so that no part of it is lost, and with as many dimensions as there are parameters
    every function of the map is exact.

    Args:
        product: ``product(vector) -> vector``, linear and symmetric.
        gradient: a tree of floating arrays; where it is zero the space is that of some other direction.
        dimensions: of the space; where there are fewer parameters, as many.

    Returns:
        The spectrum; of a gradient that is not finite its coordinates are not either.
    """
    vectors = space(gradient)
    length = norm(vectors.flat)
    usable = jnp.isfinite(length) & (length > 0)
    start = jnp.where(usable, vectors.flat, jnp.ones_like(vectors.flat))
    found = lanczos(lambda v: space(product(vectors.tree(v))).flat, start, steps=min(dimensions, start.size))
    eigenvalues, turn = jnp.linalg.eigh(found.tridiagonal())
    return Spectrum(eigenvalues, length * turn[0], lambda coordinates: vectors.tree((turn @ coordinates) @ found.basis))
