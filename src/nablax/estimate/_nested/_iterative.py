"""A linear solve without the matrix, to a residual relative to the right-hand side, which is looked at."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import PyTree

from ..._core import canonical_convolutions, divide, tree_norm

# Between the residual that the iteration carries along and the true one; beyond it the solve has failed.
_SLACK = 10.0


class Iterative(lx.AbstractLinearSolver):
    r"""Solve :math:`Au=b` by conjugate gradients or GMRES until :math:`\lVert Au-b\rVert\le` ``tolerance`` ‖b‖.

    Lineax's iterations take a relative tolerance entry by entry: where an entry of b is 0 its share of the residual is
    0/0 or infinite, and the iteration ends before it has begun, or never. Here b has length 1, and the tolerance is an
    absolute one. What is left is then computed anew, and more than ten times the tolerance fails aloud.

    Args:
        tolerance: of the residual, relative to the length of b.
        symmetric: A is symmetric and positive definite, and is tagged so: conjugate gradients instead of GMRES.

    Cost: a product an iteration, one more at the end.

    References:
        - Lineax, https://docs.kidger.site/lineax/api/solvers/ (its iterations, and their tolerances)
    """

    tolerance: float = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> lx.AbstractLinearOperator:
        """The operator, linearised once."""
        return lx.linearise(operator)

    def compute(self, state: lx.AbstractLinearOperator, vector: PyTree, options: dict[str, Any]) -> tuple:
        """The solution, whether its residual is small, and what the iteration says of itself."""

        @canonical_convolutions  # in reverse mode of the transposed operator, which is not made before
        def product(u: PyTree) -> PyTree:
            return state.mv(u)

        tags = lx.positive_semidefinite_tag if self.symmetric else ()
        operator = lx.FunctionLinearOperator(product, state.in_structure(), tags)
        length = tree_norm(vector)
        unit = jax.tree.map(lambda b: divide(b, length.astype(b.dtype)), vector)
        solver = (
            lx.CG(rtol=self.tolerance, atol=self.tolerance, norm=tree_norm)
            if self.symmetric
            else lx.GMRES(rtol=self.tolerance, atol=self.tolerance, norm=tree_norm, restart=50, stagnation_iters=200)
        )
        found, result, stats = solver.compute(solver.init(operator, {}), unit, {})
        rest = tree_norm(jax.tree.map(jnp.subtract, unit, state.mv(found)))
        reached = rest <= _SLACK * self.tolerance
        result = lx.RESULTS.where(reached, result, lx.RESULTS.stagnation)
        return jax.tree.map(lambda u: length.astype(u.dtype) * u, found), result, stats

    def transpose(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple:
        """The same of the transposed operator."""
        return state.transpose(), {}

    def conj(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple:
        """The same of the conjugate operator."""
        return lx.conj(state), {}

    def assume_full_rank(self) -> bool:
        """A singular operator is not served."""
        return True


__all__ = ["Iterative"]
