"""Derivatives of a rough function by a local polynomial fit, for fields whose autodiff is noise."""

import functools
import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import fault
from ._linear import chunked_map


class LocalPolynomial(eqx.Module):
    """What a polynomial fitted round a point says of the function there.

    Attributes:
        value: of the function, smoothed; shaped like the function's value, ``[*out]``.
        gradient: first derivatives, shape ``[*out, dim]``, units of the function over units of ``y``.
        hessian: second derivatives, shape ``[*out, dim, dim]``, symmetric.
        residual: root mean square over the stencil of the function less the polynomial, shape ``[*out]``, units of
            the function: what the fit has smoothed away, be it noise or curvature beyond the degree.
    """

    value: Float[Array, "*out"]
    gradient: Float[Array, "*out dim"]
    hessian: Float[Array, "*out dim dim"]
    residual: Float[Array, "*out"]

    @property
    def laplacian(self) -> Float[Array, "*out"]:
        """Sum of the unmixed second derivatives."""
        return jnp.trace(self.hessian, axis1=-2, axis2=-1)

    @property
    def normal(self) -> Float[Array, "*out dim"]:
        """The gradient at unit length: of a signed distance, the surface's outward normal."""
        return self.gradient / jnp.linalg.norm(self.gradient, axis=-1, keepdims=True)

    @property
    def mean_curvature(self) -> Float[Array, "*out"]:
        r"""Of the level set, :math:`\nabla\cdot(\nabla f/|\nabla f|)/(D-1)`: 1/r for a sphere of radius r."""
        normal = self.normal
        along = jnp.einsum("...i,...ij,...j->...", normal, self.hessian, normal)
        steepness = jnp.linalg.norm(self.gradient, axis=-1)
        return (self.laplacian - along) / (steepness * (self.gradient.shape[-1] - 1))


def polynomial_operators(
    function: Callable[..., Float[Array, "*out"]], *, radius: float, degree: int = 2, points: int | None = None
) -> Callable[..., LocalPolynomial]:
    r"""Replace a function's derivatives at a point by those of a polynomial fitted in a ball round it.

    .. math::
        \hat p = \arg\min_{p\in\Pi_m}\sum_j \big(f(y + r\,b_j) - p(r\,b_j)\big)^2,\qquad
        \nabla f \approx \nabla\hat p(0),\quad \nabla^2f \approx \nabla^2\hat p(0)

    Fields made of a feature grid and a small network have the right values with small wiggles on top, whose
    derivatives drown those of the signal. The fit averages wiggles shorter than the radius, at the price of a
    bias of order :math:`r^2` for degree 2 in the gradient and the Hessian alike. A radius of one or two cells of
    the finest grid is a start.

    The points :math:`b_j` are uniform in the unit ball, in opposite pairs, and the same at every ``y``, so that
    the operator is deterministic, differentiable like the function, and a fixed linear map of the function's
    values: least squares is solved once, here.

    Args:
        function: ``function(y, *args)`` of one point ``y`` of shape ``[dim]``, with any shape of value. It is never
            differentiated.
        radius: of the ball, in units of ``y``.
        degree: of the polynomial, at least 2 (default); an odd degree changes the gradient alone, an even one the
            value and the Hessian alone, because the points are symmetric.
        points: of the stencil, even. Default: four times the number of coefficients.

    Returns:
        ``operator(y, *args) -> LocalPolynomial``.

    Raises:
        ValueError: the radius is not positive, the degree below 2, ``y`` not a vector, or too few points for the
            degree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import polynomial_operators
        >>> rough = lambda y: jnp.linalg.norm(y) + 1e-4 * jnp.sin(1e4 * y[0])
        >>> sphere = polynomial_operators(rough, radius=0.1)(jnp.array([0.5, 0.0]))
        >>> bool(abs(sphere.mean_curvature - 2) < 0.2)
        True

    Cost:
        ``points`` forward passes, 64 at a time; no derivative.

    References:
        - Chetan, Yang, Wang, Marschner and Hariharan, "Accurate Differential Operators for Hybrid Neural
          Fields", 2023, https://arxiv.org/abs/2312.05984 (the method; there a line or a quadratic is fitted to
          fresh random points at every query. The fixed symmetric stencil, degrees above 2 and the residual are
          ours)
    """
    if not radius > 0 or degree < 2:
        raise fault(
            expected="radius > 0 and degree ≥ 2", got=f"radius={radius}, degree={degree}", fix="Pass such numbers."
        )

    def operator(y: Float[Array, " dim"], *args: PyTree) -> LocalPolynomial:
        if y.ndim != 1:
            raise fault(expected="one point of shape [dim]", got=str(y.shape), fix="Use jax.vmap over points.")
        dim = y.shape[0]
        offsets, basis, solve = _stencil(dim, degree, points)
        values = chunked_map(lambda b: function(y + radius * b, *args), jnp.asarray(offsets, y.dtype))
        # One value is taken out of all, so that small differences are not lost in a large value.
        offset = values[0]
        values = values - offset[None]
        coefficients = jnp.tensordot(jnp.asarray(solve, values.dtype), values, axes=1)
        residual = values - jnp.tensordot(jnp.asarray(basis, values.dtype), coefficients, axes=1)
        gradient = jnp.moveaxis(coefficients[1 : dim + 1], 0, -1) / radius
        quadratic = coefficients[dim + 1 : dim + 1 + dim * (dim + 1) // 2]
        rows, columns = np.array(list(itertools.combinations_with_replacement(range(dim), 2))).T
        factors = jnp.asarray(np.where(rows == columns, 2, 1), values.dtype)
        second = jnp.moveaxis(quadratic, 0, -1) * factors.reshape((1,) * (values.ndim - 1) + (-1,)) / radius**2
        hessian = jnp.zeros((*values.shape[1:], dim, dim), values.dtype)
        hessian = hessian.at[..., rows, columns].set(second).at[..., columns, rows].set(second)
        return LocalPolynomial(offset + coefficients[0], gradient, hessian, jnp.sqrt(jnp.mean(residual**2, axis=0)))

    return operator


@functools.lru_cache
def _stencil(dim: int, degree: int, points: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the unit ball, the monomials there, and the matrix from values to coefficients."""
    monomials = [c for d in range(degree + 1) for c in itertools.combinations_with_replacement(range(dim), d)]
    count = 4 * len(monomials) if points is None else points
    generator = np.random.default_rng(0)
    half = generator.normal(size=(count // 2, dim))
    half *= generator.uniform(size=(count // 2, 1)) ** (1 / dim) / np.linalg.norm(half, axis=1, keepdims=True)
    offsets = np.concatenate([half, -half])
    basis = np.stack([np.prod(offsets[:, list(c)], axis=1) for c in monomials], axis=1)
    if count % 2 or count < len(monomials) or np.linalg.cond(basis) > 1e6:
        raise fault(
            expected=f"an even number of points, enough for the {len(monomials)} coefficients of degree {degree} in "
            f"{dim} dimensions",
            got=str(points),
            fix=f"Leave points=None for {4 * math.comb(dim + degree, degree)}.",
        )
    return offsets, basis, np.linalg.pinv(basis)
