"""Derivatives of a solution by the condition that it satisfies, whatever solver found it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import PyTree

from ..._core import canonical_convolutions, check_callable, check_floats, check_instance, check_like, split
from .._arrays import as_arrays
from ._iterative import Iterative

# Up to this many unknowns the Jacobian is formed and factorised: exact, and quicker than iterations.
DENSE = 256


def implicit(
    solve: Callable[..., PyTree],
    condition: Callable[..., PyTree],
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
    symmetric: bool = False,
) -> Callable[..., PyTree]:
    r"""Give a solver the derivatives of its solution, of any order, in forward and reverse mode.

    At a solution of :math:`F(x^\star,\theta)=0`,

    .. math:: \frac{\partial x^\star}{\partial\theta} = -A^{-1}\,\partial_2F, \qquad A=\partial_1F(x^\star,\theta)

    which takes one linear solve a product, in reverse mode with the transpose of A. Nothing is known of the iterations,
    so that they may be any code that JAX can trace. F is the gradient of what is minimised, :math:`T(x,\theta)-x` of a
    fixed point, :math:`\operatorname{proj}(x-\eta\nabla f)-x` of a minimum under constraints.

    The derivative is that of a point where F is zero. Where the solver stops short of it by :math:`\delta x`, it is
    wrong by a share of :math:`\delta x` that no linear solve can see. `nablax.estimate.implicit_vjp` reports how far F
    is from zero, and the linear solve's residual.

    Args:
        solve: ``solve(init, *args) -> x``, shaped like ``init``. It is not differentiated.
        condition: ``condition(x, *args) -> F``, shaped like ``x``, differentiable.
        linear_solver: of :math:`A u = b`, any of Lineax's. Default: A is formed and factorised for at most 256
            unknowns; for more, GMRES (conjugate gradients where ``symmetric``) to a relative residual of 1e-6 in single
            and 1e-10 in double precision, matrix-free. One of Lineax's iterations needs an ``atol`` above 0: it
            takes ``rtol`` entry by entry, and may end at once where the right-hand side has an entry of 0.
        symmetric: A is symmetric and positive definite, as at a minimum where F is the gradient.

    Returns:
        ``solution(init, *args) -> x``, with derivatives in ``args`` and none in ``init``.

    Raises:
        ValueError: an argument makes no sense, or the condition's value is not shaped like the solution.
        RuntimeError: a linear solve does not reach its tolerance, or A is singular; raised when the derivative is run.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> def babylonian(init, a):
        ...     return jax.lax.fori_loop(0, 30, lambda _, x: (x + a / x) / 2, init)
        >>> root = estimate.implicit(babylonian, lambda x, a: x ** 2 - a)
        >>> slope = jax.grad(root, argnums=1)
        >>> round(float(slope(1.0, 4.0)), 4), round(float(jax.grad(slope, argnums=1)(1.0, 4.0)), 5)
        (0.25, -0.03125)

    Cost:
        The solver once; for each product one linear solve: the Jacobian and an LU factorisation up to 256 unknowns,
        otherwise as many products with A as the linear solver takes.

    References:
        - Blondel et al., "Efficient and Modular Implicit Differentiation", 2021, https://arxiv.org/abs/2105.15183
          (there a solve by normal equations whose residual is not looked at; here one that fails aloud)
    """
    check_callable(solve, what="solve", fix="Pass solve(init, *args) -> x.")
    check_callable(condition, what="condition", fix="Pass condition(x, *args), zero at the solution.")
    if linear_solver is not None:
        check_instance(
            linear_solver, lx.AbstractLinearSolver, what="linear_solver", fix="Pass lineax.GMRES(rtol, atol), for one."
        )

    @eqx.filter_custom_jvp
    def solution(args: tuple, init: PyTree) -> PyTree:
        x = as_arrays(solve(init, *args))
        check_like(x, init, what="a solve whose value", fix="Return the solution, shaped like init.")
        return x

    @solution.def_jvp
    def solution_jvp(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
        (args, init), (moves, _) = primals, tangents
        # The solution itself, not its solver: its own derivative, for those of higher order, is implicit too.
        x = solution(args, init)
        unknown, held = split(x)

        def at(unknown: PyTree, args: tuple) -> PyTree:
            value = condition(eqx.combine(unknown, held), *args)
            check_like(value, x, what="a condition whose value", fix="Return one number for each unknown.")
            return split(value)[0]

        forcing = _along(lambda args: at(unknown, args), args, moves)
        tags = lx.positive_semidefinite_tag if symmetric else ()

        @canonical_convolutions  # in the solver's loop, and out of sight there
        def product(move: PyTree) -> PyTree:
            return jax.jvp(lambda unknown: at(unknown, args), (unknown,), (move,))[1]

        operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: unknown), tags)
        solver = linear_solver or default_solver(unknown, symmetric)
        found = lx.linear_solve(operator, jax.tree.map(jnp.negative, forcing), solver).value
        return x, found

    def implicit_solution(init: PyTree, *args: Any) -> PyTree:
        unknown, held = split(as_arrays(init))
        check_floats(unknown, what="init", fix="Start from an array of floats.")
        return solution(args, eqx.combine(jax.lax.stop_gradient(unknown), held))

    return implicit_solution


def _along(function: Callable[[PyTree], PyTree], at: PyTree, moves: PyTree) -> PyTree:
    """Derivative of a function of a tree, of which only some leaves move: the others have None."""
    moving = jax.tree.map(lambda move: move is not None, moves, is_leaf=lambda leaf: leaf is None)
    there, still = eqx.partition(at, moving)
    return jax.jvp(lambda there: function(eqx.combine(there, still)), (there,), (moves,))[1]


def default_solver(unknown: PyTree, symmetric: bool) -> lx.AbstractLinearSolver:
    """A factorisation for few unknowns, an iteration for many."""
    leaves = jax.tree.leaves(unknown)
    if sum(int(np.prod(leaf.shape)) for leaf in leaves) <= DENSE:
        return lx.Cholesky() if symmetric else lx.LU()
    tolerance = 1e-10 if jnp.result_type(*leaves) == jnp.float64 else 1e-6
    return Iterative(tolerance, symmetric)


__all__ = ["DENSE", "default_solver", "implicit"]
