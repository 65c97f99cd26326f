"""Square root of a positive definite matrix and its inverse, by matrix products, with exact implicit derivatives."""

import math
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Float

from .._core import AbstractRecord, fault, nonzero, peak

Method = Literal["pade", "taylor"]

_SIGN_STEPS = 100


class MatrixRoot(AbstractRecord):
    r"""A root and how far it is from one.

    Attributes:
        value: the root, symmetric, shape ``[dim, dim]``.
        residual: relative error of what defines it, no unit: :math:`\lVert R^2-A\rVert_F/\lVert A\rVert_F` for
            the root, :math:`\lVert RAR-I\rVert_F/\sqrt{D}` for the inverse root. Differentiable as well.
    """

    value: Float[Array, "dim dim"]
    residual: Float[Array, ""]


def matrix_square_root(
    matrix: Float[Array, "dim dim"], *, method: Method = "pade", degree: int | None = None, inverse: bool = False
) -> MatrixRoot:
    r"""Approximate :math:`A^{1/2}` or :math:`A^{-1/2}` of a symmetric positive definite matrix, without eigenvectors.

    .. math::
        X = \frac{A}{\lVert A\rVert_F},\qquad
        X^{1/2} \approx \Big(\sum_{j\le m}\tbinom{2m+1}{2j+1}X^j\Big)^{-1}\sum_{j\le m}\tbinom{2m+1}{2j}X^j
        \quad\text{(Padé)},\qquad
        X^{1/2} \approx \sum_{j\le m}\tbinom{1/2}{j}(X-I)^j\quad\text{(Taylor)}

    Derivatives, forward and reverse and of any order, solve the Lyapunov equation :math:`R\,dR + dR\,R = dA` by
    Newton's iteration for the matrix sign: matrix products only, and none of the :math:`1/(\lambda_i-\lambda_j)`
    that make eigenvectors' derivatives blow up at equal eigenvalues. They are those of a root, not those of the
    polynomial.

    The error of the diagonal Padé approximant at an eigenvalue :math:`x` of :math:`X` is about
    :math:`2\,((1-\sqrt x)/(1+\sqrt x))^{2m+1}`, relative; the Taylor polynomial's about :math:`(1-x)^m`. Neither
    is accurate for eigenvalues far below the norm: look at ``residual``, raise ``degree``, or add a ridge.

    Args:
        matrix: symmetric positive definite; its symmetric part is taken. In any units.
        method: ``"pade"`` (default) or ``"taylor"``.
        degree: m above. Default 5 for Padé and 10 for Taylor. Beyond about 10 for Padé in single precision
            rounding takes over for eigenvalues near zero.
        inverse: give the inverse root instead.

    Returns:
        The root with its residual, in units of the square root of ``matrix``'s, or their inverse.

    Raises:
        ValueError: not a square matrix, an unknown method or a degree below 1.
        RuntimeError: in the derivative, when the sign iteration does not settle: the root found is singular or
            indefinite.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import matrix_square_root
        >>> root = matrix_square_root(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> bool(root.residual < 1e-5)
        True

    Cost:
        Padé: m − 1 matrix products, of powers that numerator and denominator share, and one Cholesky solve. Taylor:
        m − 1 products. A derivative: six products a step, of which about
        :math:`\log_{1.5}(\lVert R\rVert_F/\lambda_{\min}(R)) + 5` are needed.

    References:
        - Song, Sebe and Wang, "Fast Differentiable Matrix Square Root", 2022, https://arxiv.org/abs/2201.08663
          (both approximants on the normalised matrix, and the Lyapunov equation by the sign iteration)
        - the authors' code, https://github.com/KingJamesSong/FastDifferentiableMatSqrt (the same degrees, 5 and 10. It
          expands both in :math:`I - X`, with coefficients of alternating signs found numerically; the approximants are
          the same. Its sign iteration takes eight steps, whether it has settled or not, and starts from the root over
          :math:`\sqrt{\lVert A\rVert_F}`; here it starts from the root over its own norm, runs to convergence, and
          stands behind a linear solve that JAX differentiates again. It takes no symmetric part)
        - Kenney and Laub, "Rational Iterative Methods for the Matrix Sign Function", 1991,
          https://doi.org/10.1137/0612020 (the approximants' closed form in binomials, whose positive
          coefficients cancel nowhere)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise fault(expected="a square matrix", got=str(matrix.shape), fix="Use jax.vmap over batches.")
    if method not in ("pade", "taylor"):
        raise fault(expected="method 'pade' or 'taylor'", got=repr(method), fix="Pass one of them.")
    if degree is None:
        degree = 5 if method == "pade" else 10
    if degree < 1:
        raise fault(expected="degree ≥ 1", got=str(degree), fix="Pass a larger one.")
    matrix = (matrix + matrix.T) / 2
    # Both the root and its residual square small numbers; with the scale out, neither leaves the range.
    scale = peak(matrix)
    unit = matrix / scale
    value = _root(unit, method, degree, inverse)
    if inverse:
        dim = matrix.shape[0]
        error = jnp.linalg.norm(value @ unit @ value - jnp.eye(dim, dtype=matrix.dtype)) / math.sqrt(dim)
        return MatrixRoot(value / jnp.sqrt(scale), error)
    return MatrixRoot(value * jnp.sqrt(scale), jnp.linalg.norm(value @ value - unit) / jnp.linalg.norm(unit))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _root(matrix: Float[Array, "dim dim"], method: Method, degree: int, inverse: bool) -> Float[Array, "dim dim"]:
    norm = jnp.linalg.norm(matrix)
    scaled = matrix / nonzero(norm)
    scale = jnp.sqrt(norm)
    if method == "pade":
        odd = 2 * degree + 1
        numerator, denominator = _rational(
            [(math.comb(odd, 2 * j), math.comb(odd, 2 * j + 1)) for j in range(degree + 1)], scaled
        )
        top, bottom = (denominator, numerator) if inverse else (numerator, denominator)
        root = linalg.cho_solve((jnp.linalg.cholesky(bottom), True), top)
    else:
        exponent = -0.5 if inverse else 0.5
        series = np.cumprod([1.0] + [(exponent - j) / (j + 1) for j in range(degree)])
        root = _polynomial(list(series), scaled - jnp.eye(len(matrix), dtype=matrix.dtype))
    root = (root + root.T) / 2
    return root / scale if inverse else root * scale


@_root.defjvp
def _root_jvp(
    method: Method, degree: int, inverse: bool, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (matrix,), (change,) = primals, tangents
    root = _root(matrix, method, degree, inverse)
    if inverse:
        # S² = A⁻¹, whence S dS + dS S = −A⁻¹ dA A⁻¹.
        square = root @ root
        change = -square @ change @ square
    return root, lyapunov(root, change)


def lyapunov(root: Float[Array, "dim dim"], right: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Solve ``R X + X R = C`` for a symmetric positive definite ``R``, by the sign of a block matrix.

    Args:
        root: R.
        right: C.

    Returns:
        X, differentiable in both.

    Raises:
        RuntimeError: the iteration does not settle, because R is not positive definite in this precision.
    """

    def apply(x: Array) -> Array:
        return root @ x + x @ root

    # The map is its own transpose, so that one solver serves derivatives in both directions.
    return jax.lax.custom_linear_solve(apply, right, lambda _, c: _sign_solve(root, c), symmetric=True)


