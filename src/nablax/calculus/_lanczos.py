"""Lanczos tridiagonalisation of a symmetric linear map on pytrees, with full reorthogonalisation."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import AbstractRecord, Product, fault, flat_product, norm, space, split, unit_vector


class Lanczos(AbstractRecord):
    r"""A symmetric linear map :math:`A` restricted to a Krylov space: :math:`Q A Q^{\top} = T`.

    Attributes:
        diagonal: of :math:`T`.
        off_diagonal: of :math:`T`; zero where the space was exhausted.
        basis: orthonormal rows of :math:`Q`: a tree like the start with leading axis ``steps``, None in place of
            leaves that are not inexact arrays.
        restarted: whether a basis vector was drawn afresh because the map leads nowhere new from those before
            it (a breakdown). Each restart begins a block of :math:`T` of its own.
        remainder: norm of the part of :math:`A q` that leaves the space at the last step; zero means that the
            space is invariant and the eigenvalues of :math:`T` are eigenvalues of :math:`A`.
    """

    diagonal: Float[Array, " steps"]
    off_diagonal: Float[Array, " rest"]
    basis: PyTree
    restarted: Bool[Array, " steps"]
    remainder: Float[Array, ""]

    def tridiagonal(self) -> Float[Array, "steps steps"]:
        """The matrix :math:`T`, dense."""
        return tridiagonal(self.diagonal, self.off_diagonal)


def lanczos(product: Product, start: PyTree, *, steps: int) -> Lanczos:
    r"""Tridiagonalise a symmetric linear map on the Krylov space of a start.

    .. math:: \beta_j q_{j+1} = A q_j - \alpha_j q_j - \beta_{j-1} q_{j-1}, \qquad \alpha_j = q_j^{\top} A q_j

    Every new vector is made orthogonal to all earlier ones, twice, so that no eigenvalue shows up as a ghost of
    itself. Where the recurrence ends, because the start lies in an invariant subspace, it goes on from a fresh
    direction with :math:`\beta_j = 0`, and ``restarted`` says so; repeated eigenvalues are found in this way.

    Args:
        product: the map, ``product(v) -> Av``, linear and symmetric (not checked here; :func:`top_eigenvalues`
            gives residuals that show it). JAX must be able to differentiate it.
        start: first direction, any pytree of real floats, not zero; its other leaves are passed on to the
            product untouched. Halves are computed with in float32.
        steps: size of the tridiagonal matrix, at most the number of parameters.

    Returns:
        A :class:`Lanczos`. A product that is not finite gives NaN from there on.

    Raises:
        equinox.EquinoxRuntimeError: the start is zero or not finite.
        ValueError: fewer than one step or more than there are parameters; no real floats; or a product that is not
            shaped like its argument.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import lanczos
        >>> result = lanczos(lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), steps=2)
        >>> [round(float(x), 4) for x in jnp.linalg.eigvalsh(result.tridiagonal())]
        [1.0, 3.0]

    Cost:
        ``steps`` products, and 8·steps²·dim operations to keep the basis orthogonal; steps × dim numbers of memory.
        One compiled loop; put it under ``jax.jit`` with the parameters as arguments to compile once for many calls.
        On a CPU the product's convolutions get the layout that XLA is fast at within loops.

    References:
        - Lanczos, "An iteration method for the solution of the eigenvalue problem of linear differential and
          integral operators", 1950, https://doi.org/10.6028/jres.045.026
        - Giraud, Langou, Rozložník and van den Eshof, "Rounding error analysis of the classical Gram-Schmidt
          orthogonalization process", 2005, https://doi.org/10.1007/s00211-005-0615-4 (twice is enough)
    """
    vectors = space(start)
    length = norm(vectors.flat)
    first = eqx.error_if(vectors.flat, ~jnp.isfinite(length) | (length == 0), "the start is zero or not finite")
    spare = jax.random.normal(jax.random.key(0), first.shape, first.dtype)
    result = iterate(flat_product(product, start, vectors), first, spare, steps)
    return Lanczos(
        result.diagonal, result.off_diagonal, vectors.rows(result.basis), result.restarted, result.dropped[-1]
    )


class Iteration(NamedTuple):
    """What the loop leaves: besides the public part, the whole of each product in the basis.

    Attributes:
        projected: row j holds the coordinates of the map's value at basis vector j in the basis; what lies outside
            the tridiagonal part shows how far the map is from symmetric. Zero where no step was taken.
        dropped: norm of the rest of that value, where no further basis vector carries it.
        taken: number of steps that were taken, all of them unless the loop was left early.
    """

    diagonal: Float[Array, " steps"]
    off_diagonal: Float[Array, " rest"]
    basis: Float[Array, "steps dim"]
    restarted: Bool[Array, " steps"]
    projected: Float[Array, "steps steps"]
    dropped: Float[Array, " steps"]
    taken: Int[Array, ""]


# Basis, next basis vector and largest number so far; coordinates of one product, what is left of it, and whether
# that is rounding alone.
Carry = tuple[Float[Array, "steps dim"], Float[Array, " dim"], Float[Array, ""]]
Row = tuple[Float[Array, " steps"], Float[Array, ""], Bool[Array, ""]]


def iterate(
    product: Callable[[Array], Array], start: Float[Array, " dim"], spare: Float[Array, " dim"], steps: int
) -> Iteration:
    """The loop, on vectors. Restarts are drawn from ``spare``, which may be the start itself if that is random."""
    begin, body = loop(product, start, spare, steps)
    (basis, _, _), rows = jax.lax.scan(body, begin, jnp.arange(steps))
    return gathered(basis, rows, jnp.array(steps))


def loop(
    product: Callable[[Array], Array], start: Float[Array, " dim"], spare: Float[Array, " dim"], steps: int
) -> tuple[Carry, Callable[[Carry, Int[Array, ""]], tuple[Carry, Row]]]:
    """Beginning and body of the loop."""
    dimension = start.size
    if not 1 <= steps <= dimension:
        raise fault(
            expected=f"between 1 and {dimension} steps, the number of parameters",
            got=str(steps),
            fix="A Krylov space has no more dimensions than the whole.",
        )
    # What is left of a product by rounding alone. Noise above this does no harm: it is as good as a fresh direction.
    tolerance = 10 * jnp.finfo(start.dtype).eps

    def outside(basis: Array, vector: Array) -> tuple[Array, Array]:
        # Once leaves an error of the size of the cancellation, twice does not.
        first = basis @ vector
        vector = vector - first @ basis
        second = basis @ vector
        return first + second, vector - second @ basis

    def afresh(basis: Array, step: Array) -> Array:
        # Shifted, so that no two restarts are the same.
        return unit_vector(outside(basis, jnp.roll(spare, step + 1))[1])

    def body(carry: Carry, step: Int[Array, ""]) -> tuple[Carry, Row]:
        basis, vector, scale = carry
        basis = basis.at[step].set(vector)
        image = product(vector)
        coordinates, image = outside(basis, image)
        remainder = norm(image)
        # Largest so far rather than this one's own: in a null space every product is rounding error alone.
        scale = jnp.maximum(scale, jnp.maximum(remainder, jnp.max(jnp.abs(coordinates))))
        ended = remainder <= tolerance * scale
        following = jax.lax.cond(ended, lambda: afresh(basis, step), lambda: unit_vector(image))
        return (basis, following, scale), (coordinates, remainder, ended)

    return (jnp.zeros((steps, dimension), start.dtype), unit_vector(start), jnp.zeros((), start.dtype)), body


def gathered(basis: Float[Array, "steps dim"], rows: Row, taken: Int[Array, ""]) -> Iteration:
    """What the first ``taken`` turns of the body leave; ``rows`` are stacked, zero where none was taken."""
    projected, remainders, ended = rows
    # Nothing carries on what the last step leaves.
    cut = ended.at[taken - 1].set(True)
    off_diagonal = jnp.where(cut, 0, remainders)[:-1]
    return Iteration(
        diagonal=jnp.diagonal(projected),
        off_diagonal=off_diagonal,
        basis=basis,
        restarted=jnp.concatenate([jnp.zeros((1,), bool), ended[:-1]]),
        projected=projected + jnp.diag(off_diagonal, 1),
        dropped=jnp.where(cut, remainders, 0),
        taken=taken,
    )


def checked_symmetric(value: Array, projections: Float[Array, "*probes steps steps"], like: PyTree) -> Array:
    r"""The value, which raises where a map is not symmetric: where its projection :math:`P = Q A Q^{\top}` is not.

    The iteration has the whole of P at hand, so this costs no product. What remains of
    :math:`\lVert P - P^{\top}\rVert / \lVert P\rVert` in a symmetric map is the rounding of its products, which
    through a network comes to many times the precision of its numbers: the cube root of that is where the line is.
    """
    precision = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(split(like)[0]))

    def size(matrix: Array) -> Array:
        return norm(matrix.reshape(-1))

    stack = projections.reshape(-1, *projections.shape[-2:])
    skew, whole = (jax.vmap(size)(part) for part in (stack - stack.mT, stack))
    return eqx.error_if(
        value,
        jnp.any(skew > precision ** (1 / 3) * whole),
        "expected a symmetric map, got one whose products in the basis are not symmetric. "
        "Pass one that is, such as v -> (A v + Aᵀ v) / 2, or look at A by calculus.arnoldi.",
    )


def tridiagonal(diagonal: Float[Array, " steps"], off_diagonal: Float[Array, " rest"]) -> Float[Array, "steps steps"]:
    """The dense matrix."""
    return jnp.diag(diagonal) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1)
