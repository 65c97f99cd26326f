"""How fast neighbouring states part or meet along a field's trajectories, and what that costs a solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    checked_field,
    fault,
    guarded_jit,
    table,
)
from ...calculus import Estimate, arnoldi, ritz_values
from ...follow import Solver, flow
from .._samples import align

POINTS = 64


class Stiffness(AbstractRecord):
    r"""Extremes of the Jacobian's spectrum along trajectories, each a rate in 1/time in the direction of travel.

    Attributes:
        times: ``[times]`` at which the Jacobian was looked at.
        lipschitz: ``[times]`` mean over trajectories of the local Lipschitz constant :math:`\sigma_{\max}(J)`.
        log_norm: ``[times]`` mean of :math:`\lambda_{\max}((J+J^{\top})/2)`: no perturbation grows faster at this
            moment.
        abscissa: ``[times]`` mean of :math:`\max\operatorname{Re}\lambda(J)`: above 0, some direction grows.
        decay: ``[times]`` mean of :math:`\max(0, -\min\operatorname{Re}\lambda(J))`: the fastest decay.
        largest_lipschitz: over all trajectories and times.
        stiffness: mean over trajectories of the greatest decay along it, times the duration, no unit: by so many
            powers of e would the fastest mode decay. Explicit Euler with equal steps needs at least half as many to be
            stable; far above the number of steps that accuracy needs, the field is stiff.
        amplification: mean of :math:`\int\lambda_{\max}((J+J^{\top})/2)dt` by the trapezoid rule, in nats: the
            logarithm of the growth of a perturbation is at most this.
        residual: largest residual of any of the above, as a share of the Lipschitz constant there; 0 when the Jacobian
            was had in full.
        trajectories: how many were followed.
    """

    times: Float[Array, " times"]
    lipschitz: Estimate
    log_norm: Estimate
    abscissa: Estimate
    decay: Estimate
    largest_lipschitz: Float[Array, ""]
    stiffness: Estimate
    amplification: Estimate
    residual: Float[Array, ""]
    trajectories: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit; those that vary along the path at their greatest.
        """
        return table("Stiffness along trajectories", self._rows(), self._notes())

    def _rows(self) -> list:
        rows = []
        for name, curve in (
            ("Lipschitz constant", self.lipschitz),
            ("logarithmic norm", self.log_norm),
            ("spectral abscissa", self.abscissa),
            ("fastest decay", self.decay),
        ):
            worst = int(np.argmax(np.asarray(curve.value)))
            peak = Estimate(curve.value[worst], curve.standard_error[worst])
            rows.append((f"{name}, greatest mean (t = {float(self.times[worst]):.3g})", peak, "1/time"))
        return [
            *rows,
            ("Lipschitz constant, largest seen", self.largest_lipschitz, "1/time"),
            ("stiffness (decay × duration)", self.stiffness, "1"),
            ("amplification, at most", self.amplification, "nats"),
            ("residual / Lipschitz constant", self.residual, "1"),
        ]

    def _notes(self) -> list[str]:
        return [f"{self.trajectories} trajectories, {len(self.times)} times each"]


def stiffness(
    field: Field,
    y0s: PyTree,
    args: PyTree = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    times: int = 9,
    steps: int = 64,
    krylov: int = 32,
    key: Key,
) -> Stiffness:
    r"""Measure Lipschitz constant, logarithmic norm and extreme decay rates of a field along its trajectories.

    .. math::
        \sigma_{\max}(J)=\max_v\frac{\lVert Jv\rVert}{\lVert v\rVert},\qquad
        \mu(J)=\lambda_{\max}\tfrac12(J+J^{\top}),\qquad
        \min\operatorname{Re}\lambda(J)\le\max\operatorname{Re}\lambda(J)\le\mu(J)\le\sigma_{\max}(J)

    Up to ``krylov`` dimensions the Jacobian is had in full and the numbers are exact. Above, each comes from a Krylov
    space of that dimension (Lanczos on :math:`J^{\top}J` and on the symmetric part, Arnoldi on J): the first two are
    then lower bounds, eigenvalues may lie on either side, and ``residual`` says how far from settled they are.

    Args:
        field: ``field(t, y, args) -> dy``.
        y0s: starting points, every leaf with leading axis ``trajectories``.
        args: conditions with the same leading axis, or None.
        t0: start time, 0 by default.
        t1: end time, 1 by default; before ``t0`` to look at the way back, where growth and decay swap.
        times: moments at which to look, evenly spaced, both ends included, 9 by default.
        steps: fixed steps of the solver that follows the trajectories, 64 by default. A stiff field needs more, so that
            they do not blow up.
        krylov: dimension of the Krylov spaces, 32 by default.
        key: for their starts; not used where the Jacobian is had in full.

    Returns:
        A `Stiffness`; standard errors are over trajectories.

    Raises:
        ValueError: leading axes disagree; starts are not finite floats; the field's value is not shaped like ``y``;
            ``t0`` equals ``t1``; a count is too small; a Jacobian along the trajectories is not finite (they blew up,
            or the field does).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import stiffness
        >>> decay = lambda t, y, args: jnp.array([-1.0, -100.0]) * y
        >>> record = stiffness(decay, jnp.ones((3, 2)), steps=200, key=jax.random.key(0))
        >>> round(float(record.stiffness.value), 3), round(float(record.lipschitz.value[0]), 3)
        (100.0, 100.0)

    Cost:
        ``steps`` solver steps a trajectory; then for each trajectory and time D JVPs, or ``krylov`` × (3 JVPs + 2 VJPs)
        where D is above ``krylov``; 64 points at once.

    References:
        - Hairer and Wanner, "Solving Ordinary Differential Equations II", 1996,
          https://doi.org/10.1007/978-3-642-05221-7 (stiffness, logarithmic norm)
        - Saad, "Numerical Methods for Large Eigenvalue Problems", 2011, https://doi.org/10.1137/1.9781611970739
          (Arnoldi, residual of a Ritz value)
    """
    field = checked_field(field)
    starts, y0s, trajectories = align(t0, y0s, args)
    check_key(key)
    if t0 == t1:
        raise fault(expected="t0 and t1 apart", got=f"{t0} twice", fix="A trajectory needs some time.")
    times, krylov = check_count(times, what="times", least=2), check_count(krylov, what="krylov", least=2)
    moments = jnp.linspace(t0, t1, times, dtype=starts.dtype)
    found = _project(field, y0s, args, moments, steps, krylov, key)
    return _summarise(found, moments, abs(t1 - t0), trajectories)


