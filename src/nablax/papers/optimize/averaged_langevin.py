"""A planted direction in a noisy tensor: the average of Langevin dynamics beside its last state and beside descent.

Order three, dimension 20, the noise that of n = 2d² samples, where descent from a random start is at its limit
(d² samples too, for this order, but for constants).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import averaged_langevin
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="averaged-langevin",
    title="Improved high-dimensional estimation with Langevin dynamics and stochastic weight averaging",
    year=2026,
    link="https://arxiv.org/abs/2603.06028",
    rooms=("optimize",),
    row=21,
    read="abstract",
)

_DIM, _STEPS, _STEP = 20, 20_000, 0.01


class _Planted(NamedTuple):
    direction: Float[Array, " dim"]
    tensor: Float[Array, "dim dim dim"]

    def loss(self, theta: Float[Array, " dim"]) -> Float[Array, ""]:
        """Minus how well three times the direction fits the tensor."""
        return -(((self.tensor @ theta) @ theta) @ theta)


def _problem(key: Key, samples: int) -> tuple[_Planted, Float[Array, " dim"], Key]:
    direction_key, noise_key, start_key, key = jax.random.split(key, 4)
    direction = jax.random.normal(direction_key, (_DIM,))
    direction = direction / jnp.linalg.norm(direction)
    noise = jax.random.normal(noise_key, (_DIM, _DIM, _DIM)) / samples**0.5
    cube = direction[:, None, None] * direction[None, :, None] * direction[None, None, :]
    return _Planted(direction, cube + noise), jax.random.normal(start_key, (_DIM,)), key


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Look for planted directions of which each key draws one.

    Args:
        key: of the directions, tensors, starts and noise.
        full: 20 times the directions. The paper's sizes, d = 100, are at neither scale.

    Returns:
        One check.
    """
    samples = 2 * _DIM**2

    def dynamics(strength: Array, key: Key, *, last: bool) -> Array:
        planted, start, key = _problem(key, samples)
        found = averaged_langevin(
            planted.loss, start, steps=_STEPS, step_size=_STEP, strength=strength, key=key, throw=False
        )
        return (found.last if last else found.params) @ planted.direction

    def descent(rate: Array, key: Key) -> Array:
        planted, start, _ = _problem(key, samples)

        def step(theta: Array, _: None) -> tuple[Array, None]:
            theta = theta - rate * jax.grad(planted.loss)(theta)
            return theta / jnp.linalg.norm(theta), None

        # Own loop: back onto the sphere after each step.
        return jax.lax.scan(step, start / jnp.linalg.norm(start), length=_STEPS)[0] @ planted.direction

    grid = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    runs = tuned(
        {
            "average": lambda strength, key: dynamics(strength, key, last=False),
            "last state": lambda strength, key: dynamics(strength, key, last=True),
            "gradient descent": descent,
        },
        {"average": grid, "last state": grid, "gradient descent": tuple(4.0**k for k in range(-4, 4))},
        "higher",
        key=key,
        keys=160 if full else 16,
        tuning=3,
        ends={64.0: "above it steps are longer than the sphere", 4.0**-4: "descent has come as far as it will"},
    )
    return [
        Check(
            "Of n = 2d² samples the average of the dynamics has a correlation with the planted direction higher by "
            "0.05 or more than its last state and than gradient descent.",
            "n of the order of d^⌈k/2⌉ is enough where one considers the average rather than the last iterate, a "
            "theorem in the abstract",
            contrasts=runs.contrast("correlation with the planted direction", "higher", margin=0.05),
            moved_from="by 0.1: there is no more than that between the last state and 1",
        )
    ]


__all__ = ["PAPER", "checks"]
