"""How much a flow moves, and how straight."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    canonical_convolutions,
    check_count,
    checked_field,
    fault,
    guarded_jit,
    ratio_of_means,
    table,
)
from ...calculus import Estimate
from ...follow import Solver, flow
from .._samples import align

TRAJECTORIES = 256


class PathGeometry(AbstractRecord):
    r"""Energy and straightness of a flow's trajectories, with :math:`T=|t_1-t_0|`.

    Attributes:
        energy: :math:`\mathbb{E}\int\lVert v\rVert^2dt`, units of ``y`` squared over time.
        straight_energy: :math:`\mathbb{E}\lVert y_1-y_0\rVert^2/T`, what the same end points would cost along
            straight lines at constant speed; same unit.
        straightness: :math:`\mathbb{E}\int\lVert (y_1-y_0)/(t_1-t_0)-v\rVert^2dt`, same unit; 0 when one Euler
            step is exact.
        relative_straightness: ``straightness / energy``, no unit, from 0 (straight) to 1.
        normalised_energy: :math:`|\mathbb{E}\int\lVert v\rVert^2dt - W_2^2|/W_2^2`, no unit; None when no
            squared Wasserstein distance was given.
        trajectories: how many were followed.
    """

    energy: Estimate
    straight_energy: Estimate
    straightness: Estimate
    relative_straightness: Estimate
    normalised_energy: Estimate | None
    trajectories: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        rows = [
            ("path energy", self.energy, "y²/time"),
            ("energy of straight paths", self.straight_energy, "y²/time"),
            ("straightness (0 = straight)", self.straightness, "y²/time"),
            ("straightness / energy", self.relative_straightness, "1"),
        ]
        if self.normalised_energy is not None:
            rows.append(("normalised path energy", self.normalised_energy, "1"))
        return table("Path geometry", rows, [f"{self.trajectories} trajectories"])


def path_geometry(
    field: Field,
    y0s: PyTree,
    args: PyTree = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    steps: int = 100,
    method: diffrax.AbstractSolver | None = None,
    squared_wasserstein: float | Float[Array, ""] | None = None,
) -> PathGeometry:
    r"""Measure path energy and straightness of the flow of a velocity field.

    .. math::
        E = \mathbb{E}\int\lVert v(t, y_t)\rVert^2dt, \qquad
        S = \mathbb{E}\int\Big\lVert \frac{y_1-y_0}{t_1-t_0} - v(t, y_t)\Big\rVert^2dt
          = E - \frac{\mathbb{E}\lVert y_1-y_0\rVert^2}{|t_1-t_0|}

    The energy is carried along as one more component of the state, so it is integrated by the solver's own rule.
    With that rule the identity on the right holds exactly at any step size (both sides use the same weights), and
    Euler steps give the Riemann sum that papers report. By the same identity rounding, not discretisation, sets
    the smallest straightness that can be seen: about 1e-6 of the energy in float32.

    Args:
        field: ``field(t, y, args) -> dy``.
        y0s: starting points, every leaf with leading axis ``trajectories``.
        args: conditions with the same leading axis, or None.
        t0: start time, 0 by default.
        t1: end time, 1 by default.
        steps: fixed steps of the solver, 100 by default.
        method: the rule of one step, a Diffrax solver. Default: that of :func:`nablax.follow.flow` with fixed steps.
        squared_wasserstein: :math:`W_2^2` between start and target distributions, in units of ``y`` squared; gives
            the normalised path energy (for ``t1 - t0`` of 1). Taken as exact.

    Returns:
        A `PathGeometry`; standard errors are over trajectories.

    Raises:
        ValueError: leading axes disagree; starts are not finite floats; the field's value is not shaped like ``y``;
            ``t0`` equals ``t1``; fewer than one step.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import path_geometry
        >>> record = path_geometry(lambda t, y, args: jnp.full_like(y, 3.0), jnp.zeros((5, 1)), steps=4)
        >>> float(record.energy.value), float(record.straightness.value)
        (9.0, 0.0)

    Cost:
        ``steps`` solver steps a trajectory (two forward passes each with Heun), 256 trajectories at once.

    References:
        - Liu, Gong and Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
          2022, https://arxiv.org/abs/2209.03003 (straightness)
        - Tong et al., "Simulation-free Schrödinger bridges via score and flow matching", 2023,
          https://arxiv.org/abs/2307.03672 (normalised path energy)
    """
    field, steps = checked_field(field), check_count(steps, what="steps")
    _, y0s, trajectories = align(t0, y0s, args)
    if t0 == t1:
        raise fault(expected="t0 and t1 apart", got=f"{t0} twice", fix="A path needs some time.")
    energies, straight = _follow(field, y0s, args, jnp.asarray(t0), jnp.asarray(t1), steps, method)
    energy = Estimate.from_samples(energies)
    normalised = None
    if squared_wasserstein is not None:
        normalised = Estimate(
            jnp.abs(energy.value - squared_wasserstein) / squared_wasserstein,
            energy.standard_error / squared_wasserstein,
        )
    return PathGeometry(
        energy=energy,
        straight_energy=Estimate.from_samples(straight),
        straightness=Estimate.from_samples(energies - straight),
        relative_straightness=ratio_of_means(energies - straight, energies),
        normalised_energy=normalised,
        trajectories=trajectories,
    )


@guarded_jit
@canonical_convolutions
def _follow(
    field: Field,
    y0s: PyTree,
    args: PyTree,
    t0: Float[Array, ""],
    t1: Float[Array, ""],
    steps: int,
    method: diffrax.AbstractSolver | None,
) -> tuple[Float[Array, " trajectories"], Float[Array, " trajectories"]]:

    def augmented(t: Float[Array, ""], state: tuple, condition: PyTree) -> tuple:
        velocity = field(t, state[0], condition)
        return velocity, optax.tree.vdot(velocity, velocity)

    def trajectory(row: tuple) -> tuple[Float[Array, ""], Float[Array, ""]]:
        y0, condition = row
        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(y0)))
        end = flow(augmented, (y0, zero), t0, t1, args=condition, solver=Solver(steps=steps, method=method)).ys
        displacement = optax.tree.sub(end[0], y0)
        # Backwards in time the integral of a square comes out negative.
        duration = jnp.abs(t1 - t0).astype(zero.dtype)
        return jnp.abs(end[1]), optax.tree.vdot(displacement, displacement) / duration

    return jax.lax.map(trajectory, (y0s, args), batch_size=TRAJECTORIES)