@guarded_jit
@canonical_convolutions
def _project(
    field: Field, y0s: PyTree, args: PyTree, moments: Float[Array, " times"], steps: int, krylov: int, key: Key
) -> tuple[Array, ...]:
    direction = jnp.sign(moments[-1] - moments[0])

    def follow(row: tuple) -> PyTree:
        y0, condition = row
        return flow(field, y0, moments[0], moments[-1], args=condition, solver=Solver(steps=steps), ts=moments).ys

    paths = jax.lax.map(follow, (y0s, args), batch_size=POINTS)

    def look(row: tuple) -> tuple[Array, ...]:
        t, y, condition, k = row
        flat, unravel = ravel_pytree(y)

        def flow_on(z: Array) -> Array:
            return direction * ravel_pytree(field(t, unravel(z), condition))[0]

        if flat.size <= krylov:
            matrix = jax.jacfwd(flow_on)(flat)
            return (matrix.T @ matrix, (matrix + matrix.T) / 2, matrix, *(jnp.zeros((3,), flat.dtype),))
        _, push = jax.linearize(flow_on, flat)
        pull = jax.linear_transpose(push, flat)
        products = (
            lambda v: pull(push(v))[0],
            lambda v: (push(v) + pull(v)[0]) / 2,
            push,
        )
        pairs = [arnoldi(product, flat.size, krylov, key=k, dtype=flat.dtype) for product in products]
        return (*(projection for projection, _ in pairs), jnp.stack([left for _, left in pairs]))

    count, times = jax.tree.leaves(paths)[0].shape[:2]

    def spread(leaf: Array) -> Array:
        return jnp.repeat(leaf, times, axis=0)

    rows = (
        jnp.tile(moments, count),
        jax.tree.map(lambda leaf: leaf.reshape(count * times, *leaf.shape[2:]), paths),
        jax.tree.map(spread, args),
        jax.random.split(key, count * times),
    )
    found = jax.lax.map(look, rows, batch_size=POINTS)
    return tuple(array.reshape(count, times, *array.shape[1:]) for array in found)


def _summarise(found: tuple[Array, ...], moments: Array, duration: float, trajectories: int) -> Stiffness:
    *projections, left = (np.asarray(array, np.float64) for array in found)
    if not all(np.isfinite(projection).all() for projection in projections):
        raise fault(
            expected="finite Jacobians along the trajectories",
            got="infinite or undefined ones",
            fix="The trajectories blew up, or the field does. Try more steps, or a shorter time.",
        )
    (squares, squares_left), (symmetric, symmetric_left), (rates, rates_left) = (
        ritz_values(projection, left[..., index]) for index, projection in enumerate(projections)
    )
    top_square, square_error = _extreme(squares.real, squares_left)
    lipschitz = np.sqrt(np.maximum(top_square, 0))
    safe = np.where(lipschitz > 0, lipschitz, 1)
    log_norm, log_norm_error = _extreme(symmetric.real, symmetric_left)
    abscissa, abscissa_error = _extreme(rates.real, rates_left)
    negated, decay_error = _extreme(-rates.real, rates_left)
    decay = np.maximum(negated, 0)
    # An error δ in σ² is one of δ/2σ in σ.
    errors = np.stack([square_error / (2 * safe), log_norm_error, abscissa_error, decay_error]) / safe

    def estimate(samples: np.ndarray) -> Estimate:
        return Estimate.from_samples(jnp.asarray(samples, moments.dtype))

    gaps = np.abs(np.diff(np.asarray(moments, np.float64)))
    growth = np.sum((log_norm[:, 1:] + log_norm[:, :-1]) / 2 * gaps, axis=1)
    return Stiffness(
        times=moments,
        lipschitz=estimate(lipschitz),
        log_norm=estimate(log_norm),
        abscissa=estimate(abscissa),
        decay=estimate(decay),
        largest_lipschitz=jnp.asarray(lipschitz.max(), moments.dtype),
        stiffness=estimate(decay.max(axis=1) * duration),
        amplification=estimate(growth),
        residual=jnp.asarray(errors.max(), moments.dtype),
        trajectories=trajectories,
    )


def _extreme(values: np.ndarray, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best = np.argmax(values, axis=-1)[..., None]
    return np.take_along_axis(values, best, -1)[..., 0], np.take_along_axis(residuals, best, -1)[..., 0]
