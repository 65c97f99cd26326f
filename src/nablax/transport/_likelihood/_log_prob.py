"""The density of a flow's samples: the divergence integrated along each trajectory, with what is known of its error."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, Estimate, Field
from ...follow import Solver, flow

# Kronrod's 15 nodes on [-1, 1], the non-negative ones from the outside in, their weights, and the weights of Gauss's
# 7-point rule, which sits on every other node (Kronrod 1964; tabulated in QUADPACK as qk15).
_NODES = np.array(
    [
        0.991455371120812639206854697526329,
        0.949107912342758524526189684047851,
        0.864864423359769072789712788640926,
        0.741531185599394439863864773280788,
        0.586087235467691130294144691693013,
        0.405845151377397166906606412076961,
        0.207784955007898467600689403773245,
        0.0,
    ]
)
_KRONROD = np.array(
    [
        0.022935322010529224963732008058970,
        0.063092092629978553290700663189204,
        0.104790010322250183839876322541518,
        0.140653259715525918745189590510238,
        0.169004726639267902826583426598550,
        0.190350578064785409913256402421014,
        0.204432940075298892414161999234649,
        0.209482141084727828012999174891714,
    ]
)
_GAUSS = np.zeros(8)
_GAUSS[1::2] = (
    0.129484966168869693270611432679082,
    0.279705391489276667901467771423780,
    0.381830050505118944950369775488975,
    0.417959183673469387755102040816327,
)


class LogProb(AbstractRecord):
    """Log-densities with what is known of their error.

    Attributes:
        value: log-density of each row, in nats.
        standard_error: of the stochastic divergence, in nats; zero where the divergence is exact, NaN for one probe.
        integration_error: gap between the two quadratures of the divergence, in nats; the error of ``value`` from
            this source is usually below it, by far where the field is smooth.
        round_trip_error: root-mean-square gap, in units of the data, between each row and its encoding sent forwards
            again; NaN when it was not asked for.
        evaluations: of the velocity, those of its divergence included.
    """

    value: Float[Array, " rows"]
    standard_error: Float[Array, " rows"]
    integration_error: Float[Array, " rows"]
    round_trip_error: Float[Array, " rows"]
    evaluations: Array

    def table(self) -> str:
        """Mean over rows, as text."""
        count = self.value.shape[0]
        spread = float(Estimate.from_samples(self.value).standard_error)
        return "\n".join(
            (
                f"log-likelihood, mean of {count} rows   {float(jnp.mean(self.value)):.4f} ± {spread:.4f} nats",
                f"from the divergence's probes           ± {float(jnp.mean(self.standard_error)):.2g} nats a row",
                f"from its integration, at most about    {float(jnp.mean(self.integration_error)):.2g} nats a row",
                f"round trip                             {float(jnp.mean(self.round_trip_error)):.2g}",
                f"evaluations of the velocity            {int(self.evaluations)}",
            )
        )


def divergence_along(
    velocity: Field,
    divergence: Callable[[Array, PyTree, PyTree], Float[Array, " rows *probes"]],
    ys: Float[Array, " rows *shape"],
    args: PyTree,
    start: float,
    end: float,
    *,
    panels: int,
    solver: Solver,
) -> tuple[Array, Array, Array, Array]:
    r"""Follow a batch and integrate a function of its trajectories, $\int_{start}^{end} \nabla\cdot v\,dt$.

    The divergence costs D Jacobian products and does not steer the trajectory, so it is kept out of the solver: the
    trajectories are solved alone, and the divergence is taken at the nodes of a Gauss–Kronrod rule on a few panels,
    each of which spans as many of Tsit5's adaptive steps as the others. In a network with kinks the divergence jumps;
    a solver that is made to resolve the jumps of every row takes ten times as many evaluations for the same error.

    Args:
        velocity: of the batch, ``velocity(t, ys, args)``.
        divergence: of the batch, likewise; a leading axis over rows.
        ys: the batch at ``start``.
        args: handed on.
        start: first time.
        end: last time.
        panels: how many; of equal length where the solver's steps are.
        solver: of the trajectories.

    Returns:
        The batch at ``end``; the integral; its gap to the embedded Gauss rule; evaluations of the velocity.
    """
    dtype = ys.dtype
    if solver.steps is None:
        edges, evaluations = _edges(velocity, ys, args, start, end, panels, solver)
    else:
        edges, evaluations = jnp.linspace(start, end, panels + 1, dtype=dtype), jnp.asarray(0)
    half, middle = (edges[1:] - edges[:-1]) / 2, (edges[1:] + edges[:-1]) / 2
    nodes = np.concatenate([-_NODES, _NODES[-2::-1]]).astype(dtype)
    times = (middle[:, None] + jnp.outer(half, jnp.asarray(nodes))).reshape(-1)
    solved = flow(velocity, ys, start, end, args=args, solver=solver, ts=jnp.append(times, edges[-1]))
    values = jax.lax.map(lambda node: divergence(node[0], node[1], args), (times, solved.ys[:-1]))

    def integrate(weights: np.ndarray) -> Array:
        weights = np.concatenate([weights, weights[-2::-1]]).astype(dtype)
        return jnp.tensordot(jnp.outer(half, jnp.asarray(weights)).reshape(-1), values, 1)

    integral = integrate(_KRONROD)
    count = evaluations + solved.stats["num_evaluations"] + len(nodes) * panels
    return solved.ys[-1], integral, jnp.abs(integral - integrate(_GAUSS)), count


def _edges(
    velocity: Field, ys: Array, args: PyTree, start: float, end: float, panels: int, solver: Solver
) -> tuple[Float[Array, " edges"], Array]:
    """Times that share out Tsit5's adaptive steps evenly: where it treads carefully, the divergence too moves fast."""
    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        start,
        end,
        None,
        ys,
        args,
        saveat=diffrax.SaveAt(steps=True, fn=lambda t, y, args: None),
        stepsize_controller=diffrax.PIDController(rtol=solver.rtol, atol=solver.atol),
    )
    assert solved.ts is not None
    times = jnp.concatenate([jnp.full((1,), start, ys.dtype), jnp.where(jnp.isfinite(solved.ts), solved.ts, end)])
    places = jnp.linspace(0.0, 1.0, panels + 1) * solved.stats["num_accepted_steps"]
    edges = jnp.interp(places, jnp.arange(times.size, dtype=places.dtype), times)
    # Exactly at both ends, whatever the rounding of the interpolation.
    edges = edges.at[0].set(start).at[-1].set(end).astype(ys.dtype)
    return jax.lax.stop_gradient(edges), 6 * solved.stats["num_steps"]


__all__ = ["LogProb", "divergence_along"]
