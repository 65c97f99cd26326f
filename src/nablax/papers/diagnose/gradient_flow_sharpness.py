r"""Gradient descent lowers the sharpness of the gradient flow's solution at every step.

Scalar networks $\tfrac12(\prod_i w_i - 1)^2$ of depth four, descended from starts whose flow would end a tenth
sharper than the learning rate can bear, so that descent oscillates at the edge of stability.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import flow_sharpness
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-flow-sharpness",
    title="Gradient Descent Monotonically Decreases the Sharpness of Gradient Flow Solutions in Scalar Networks and "
    "Beyond",
    year=2023,
    link="https://arxiv.org/abs/2305.13064",
    rooms=("diagnose",),
    row=102,
    read="abstract",
)

DEPTH = 4


def _loss(w: Float[Array, " depth"]) -> Float[Array, ""]:
    return 0.5 * (jnp.prod(w) - 1) ** 2


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that the solution's sharpness falls where sharpness and loss do not, and where descent settles.

    Args:
        key: of all randomness.
        full: more starts and more iterates on each path. The paper's image networks are not attempted.

    Returns:
        Two checks.
    """
    starts, looks = (64, 100) if full else (8, 24)
    start_key, flow_key = jax.random.split(key)
    # Minima, unbalanced enough that flatter ones below two over the rate exist: the flattest has sharpness four.
    logs = jax.random.normal(start_key, (starts, DEPTH))
    logs = logs - jnp.mean(logs, axis=1, keepdims=True)
    draws = jnp.exp(1.2 * logs / jnp.linalg.norm(logs, axis=1, keepdims=True))

    solution, sharpness, loss, (edge, left), flow_edge = (
        np.asarray(x, np.float64) for x in _descended(1.02 * draws, flow_key, looks)
    )
    paths = {"flow's solution": solution, "iterate": sharpness, "loss instead": loss}
    # A flow that does not converge counts as a doubling.
    rises = {
        name: np.nan_to_num(100 * np.max(path[:, 1:] / path[:, :-1] - 1, axis=1), nan=100.0)
        for name, path in paths.items()
    }
    ends = {
        "gradient descent": np.maximum(np.abs(edge - 1.9) / 0.1, left / 1e-3),
        "gradient flow": np.abs(flow_edge - 1.9) / 0.1,
    }
    return [
        Check(
            "Gradient descent lowers the sharpness of the gradient flow's solution at every step.",
            "proved for scalar networks",
            # The eigenvalue of the solution is found to a few parts in ten thousand.
            contrasts=Contrast("largest rise of the sharpness in a step of a path, %", rises, "lower", threshold=0.1),
        ),
        Check(
            "Gradient descent ends at the edge of stability: sharpness times rate 1.8 to 2, loss below 0.001.",
            "proved for scalar networks: just below two over the learning rate",
            contrasts=Contrast("largest miss of both at the end of a path, tolerances", ends, "lower", threshold=1.0),
            moved_from="sharpness times rate 1.9 to 2",
        ),
    ]


@partial(jax.jit, static_argnames="looks")
def _descended(begin: Float[Array, "starts depth"], key: Key, looks: int) -> tuple[Array, ...]:
    """First on each path the sharpness of the solution and the iterate, and the loss; last, of descent and flow."""
    first, _ = _solutions(begin, key)
    # The rate at which the flow's own end would be unstable by a tenth.
    rates = 2.2 / first

    def path(w: Array, rate: Array) -> tuple[Array, Array]:
        def descend(w: Array, steps: int, record: Callable | None) -> tuple[Array, Array]:
            return trained(lambda w, _: _loss(w), w, optax.sgd(rate), _nothing, steps, key=key, record=record)

        looked, iterates = descend(w, looks - 1, lambda w, state, value: w)
        return descend(looked, 20_000 - looks, None)[0], jnp.concatenate([w[None], iterates])

    ends, iterates = jax.vmap(path)(begin, rates)
    solution, sharpness = _solutions(iterates.reshape(-1, DEPTH), key)
    _, last = _solutions(ends, key)
    return (
        solution.reshape(-1, looks),
        sharpness.reshape(-1, looks),
        jnp.maximum(jax.vmap(jax.vmap(_loss))(iterates), 1e-12),
        jnp.stack([last * rates, jax.vmap(_loss)(ends)]),
        first * rates,
    )


def _solutions(points: Float[Array, "points depth"], key: Key) -> tuple[Array, Array]:
    """Sharpness of the flow's solution from some points, NaN where it is not reached, and of the points."""
    record = jax.lax.map(lambda w: flow_sharpness(_loss, w, key=key), points)
    return jnp.where(record.converged, record.solution_sharpness, jnp.nan), record.sharpness


def _nothing(step: Array, key: Key) -> None:
    """No batches: the loss is of the weights alone."""


__all__ = ["PAPER", "checks"]
