"""Where a field stands still, and what happens near there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Int, PyTree

from ..._core import AbstractRecord, Field, canonical_convolutions, check_count, check_instance, checked_field, fault
from .._samples import align

STARTS = 256


class FixedPoints(AbstractRecord):
    r"""Fixed points of a field at one time, the most often found first.

    Attributes:
        points: in the structure of ``y``, every leaf with leading axis ``points``.
        residuals: ``[points]`` norm of the field there, units of the field.
        eigenvalues: ``[points, dim]`` of the Jacobian there, 1/time, greatest real part first.
        kinds: for each point "stable node", "stable spiral", "unstable node", "unstable spiral", "saddle", "centre" or
            "degenerate" (an eigenvalue whose real part is zero to rounding decides, and linearising does not).
        hits: ``[points]`` how many starts ended there.
        failures: starts from which Newton's method did not converge.
        starts: how many there were.
    """

    points: PyTree
    residuals: Float[Array, " points"]
    eigenvalues: Complex[Array, "points dim"]
    kinds: tuple[str, ...] = eqx.field(static=True)
    hits: Int[Array, " points"]
    failures: int = eqx.field(static=True)
    starts: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the points out as plain text.

        Returns:
            One line per point: kind, greatest real part of an eigenvalue, residual, hits, and its first coordinates.
        """
        title = "Fixed points"
        lines = [title, "-" * 78, f"{'kind':<18}{'max Re λ':>11}{'residual':>11}{'hits':>6}  at"]
        flat = jax.vmap(lambda y: ravel_pytree(y)[0])(self.points) if self.kinds else ()
        for kind, rates, residual, hits, point in zip(self.kinds, self.eigenvalues, self.residuals, self.hits, flat):
            shown = ", ".join(f"{float(x):.4g}" for x in point[:4]) + (", …" if point.size > 4 else "")
            rate = float(np.asarray(rates[0]).real)
            lines.append(f"{kind:<18}{rate:>11.4g}{float(residual):>11.2g}{int(hits):>6}  ({shown})")
        lines.append(f"{self.starts} starts, of which {self.failures} failed")
        return "\n".join(lines)


def fixed_points(
    field: Field,
    t: float | Float[Array, ""],
    starts: PyTree,
    args: PyTree = None,
    *,
    tolerance: float = 1e-5,
    merge: float = 1e-3,
    max_steps: int = 64,
    solver: optx.AbstractRootFinder | None = None,
) -> FixedPoints:
    r"""Find fixed points of a field at one time by Newton's method from many starts, and name their stability.

    .. math:: f(t, y^*) = 0,\qquad \dot\delta = J(t, y^*)\,\delta

    The name goes by the real parts of the eigenvalues of J: all negative, stable; all positive, unstable; both, saddle;
    all zero with imaginary parts, centre (of the linearised field); else with a zero, degenerate. A complex pair makes
    a node a spiral. No number of starts proves that all points were found.

    Args:
        field: ``field(t, y, args) -> dy``.
        t: the time at which the field is frozen; any, for a field that does not change.
        starts: where to start, every leaf with leading axis ``starts``; samples, for instance.
        args: one condition, shared by all starts, or None.
        tolerance: relative and absolute, of Newton's method and of the residual, which must fall below ``tolerance`` ×
            (1 + root mean square of the field's norm at the starts); also of "zero" for a real part, against the
            largest eigenvalue. 1e-5 by default.
        merge: points closer than this × (1 + root mean square spread of the starts) are one, 1e-3 by default.
        max_steps: of Newton's method, 64 by default.
        solver: another Optimistix root finder, such as ``optx.Dogleg`` for starts far off.

    Returns:
        A `FixedPoints`; those starts that failed are counted in it, and none found is an answer.

    Raises:
        ValueError: no starts; they are not finite floats; leading axes disagree; the field's value is not shaped like
            ``y``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import fixed_points
        >>> record = fixed_points(lambda t, y, args: y - y**3, 0.0, jnp.array([[-2.0], [0.1], [2.0], [2.5]]))
        >>> [(round(float(y), 3), kind) for y, kind in zip(record.points[:, 0], record.kinds)]
        [(1.0, 'stable node'), (0.0, 'unstable node'), (-1.0, 'stable node')]

    Cost:
        A start: up to ``max_steps`` × (D JVPs and a dense solve), 256 starts at once; a point: D JVPs and a dense
        eigenproblem on the host.

    References:
        - Sussillo and Barak, "Opening the Black Box: Low-Dimensional Dynamics in High-Dimensional Recurrent Neural
          Networks", 2013, https://doi.org/10.1162/NECO_a_00409 (fixed points of a trained network from many starts;
          there by minimising the speed)
        - Strogatz, "Nonlinear Dynamics and Chaos", 2015, https://doi.org/10.1201/9780429492563 (the names)
    """
    field, max_steps = checked_field(field), check_count(max_steps, what="max_steps")
    if solver is not None:
        kinds = (optx.AbstractRootFinder, optx.AbstractLeastSquaresSolver, optx.AbstractMinimiser)
        check_instance(solver, kinds, what="a root finder", fix="Pass one of Optimistix's.")
    times, starts, count = align(t, starts, None)
    if jnp.ndim(t):
        raise fault(expected="one time", got=f"times of shape {jnp.shape(t)}", fix="Freeze the field at one time.")
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))
    chosen = optx.Newton(rtol=tolerance, atol=tolerance) if solver is None else solver
    *solved, first, spread = _solve(field, starts, times[0], args, chosen, max_steps)
    ends, fine, sizes = map(np.asarray, solved)
    found = fine & (sizes <= tolerance * (1 + float(first)))
    kept, hits = _distinct(ends[found], sizes[found], merge * (1 + float(spread)))
    points = jax.vmap(unravel)(jnp.asarray(kept))
    residuals, matrices = _linearise(field, points, times[0], args)
    # On the host: not every accelerator has the unsymmetric eigenproblem.
    rates = np.linalg.eigvals(np.asarray(matrices))
    rates = np.take_along_axis(rates, np.argsort(-rates.real, axis=1, kind="stable"), axis=1)
    return FixedPoints(
        points=points,
        residuals=residuals,
        eigenvalues=jnp.asarray(rates.astype(np.result_type(kept.dtype, np.complex64))),
        kinds=tuple(_name(row, tolerance) for row in rates),
        hits=jnp.asarray(hits, jnp.int32),
        failures=int(count - found.sum()),
        starts=count,
    )


