"""A product with the derivative of a solution, and how well its equations are solved."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, canonical_convolutions, check_like, divide, exact, split, tree_norm
from .._arrays import as_arrays
from ._implicit import default_solver, implicit


class ImplicitError(AbstractRecord):
    r"""What is left of the two equations behind an implicit derivative.

    Attributes:
        condition: :math:`\lVert F(x,\theta)\rVert`, unit of the condition: how far x is from a solution.
        residual: :math:`\lVert A^{\top}u-v\rVert/\lVert v\rVert` of the linear system, computed anew from u. NaN where
            the solver has found no numbers, as of a singular A; 0 where v is 0.
    """

    condition: Float[Array, ""]
    residual: Float[Array, ""]


def implicit_vjp(
    solve: Callable[..., PyTree],
    condition: Callable[..., PyTree],
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
    symmetric: bool = False,
) -> Callable[..., tuple[PyTree, Callable[[PyTree], tuple[tuple, ImplicitError]]]]:
    r"""Solve, and pull a cotangent back through the solution, with the residuals of both in hand.

    The derivative of `nablax.estimate.implicit`, as `jax.vjp` has it. Of a cotangent v of the solution

    .. math:: A^{\top}u=v,\qquad \bar\theta=-(\partial_2F)^{\top}u

    A linear solve that leaves the residual :math:`r=A^{\top}u-v` makes :math:`\bar\theta` wrong by
    :math:`\tfrac{\partial x}{\partial\theta}^{\top}r`. Where `implicit` raises, this one returns what the solver has
    and says how much is left: for loose solves, and to see which tolerance is needed.

    Args:
        solve: as for `implicit`.
        condition: as for `implicit`.
        linear_solver: as for `implicit`, of the transposed system.
        symmetric: as for `implicit`.

    Returns:
        ``(init, *args) -> (x, pull)`` with ``pull(cotangent) -> (cotangents, error)``: a tuple with one tree for each
        of ``args``, None for leaves that are no inexact arrays, and an `ImplicitError`. Both may be differentiated
        again; the solves of that are those of `implicit`, and raise.

    Raises:
        ValueError: as for `implicit`, or a cotangent that is not shaped like the solution.

    Example:
        >>> import jax, jax.numpy as jnp, lineax as lx
        >>> from nablax import estimate
        >>> matrix = jnp.diag(jnp.array([1.0, 10.0, 100.0]))
        >>> loose = lx.GMRES(rtol=0.1, atol=0.1)
        >>> pulled = estimate.implicit_vjp(
        ...     lambda x, b: jnp.linalg.solve(matrix, b), lambda x, b: matrix @ x - b, linear_solver=loose
        ... )
        >>> x, pull = pulled(jnp.zeros(3), jnp.ones(3))
        >>> (slope,), error = pull(jnp.ones(3))
        >>> bool(error.condition < 1e-6), bool(0 < error.residual < 0.1 * 3 ** 0.5)
        (True, True)

    Cost: the solver once; a linear solve a cotangent, one more product with A and one value of the condition.

    References: that of `implicit`.
    """
    solution = implicit(solve, condition, linear_solver=linear_solver, symmetric=symmetric)

    def pulled(init: PyTree, *args: Any) -> tuple[PyTree, Callable[[PyTree], tuple[tuple, ImplicitError]]]:
        args = as_arrays(args)
        x = solution(init, *args)
        unknown, held = split(x)
        moving, still = split(args)

        def at(unknown: PyTree, moving: tuple) -> PyTree:
            value = condition(eqx.combine(unknown, held), *eqx.combine(moving, still))
            check_like(value, x, what="a condition whose value", fix="Return one number for each unknown.")
            return split(value)[0]

        def transposed(u: PyTree, unknown: PyTree, moving: tuple) -> PyTree:
            return jax.vjp(lambda unknown: at(unknown, moving), unknown)[1](u)[0]

        def solved(start: PyTree, cotangent: PyTree, unknown: PyTree, moving: tuple) -> PyTree:
            operator = lx.FunctionLinearOperator(
                canonical_convolutions(lambda u: transposed(u, unknown, moving)),
                jax.eval_shape(lambda: unknown),
                lx.positive_semidefinite_tag if symmetric else (),
            )
            solver = linear_solver or default_solver(unknown, symmetric)
            return lx.linear_solve(operator, cotangent, solver, throw=False).value

        def left(u: PyTree, cotangent: PyTree, unknown: PyTree, moving: tuple) -> PyTree:
            return jax.tree.map(jnp.subtract, transposed(u, unknown, moving), cotangent)

        # Itself a solution by a condition, so that its own derivatives hold whatever it has left.
        adjoint = implicit(solved, left, linear_solver=linear_solver, symmetric=symmetric)

        @exact
        def pull(cotangent: PyTree) -> tuple[tuple, ImplicitError]:
            wanted, _ = split(cotangent)
            check_like(wanted, unknown, what="a cotangent that", fix="Pass one number for each of the solution's.")
            u = adjoint(jax.tree.map(jnp.zeros_like, unknown), wanted, unknown, moving)
            value, back = jax.vjp(lambda moving: at(unknown, moving), moving)
            rest = tree_norm(left(u, wanted, unknown, moving))
            error = ImplicitError(tree_norm(value), divide(rest, tree_norm(wanted)))
            return jax.tree.map(jnp.negative, back(u)[0]), error

        return x, pull

    return pulled


__all__ = ["ImplicitError", "implicit_vjp"]