def _sign_solve(root: Float[Array, "dim dim"], right: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    dim = len(root)
    identity = jnp.eye(dim, dtype=root.dtype)
    tolerance = math.sqrt(dim) * 10 * float(jnp.finfo(root.dtype).eps)

    def unsettled(carry: tuple[Array, Array, Array, Array]) -> Array:
        step, _, _, error = carry
        # NaN compares false and ends the loop at once.
        return (step < _SIGN_STEPS) & (error > tolerance)

    def iterate(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        step, b, c, _ = carry
        square = b @ b
        rest = 3 * identity - square
        # Quadratic convergence: what remains after this step is about the square of what it started from.
        error = jnp.linalg.norm(identity - square) ** 2
        return step + 1, b @ rest / 2, (c @ rest - square @ c + b @ c @ b) / 2, error

    norm = jnp.linalg.norm(root)
    start = (jnp.asarray(0), root / norm, right / norm, jnp.asarray(jnp.inf, root.dtype))
    _, b, c, error = jax.lax.while_loop(unsettled, iterate, start)
    # An indefinite root settles too, at a sign that is not the identity's; the trace tells.
    wrong = ~(error <= tolerance) | (jnp.trace(b) < dim - 0.5)
    return eqx.error_if(
        c / 2, wrong, "the matrix square root has no derivative here: the root is not positive definite."
    )


def _rational(
    coefficients: list[tuple[int, int]], x: Float[Array, "dim dim"]
) -> tuple[Float[Array, "dim dim"], Float[Array, "dim dim"]]:
    """Two polynomials of the same powers, lowest first: one product a power serves both."""
    pairs = jnp.asarray(coefficients, x.dtype)

    def add(power: Array, totals: tuple[Array, Array], pair: Array) -> tuple[Array, Array]:
        return totals[0] + pair[0] * power, totals[1] + pair[1] * power

    def step(carry: tuple[Array, tuple[Array, Array]], pair: Array) -> tuple[tuple[Array, tuple[Array, Array]], None]:
        power = carry[0] @ x
        return (power, add(power, carry[1], pair)), None

    identity = jnp.eye(len(x), dtype=x.dtype)
    first = add(x, (pairs[0, 0] * identity, pairs[0, 1] * identity), pairs[1])
    return jax.lax.scan(step, (x, first), pairs[2:], unroll=4)[0][1]


def _polynomial(coefficients: list[float], x: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """Horner's rule, lowest coefficient first."""
    identity = jnp.eye(len(x), dtype=x.dtype)

    def step(total: Array, coefficient: Array) -> tuple[Array, None]:
        return total @ x + coefficient * identity, None

    first = coefficients[-1] * x + coefficients[-2] * identity
    return jax.lax.scan(step, first, jnp.asarray(coefficients[-3::-1], x.dtype), unroll=4)[0]