@eqx.filter_jit
@canonical_convolutions
def _solve(
    field: Field, starts: PyTree, t: Array, args: PyTree, solver: optx.AbstractRootFinder, max_steps: int
) -> tuple[Array, ...]:
    flat = jax.vmap(lambda y: ravel_pytree(y)[0])(starts)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))[1]

    def still(z: Array, _: None) -> Array:
        return ravel_pytree(field(t, unravel(z), args))[0]

    def end(z: Array) -> tuple[Array, Array, Array]:
        solution: optx.Solution = optx.root_find(still, solver, z, max_steps=max_steps, throw=False)
        size = jnp.linalg.norm(still(solution.value, None))
        fine = (solution.result == optx.RESULTS.successful) & jnp.isfinite(size)
        return solution.value, fine, size

    ends, fine, sizes = jax.lax.map(end, flat, batch_size=STARTS)
    first = jnp.sqrt(jnp.mean(jnp.sum(jax.vmap(lambda z: still(z, None))(flat) ** 2, axis=1)))
    return ends, fine, sizes, first, jnp.sqrt(jnp.sum(jnp.var(flat, axis=0)))


@eqx.filter_jit
@canonical_convolutions
def _linearise(field: Field, points: PyTree, t: Array, args: PyTree) -> tuple[Array, Array]:
    def at(y: PyTree) -> tuple[Array, Array]:
        flat, unravel = ravel_pytree(y)

        def still(z: Array) -> Array:
            return ravel_pytree(field(t, unravel(z), args))[0]

        return jnp.linalg.norm(still(flat)), jax.jacfwd(still)(flat)

    return jax.vmap(at)(points)


def _distinct(ends: np.ndarray, sizes: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends with neighbours merged, the smallest residual standing for them; most hits first."""
    left = np.argsort(sizes, kind="stable")
    kept, hits = [], []
    while left.size:
        near = np.linalg.norm(ends[left] - ends[left[0]], axis=1) <= distance
        kept.append(left[0])
        hits.append(int(near.sum()))
        left = left[~near]
    # Ties by coordinates, so that the order does not hang on rounding.
    order = sorted(range(len(kept)), key=lambda i: (-hits[i], *np.round(-ends[kept[i]], 3)))
    return ends[[kept[i] for i in order]].reshape(-1, ends.shape[1]), np.array([hits[i] for i in order], np.int32)


def _name(rates: np.ndarray, tolerance: float) -> str:
    scale = np.abs(rates).max()
    zero = np.abs(rates.real) <= tolerance * scale
    turning = (np.abs(rates.imag) > tolerance * scale).any()
    if scale == 0:
        return "degenerate"
    if (rates.real[~zero] > 0).any() and (rates.real[~zero] < 0).any():
        return "saddle"
    if zero.any():
        whole = zero.all() and (np.abs(rates.imag) > tolerance * scale).all()
        return "centre" if whole else "degenerate"
    side = "stable" if rates.real[0] < 0 else "unstable"
    return f"{side} {'spiral' if turning else 'node'}"
