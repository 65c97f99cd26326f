"""Two crowds of particles that descend and ascend one payoff, noisily: mixed strategies of a continuous game."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_loss,
    check_pair,
    exact,
    space,
)
from .._outcome import all_finite, outcome
from .._settings import check_positive, rate_at
from ._crowd import crowd


class MixedStrategies(AbstractRecord):
    """Two crowds, each a mixed strategy.

    Attributes:
        params: both players' particles, a pair of trees with leading axes.
        values: the mean payoff over all pairs before each step, [steps].
        result: ``optimistix.RESULTS.successful``, or that a number was not finite.
        evaluations: of the payoff's gradients, of either player in all.
    """

    params: tuple[PyTree, PyTree]
    values: Float[Array, " steps"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def mean_field_descent_ascent(
    payoff: Callable[[PyTree, PyTree], Array],
    start: tuple[PyTree, PyTree],
    *,
    steps: int,
    step_size: float = 0.01,
    sharpness: optax.ScalarOrSchedule = 1.0,
    timescale: float = 1.0,
    key: jax.Array,
    throw: bool = True,
) -> MixedStrategies:
    r"""Find mixed strategies of a zero-sum game by two crowds that descend and ascend, with noise.

    .. math::
        dX_i = -\frac1M\sum_j\nabla_xK(X_i,Y_j)\,dt+\sqrt{2/\beta}\,dW, \qquad
        dY_j = \frac\eta N\sum_i\nabla_yK(X_i,Y_j)\,dt+\sqrt{2\eta/\beta}\,dW

    The first player pays K to the second. With many particles the crowds tend to the one equilibrium of the payoff with
    entropy, :math:`\mu\propto e^{-\beta\int K\,d\nu}`, :math:`\nu\propto e^{\beta\int K\,d\mu}`, whatever K's shape,
    where either player is fast enough beside the other (η far from 1: that is what is proved); as β grows, to mixed
    equilibria of K itself. Without noise crowds go round in circles where no pure equilibrium is.

    Args:
        payoff: K, ``payoff(x, y) -> scalar`` of one particle each.
        start: both players' particles, a pair of trees of arrays with leading axes.
        steps: turns, by Euler and Maruyama.
        step_size: h, time a step of the first player, 0.01 by default, ours; the second's is ηh.
        sharpness: β, one over the temperature, per unit of the payoff; a number or a schedule that grows (the authors'
            like the logarithm of the time); 1 by default, ours.
        timescale: η, by which the second player is faster than the first; 1 by default, ours.
        key: of the noise.
        throw: raise where a number is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`MixedStrategies`.

    Raises:
        ValueError: settings out of range, no key, no pair of crowds, or a payoff that is no real scalar.
        RuntimeError: a number was not finite; raised when it is run.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> payoff = lambda x, y: x * y + x**2 / 2 - y**2 / 2  # with entropy, both normal with variance 1/β
        >>> start = (jnp.full(200, 2.0), jnp.full(200, -1.0))
        >>> found = optimize.mean_field_descent_ascent(
        ...     payoff, start, steps=400, step_size=0.05, sharpness=4.0, key=jax.random.key(0)
        ... )
        >>> [round(float(jnp.std(crowd)), 1) for crowd in found.params]
        [0.5, 0.5]

    Cost: the gradients of all pairs of particles a step, in time and in memory.

    References:
        - Lu, "Two-Scale Gradient Descent Ascent Dynamics Finds Mixed Nash Equilibria of Continuous Games: A Mean-Field
          Perspective", 2022, https://arxiv.org/abs/2212.08791 (after the abstract; the noise's factor √η follows from
          the fixed point).
    """
    check_callable(payoff, what="payoff", fix="Pass payoff(x, y) -> scalar of one particle each.", takes=2)
    steps = check_count(steps, what="steps")
    check_positive(step_size=step_size, timescale=timescale)
    if not callable(sharpness):
        check_positive(sharpness=sharpness)
    check_key(key)
    pair = check_pair(start, expected="two crowds, (xs, ys)", fix="Pass a pair of trees with leading axes.")
    check_floats(pair, what="crowds", fix="Keep what is not moved out of them, in the payoff.")
    sizes = [crowd(one, least=1) for one in pair]
    first, second = (space(jax.tree.map(lambda leaf: leaf[0], one)) for one in pair)
    xs, ys = (jax.vmap(lambda particle: space(particle).flat)(one) for one in pair)

    def total(xs: Array, ys: Array) -> Array:
        """Of it the gradients are those of each particle's own mean payoff, over the particles of its crowd."""

        def meet(x: Array, y: Array) -> Array:
            return check_loss(payoff(first.tree(x), second.tree(y)), what="a payoff")

        return jnp.mean(jax.vmap(lambda x: jax.vmap(lambda y: meet(x, y))(ys))(xs))

    def turn(crowds: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        step, key = now
        value, (down, up) = jax.value_and_grad(total, argnums=(0, 1))(*crowds)
        keys = jax.random.split(key)
        moved = []
        for points, slope, speed, draw in zip(crowds, (-sizes[0] * down, sizes[1] * up), (1.0, timescale), keys):
            spread = jnp.sqrt(2 * speed * step_size / rate_at(sharpness, step)).astype(points.dtype)
            drawn = jax.random.normal(draw, points.shape, points.dtype)
            moved.append((points + speed * step_size * slope + spread * drawn).astype(points.dtype))
        return (moved[0], moved[1]), value

    numbered = jnp.arange(steps), jax.random.split(key, steps)
    crowds, values = jax.lax.scan(turn, (xs, ys), numbered)
    params = (first.rows(crowds[0]), second.rows(crowds[1]))
    params, result = outcome(params, all_finite((crowds, values)), throw)
    return MixedStrategies(params, values, result, steps * (sizes[0] + sizes[1]))
