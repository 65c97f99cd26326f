"""A table's values along their flow, and their density: Runge and Kutta's method as one loop over its slopes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...calculus import value_and_divergence
from ...transport import Transport

STEPS = 32

# Runge and Kutta's method of order four: where each of its slopes is taken, and with what weight it counts.
_AT = (0.0, 0.5, 0.5, 1.0)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


_Slopes = Callable[[Array, Array, Array], tuple[Array, Array]]


@eqx.filter_jit
def drawn_values(
    transport: Transport, args: Float[Array, "rows condition"], steps: Int[Array, ""], key: Key
) -> Float[Array, "rows values"]:
    """Draw points, one for each condition vector, of the same key from the same noise whatever the steps.

    Cost:
        4 ``steps`` evaluations of the field.
    """
    # One draw of the standard normal; a key for each row would be compiled as well.
    noise = jax.random.normal(key, (len(args), *transport.space.shape), args.dtype)
    return _followed(_velocities(transport), noise, args, steps, *transport.path.times)[0]


@eqx.filter_jit
def value_log_density(
    transport: Transport,
    points: Float[Array, "rows values"],
    args: Float[Array, "rows condition"],
    steps: Int[Array, ""],
    round_trip: bool = False,
) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
    r"""Log-density of points, $\log p_1(y_1) = \log p_0(y_0) - \int_0^1 \nabla\cdot v(t, y_t)\,dt$.

    Trajectory and integral are one system of equations, solved from data to noise. The four slopes of a step are turns
    of the loop, so that the field and its Jacobian stand in the program once: it compiles in a third of the time of
    `Transport.log_prob`, which takes fewer products with the Jacobian. A small table is scored in less time than either
    takes to compile.

    Args:
        transport: of the values, from a standard normal.
        points: normal scores.
        args: their condition vectors.
        steps: how many; traced, so that one program serves any number. With 32 the values of penguins are within 1e-5
            nats a row (root mean square) of those of 256 steps, with 16 within 0.001.
        round_trip: also send the codes forwards again.

    Returns:
        Nats; and the root-mean-square gap between each point and its code sent forwards, NaN where not asked for.

    Cost:
        4 ``steps`` evaluations of the field, with as many Jacobian-vector products each as there are values.
    """
    first, last = transport.path.times
    slopes = jax.vmap(value_and_divergence(transport.velocity), in_axes=(None, 0, 0))
    codes, integral = _followed(slopes, points, args, steps, last, first)
    # The integral runs backwards: it is minus the formula's.
    value = jax.vmap(transport.prior.log_prob)(codes) + integral  # type: ignore[union-attr]
    if not round_trip:
        return value, jnp.full_like(value, jnp.nan)
    back, _ = _followed(_velocities(transport), codes, args, steps, first, last)
    return value, jnp.sqrt(jnp.mean(jnp.square(back - points), axis=1))


@eqx.filter_jit
def codes_of(
    transport: Transport,
    points: Float[Array, "rows values"],
    args: Float[Array, "rows condition"],
    steps: Int[Array, ""],
) -> Float[Array, "rows values"]:
    """Where points come from: the noise of which `drawn_values` makes them.

    Cost:
        4 ``steps`` evaluations of the field.
    """
    first, last = transport.path.times
    return _followed(_velocities(transport), points, args, steps, last, first)[0]


def _velocities(transport: Transport) -> _Slopes:
    """The velocity of a batch, with nothing to integrate beside it."""

    def slopes(t: Array, ys: Array, args: Array) -> tuple[Array, Array]:
        return jax.vmap(transport.velocity, in_axes=(None, 0, 0))(t, ys, args), jnp.zeros(len(ys), ys.dtype)

    return slopes


def _followed(slopes: _Slopes, ys: Array, args: Array, steps: Array, start: float, end: float) -> tuple[Array, Array]:
    """Where the rows come out, and the integral of what comes beside their slopes."""
    at, weights = jnp.asarray(_AT, ys.dtype), jnp.asarray(_WEIGHTS, ys.dtype)
    step = (end - start) / jnp.asarray(steps, ys.dtype)

    def turn(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        y, integral, slope, total = carry
        stage = i % 4
        t = start + step * (i // 4 + at[stage])
        slope, rate = slopes(t, y + step * at[stage] * slope, args)
        integral = integral + step * weights[stage] * rate
        total = total + step * weights[stage] * slope
        done = stage == 3
        return jnp.where(done, y + total, y), integral, slope, jnp.where(done, 0.0, total)

    begin = (ys, jnp.zeros(len(ys), ys.dtype), jnp.zeros_like(ys), jnp.zeros_like(ys))
    y, integral, _, _ = jax.lax.fori_loop(0, 4 * steps, turn, begin)
    return y, integral


__all__ = ["STEPS", "codes_of", "drawn_values", "value_log_density"]
