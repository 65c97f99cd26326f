"""Consensus-based optimisation on Rastrigin's function turned off its place, beside descents from as many starts.

Ten numbers, the minimum drawn at random in a box of which the starts know nothing; as many evaluations for each method,
a gradient counted as one. Of descents the best of all chains' ends counts, as does the best draw of a random search.
The least of the noises is the authors' for noise along coordinates, √1.6, and 100 their sharpness.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import consensus
from .._problems._descent import descended
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="consensus-based-optimisation",
    title="Gradient is All You Need?",
    year=2023,
    link="https://arxiv.org/abs/2306.09778",
    rooms=("optimize",),
    row=8,
    read="code",
)

_DIM, _PARTICLES, _STEPS = 10, 100, 1000
_NOISES = (1.6**0.5, 5.0, 7.0, 9.0, 11.0, 13.0)
_SHARPNESSES = (10.0, 100.0, 1e3, 1e4)


def _problem(key: Key) -> tuple[Callable[[Array], Array], Float[Array, "particles dim"], Key]:
    """Minima about a unit apart, barriers of about 20 a coordinate; starts all over the box."""
    centre_key, start_key, key = jax.random.split(key, 3)
    centre = jax.random.uniform(centre_key, (_DIM,), minval=-2, maxval=2)

    def loss(x: Array) -> Array:
        return jnp.sum((x - centre) ** 2 + 10 * (1 - jnp.cos(2 * jnp.pi * (x - centre))))

    return loss, jax.random.uniform(start_key, (_PARTICLES, _DIM), minval=-3, maxval=3), key


def _agree(setting: Array, key: Key) -> Array:
    loss, start, key = _problem(key)
    noise, sharpness = setting
    found = consensus(loss, start, steps=_STEPS, noise=noise, sharpness=sharpness, key=key, throw=False)
    return jnp.minimum(loss(found.params), 1e3)


def _descend(make: Callable[[Array, Array], optax.GradientTransformation]) -> Run:
    def run(setting: Array, key: Key) -> Array:
        loss, start, _ = _problem(key)
        # Of the sum, so that each start has the gradient of its own loss.
        x, _ = descended(lambda x: jnp.sum(jax.vmap(loss)(x)), start, make(*setting), _STEPS)
        return jnp.minimum(jnp.nanmin(jax.vmap(loss)(x)), 1e3)

    return run


def _shaken(setting: Array, key: Key) -> Array:
    """Langevin dynamics whose temperature falls to zero, the best of all chains."""
    loss, start, key = _problem(key)
    rate, temperature = setting

    def step(x: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        left, key = now
        spread = jnp.sqrt(2 * rate * temperature * left)
        return x - rate * jax.vmap(jax.grad(loss))(x) + spread * jax.random.normal(key, x.shape), None

    # Own loop: a stochastic differential equation.
    x, _ = jax.lax.scan(step, start, (jnp.linspace(1, 0, _STEPS), jax.random.split(key, _STEPS)))
    return jnp.minimum(jnp.nanmin(jax.vmap(loss)(x)), 1e3)


def _search(setting: Array, key: Key) -> Array:
    """As many draws from the box of the starts."""
    loss, _, key = _problem(key)

    def best(lowest: Array, key: Key) -> tuple[Array, None]:
        drawn = jax.random.uniform(key, (_PARTICLES, _DIM), minval=-3, maxval=3)
        return jnp.minimum(lowest, jnp.min(jax.vmap(loss)(drawn))), None

    # Own loop: fresh draws, no descent.
    return jax.lax.scan(best, jnp.array(jnp.inf), jax.random.split(key, _STEPS))[0]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Minimise functions of which each key draws one, by 100,000 evaluations of each.

    Args:
        key: of the functions, starts and noise.
        full: not used: the paper's illustrations are at neither scale.

    Returns:
        One check.
    """
    rates = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 1e-2)
    runs = tuned(
        {
            "consensus": _agree,
            "gradient descent with momentum, 100 starts": _descend(lambda rate, decay: optax.sgd(rate, decay)),
            "Adam, 100 starts": _descend(lambda rate, b1: optax.adam(rate, b1=b1)),
            "annealed Langevin, 100 chains": _shaken,
            "random search": _search,
        },
        {
            "consensus": (_NOISES, _SHARPNESSES),
            "gradient descent with momentum, 100 starts": (rates, (0.0, 0.5, 0.9, 0.99)),
            "Adam, 100 starts": ((3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), (0.0, 0.5, 0.9, 0.99)),
            "annealed Langevin, 100 chains": (rates, (3.0, 10.0, 30.0, 100.0)),
            "random search": (rates, (1.0, 3.0, 10.0, 30.0)),
        },
        "lower",
        key=key,
        keys=24,
        tuning=2,
        ends={
            0.0: "momentum of 0 is none",
            0.99: "momentum of 1 does not fade",
            1e4: "the best particle alone decides",
        },
    )
    return [
        Check(
            "With values alone it comes to within half a unit of Rastrigin's least value, in the mean, and descents "
            "of as many evaluations stay behind barriers.",
            "in words: overcomes energy barriers, and reaches deep levels of nonconvex functions",
            contrasts=runs.contrast("loss reached with 100,000 evaluations", "lower", threshold=0.5),
        )
    ]


__all__ = ["PAPER", "checks"]
