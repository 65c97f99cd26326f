"""What is promised of a direction is held to on the vector itself: no conflict, and nothing that is only rounding."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import divide, tree_norm
from ._arithmetic import combine, slopes_along, with_unit_diagonal
from ._complementarity import solve_one
from ._state import Weights

# Each pass takes the conflict that is left to the rounding of what it corrects; a second is rarely needed.
_PASSES = 3


def rounding(grads: PyTree, norms: Float[Array, " K"]) -> float:
    r"""Share of :math:`\sum_i|w_i|\lVert g_i\rVert` below which a weighted sum of gradients is rounding.

    Entries rounded to a machine epsilon :math:`\epsilon_g` are off by 0.29 of it at root mean square, and so is the sum
    at most; K products added up in the solve's precision are off by :math:`\sqrt K\epsilon/2`, for which 32 is allowed.
    """
    coarsest = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(grads))
    return coarsest + 32 * float(jnp.finfo(norms.dtype).eps)


@jax.jit
def at_rest(grads: PyTree, vector: PyTree, weights: Float[Array, " K"], norms: Float[Array, " K"]) -> PyTree:
    """The weighted sum; zero where the gradients cancel to rounding."""
    length = tree_norm(vector).astype(norms.dtype)
    noise = divide(length, jnp.sum(jnp.abs(weights) * norms)) <= rounding(grads, norms)
    return jax.tree.map(lambda leaf: jnp.where(noise, jnp.zeros_like(leaf), leaf), vector)


@jax.jit
def without_conflict(
    grads: PyTree, vector: PyTree, found: Weights, cosines: Float[Array, "K K"], norms: Float[Array, " K"]
) -> tuple[PyTree, Weights]:
    r"""The nearest vector, and its weights, that no gradient is against.

    A Gramian has an angle's square, and so does not resolve angles below :math:`\sqrt\epsilon` between gradients
    that are nearly parallel or opposite; slopes of the vector itself are right to :math:`\epsilon`. What conflict they
    show is taken out by projecting as `guard` does, in terms of the same Gramian: as in iterative refinement the
    rounding of a pass is that of the correction. Nothing is done where no slope is below a rounding of zero.
    """
    matrix = with_unit_diagonal(cosines)
    coarsest = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(grads))

    def going(carry: tuple[PyTree, Array, Array, Array, Array]) -> Array:
        _, _, slopes, _, passes = carry
        return (jnp.min(slopes) < -coarsest) & (passes < _PASSES)

    def project(carry: tuple[PyTree, Array, Array, Array, Array]) -> tuple[PyTree, Array, Array, Array, Array]:
        vector, weights, slopes, size, passes = carry
        x = solve_one(matrix, slopes).x
        added = combine(grads, divide(x, norms))
        vector = jax.tree.map(lambda v, a: v + (size * a.astype(size.dtype)).astype(v.dtype), vector, added)
        return vector, weights + size * divide(x, norms), *slopes_along(grads, vector, norms), passes + 1

    start = (vector, found.weights, *slopes_along(grads, vector, norms), jnp.asarray(0))
    vector, weights, *_ = jax.lax.while_loop(going, project, start)
    return vector, found._replace(weights=weights)
