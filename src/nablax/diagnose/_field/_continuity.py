"""Do a velocity and a density belong together?"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    canonical_convolutions,
    check_callable,
    check_loss,
    checked_field,
    nonzero,
    ratio_of_means,
    root_mean_square,
    table,
)
from ...calculus import Estimate, value_and_divergence
from .._samples import align

EVALUATIONS = 2048
_SCALAR = "It is log_density(t, y, args) -> nats, one number for one sample; sum over its components."


class Continuity(AbstractRecord):
    r"""Residual of the continuity equation beside its three terms, each in nats per unit time.

    Attributes:
        residual: root mean square over samples of
            :math:`\partial_t\log p + v\cdot\nabla\log p + \nabla\cdot v`.
        bias: mean of the residual, sign kept.
        time_derivative: root mean square of :math:`\partial_t\log p`.
        advection: root mean square of :math:`v\cdot\nabla\log p`.
        divergence: root mean square of :math:`\nabla\cdot v`.
        relative: residual over the root of the terms' summed mean squares, no unit: 0 when velocity and density
            belong together, of order 1 when a sign or a factor is wrong. It means nothing where all three terms
            are themselves zero to rounding.
        samples: number of samples.
    """

    residual: Estimate
    bias: Estimate
    time_derivative: Estimate
    advection: Estimate
    divergence: Estimate
    relative: Estimate
    samples: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        unit = "nats/time"
        return table(
            "Continuity equation (0 = velocity and density belong together)",
            [
                ("residual, RMS", self.residual, unit),
                ("residual, mean", self.bias, unit),
                ("∂ log p/∂t, RMS", self.time_derivative, unit),
                ("v·∇ log p, RMS", self.advection, unit),
                ("div v, RMS", self.divergence, unit),
                ("residual / terms", self.relative, "1"),
            ],
            [f"{self.samples} samples"],
        )


def continuity(
    velocity: Field,
    log_density: Callable[[Float[Array, ""], PyTree, PyTree], Float[Array, ""]],
    t: float | Float[Array, "..."],
    ys: PyTree,
    args: PyTree = None,
) -> Continuity:
    r"""Measure how well a velocity and a log-density satisfy the continuity equation at given samples.

    .. math:: \partial_t\log p + v\cdot\nabla\log p + \nabla\cdot v = 0

    This is the property that sampling and likelihood rest on. It leaves the velocity a freedom: any r with
    :math:`\nabla\cdot r + r\cdot\nabla\log p = 0` may be added, conservative or not.

    Args:
        velocity: ``velocity(t, y, args) -> dy``.
        log_density: ``log_density(t, y, args) -> nats``, a scalar that JAX can differentiate in ``t`` and ``y``.
            Without its normalisation constant it will do, if that does not change in time.
        t: one time, or one per sample.
        ys: samples, every leaf with leading axis ``samples``; draw them from p to weigh the residual by p.
        args: conditions with the same leading axis, or None.

    Returns:
        A `Continuity`; standard errors are over samples.

    Raises:
        ValueError: leading axes disagree; samples are not finite floats; the velocity is not shaped like ``y``; the
            log-density is not one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import continuity
        >>> velocity = lambda t, y, args: y / (1 + t)  # N(0, (1 + t)²)
        >>> log_density = lambda t, y, args: -0.5 * jnp.sum(y**2) / (1 + t) ** 2 - jnp.log(1 + t)
        >>> record = continuity(velocity, log_density, 0.0, jnp.array([[0.5], [2.0]]))
        >>> float(record.residual.value)
        0.0

    Cost:
        Per sample: one forward pass and D JVPs of the velocity (its exact divergence), two JVPs of the density.

    References:
        - Villani, "Topics in Optimal Transportation", 2003, https://doi.org/10.1090/gsm/058 (the equation; here
          divided by p)
    """
    velocity = checked_field(velocity)
    times, ys, samples = align(t, ys, args)
    check_callable(log_density, what="a log-density", fix=_SCALAR)
    first = jax.tree.map(lambda leaf: leaf[0], (times, ys, args))
    check_loss(jax.eval_shape(log_density, *first), what="a log-density", fix=_SCALAR)
    numbers = _measure(velocity, log_density, times, ys, args)
    return Continuity(**numbers, samples=samples)


@eqx.filter_jit
@canonical_convolutions
def _measure(
    velocity: Field,
    log_density: Callable[[Float[Array, ""], PyTree, PyTree], Float[Array, ""]],
    times: Float[Array, " samples"],
    ys: PyTree,
    args: PyTree,
) -> dict[str, Estimate]:
    def terms(row: tuple) -> tuple[Float[Array, ""], ...]:
        t, y, condition = row
        dy, divergence = value_and_divergence(velocity)(t, y, condition)
        _, push = jax.linearize(lambda time, state: log_density(time, state, condition), t, y)
        along_time = push(jnp.ones_like(t), optax.tree.zeros_like(y))
        along_flow = push(jnp.zeros_like(t), dy)
        return along_time, along_flow, divergence

    directions = min(sum(leaf[0].size for leaf in jax.tree.leaves(ys)), 64)
    time_derivative, advection, divergence = jax.lax.map(
        terms, (times, ys, args), batch_size=max(1, EVALUATIONS // directions)
    )
    residual = time_derivative + advection + divergence
    squares = time_derivative**2 + advection**2 + divergence**2
    # The root of a ratio of mean squares: its error is the ratio's, halved and divided by the root.
    ratio = ratio_of_means(residual**2, squares)
    root = jnp.sqrt(ratio.value)
    relative = Estimate(root, ratio.standard_error / (2 * nonzero(root)))
    return {
        "residual": root_mean_square(residual),
        "bias": Estimate.from_samples(residual),
        "time_derivative": root_mean_square(time_derivative),
        "advection": root_mean_square(advection),
        "divergence": root_mean_square(divergence),
        "relative": relative,
    }
