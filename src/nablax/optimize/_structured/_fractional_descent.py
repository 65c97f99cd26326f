"""Fractional minimisation by coordinates: the least of a ratio along each, all of its stationary points compared."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float

from ..._core import (
    AbstractRecord,
    Key,
    check_count,
    check_finite,
    check_floats,
    check_instance,
    check_key,
    check_shape,
    exact,
    fault,
)
from .._outcome import outcome
from .._settings import check_not_negative
from ._denominators import AbstractDenominator


class FractionalDescent(AbstractRecord):
    """Where fractional descent has led.

    Attributes:
        params: the last vector.
        values: the ratio before each pass and at the end, [steps + 1]; it does not rise.
        result: ``optimistix.RESULTS.successful``, or that a ratio was not finite.
        evaluations: of one-dimensional problems, each solved globally.
    """

    params: Float[Array, " dim"]
    values: Float[Array, " steps"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@exact
def fractional_descent(
    matrix: Float[Array, "rows dim"],
    target: Float[Array, " rows"],
    denominator: AbstractDenominator,
    start: Float[Array, " dim"],
    *,
    steps: int,
    penalty: float | Float[Array, ""] = 0.0,
    parametric: bool = False,
    proximity: float | Float[Array, ""] = 1e-6,
    key: Key | None = None,
    throw: bool = True,
) -> FractionalDescent:
    r"""Minimise a least-squares loss with an ℓ₁ penalty over a convex function, coordinate by coordinate.

    .. math::
        F(x) = \frac{N(x)}{g(x)}, \quad N(x) = \tfrac12\lVert Ax-b\rVert^2+\rho\lVert x\rVert_1, \qquad
        \eta\in\arg\min_\eta\frac{N(x+\eta e_i)+\frac\theta2\eta^2}{g(x+\eta e_i)}

    or, ``parametric``, :math:`\arg\min_\eta N(x+\eta e_i)+\frac\theta2\eta^2-F(x)\,g(x+\eta e_i)`. Each is solved
    globally: all steps where it is stationary (two for each line that the sum of the largest consists of, four or six
    roots of a polynomial for the four-norm), those at breaks, and no step at all, are compared by their values. So a
    coordinate's move can leave a valley that no descent leaves, and a point where it ends is one at which no move of a
    single coordinate, however long, is better.

    Args:
        matrix: A, [rows, dim].
        target: b, [rows].
        denominator: g, `TopSum` or `SquaredFourNorm`, or an `AbstractDenominator` of your own.
        start: x, [dim], where g is not 0.
        steps: passes over all coordinates.
        penalty: ρ, 0 or more; 0 by default.
        parametric: minimise the difference in place of the ratio, False by default.
        proximity: θ, in units of a curvature of N, 0 or more; 1e-6 by default, ours. It makes a least that is unique.
        key: of an order of the coordinates anew in each pass; without it they go round as they are.
        throw: raise where a ratio is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`FractionalDescent`.

    Raises:
        ValueError: shapes that do not match, settings out of range, or a denominator that is 0 at the start.
        RuntimeError: a ratio was not finite; raised when it is run.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> target = jnp.array([3.0, 0.2, 0.0])  # how sparse, by the sum of all over the largest
        >>> found = optimize.fractional_descent(
        ...     jnp.eye(3), target, optimize.TopSum(1), jnp.ones(3), penalty=1.0, steps=5
        ... )
        >>> [round(float(x), 2) for x in found.params]
        [3.01, 0.0, 0.0]

    Cost: a pass: as many problems as coordinates, each with two columns of A and the denominator's line: a sort for
        `TopSum`, a column of G and some thousand evaluations of polynomials for `SquaredFourNorm`; two products with A.

    References:
        - Yuan, "Coordinate Descent Methods for Fractional Minimization", 2023, https://arxiv.org/abs/2201.12691, after
          the abstract; θ and how the one-dimensional problems are solved are ours.
    """
    a = check_shape(matrix, (None, None), what="matrix", fix="Pass A, rows by dim.")
    b = check_shape(target, (len(a),), what="target", fix="Pass b, a number for each row of A.")
    x = check_shape(start, (a.shape[1],), what="start", fix="Pass a number for each column of A.")
    check_floats((a, b, x), what="matrix, target and start", fix="Pass floating-point arrays.")
    check_finite((a, b[:, None], x[:, None]), what="matrix, target and start", fix="Drop what is not known.")
    check_instance(denominator, AbstractDenominator, what="denominator", fix="Pass optimize.TopSum(3), say.")
    check_not_negative(penalty=penalty, proximity=proximity)
    steps = check_count(steps, what="steps")
    if key is not None:
        check_key(key)
    dtype = jnp.result_type(a, b, x)
    a, b, x = a.astype(dtype), b.astype(dtype), x.astype(dtype)
    below = check_shape(denominator(x), (), what="a denominator's value", fix="Return one number.")
    if not isinstance(below, jax.core.Tracer) and not np.asarray(below) > 0:
        raise fault(
            expected="a start where the denominator is above 0",
            got=f"{float(below):g} there",
            fix="Start from ones, or at random.",
        )
    found = _descended(a, b, denominator, x, steps, penalty, parametric, proximity, key)
    params, result = outcome(found[0], jnp.all(jnp.isfinite(found[1])), throw)
    return FractionalDescent(params, found[1], result, steps * len(x))


@eqx.filter_jit
def _descended(
    a: Array,
    b: Array,
    g: AbstractDenominator,
    start: Array,
    steps: int,
    penalty: Array | float,
    parametric: bool,
    proximity: Array | float,
    key: Key | None,
) -> tuple[Array, Array]:
    dim, dtype = len(start), start.dtype
    curvatures = jnp.sum(a**2, axis=0)

    def value(x: Array) -> Array:
        return (jnp.sum((a @ x - b) ** 2) / 2 + penalty * jnp.sum(jnp.abs(x))) / g(x)

    def move(carry: tuple, i: Array) -> tuple[tuple, None]:
        x, left, cache = carry
        at, curvature = x[i], curvatures[i] + proximity
        slope, base = a[:, i] @ left, left @ left / 2 + penalty * (jnp.sum(jnp.abs(x)) - jnp.abs(at))
        line = g.along(cache, x, i)
        breaks = jnp.sort(jnp.append(line.breaks, -at))  # where the penalty breaks, too
        ends = jnp.concatenate([breaks[:1] - 1, breaks, breaks[-1:] + 1])
        middles = (ends[1:] + ends[:-1]) / 2

        def over(step: Array) -> Array:
            return base + slope * step + curvature / 2 * step**2 + penalty * jnp.abs(at + step)

        still = jnp.zeros_like(at)
        ratio = over(still) / line.value(still)

        def stationary(near: Array) -> Array:
            side = jnp.sign(at + near)
            numerator = jnp.stack([curvature / 2, slope + penalty * side, base + penalty * side * at])
            return line.stationary(numerator, ratio if parametric else None, near)

        roots = jax.vmap(stationary)(middles)
        bounds = jnp.concatenate([jnp.array([-jnp.inf], dtype), breaks, jnp.array([jnp.inf], dtype)])
        roots = jnp.clip(roots, bounds[:-1, None], bounds[1:, None]).ravel()
        tried = jnp.concatenate([still[None], breaks, roots])
        below = jax.vmap(line.value)(tried)
        scores = over(tried) - ratio * below if parametric else over(tried) / below
        scores = jnp.where((below > 0) & jnp.isfinite(scores), scores, jnp.inf)
        step = tried[jnp.argmin(scores)]
        return (x.at[i].add(step), left + step * a[:, i], g.moved(cache, x, i, step)), None

    def sweep(x: Array, key: Key | None) -> tuple[Array, Array]:
        order = jnp.arange(dim) if key is None else jax.random.permutation(key, dim)
        # What is kept is made anew in each pass, so that roundings do not add up.
        (following, _, _), _ = jax.lax.scan(move, (x, a @ x - b, g.cache(x)), order)
        return following, value(x)

    keys = None if key is None else jax.random.split(key, steps)
    x, values = jax.lax.scan(sweep, start, keys, length=steps)
    return x, jnp.append(values, value(x))
