"""The Ginzburg–Landau energy of two moons with ten labels: steps with momentum and without, and of L-BFGS."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import ginzburg_landau
from .._problems._descent import descended
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="ginzburg-landau",
    title="Momentum-based minimization of the Ginzburg-Landau functional on Euclidean spaces and graphs",
    year=2024,
    link="https://arxiv.org/abs/2501.00389",
    rooms=("optimize",),
    row=115,
    read="abstract",
)

_NODES, _MOST, _SMALL, _WIDTH = 120, 600, 1e-3, 1.0


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count steps until the gradient of the energy is a thousandth of the first, at the best of twelve rates.

    Args:
        key: of the points.
        full: 600 points. The paper's planes and surfaces are at neither scale.

    Returns:
        Two checks.
    """
    nodes = 5 * _NODES if full else _NODES
    runs = tuned(
        {
            "with momentum": _split(nodes, 0.9),
            "without momentum": _split(nodes, 0.0),
            "L-BFGS": _quasi_newton(nodes),
        },
        (2.0 ** np.arange(-4, 8)).tolist(),
        "lower",
        key=key,
        keys=5,
        ends={2.0**7: "the step tends to that of an endless rate", 2.0**-4: "L-BFGS has no rate"},
    )
    metric = f"steps until the energy's gradient is {_SMALL:g} of the first"
    return [
        Check(
            "With momentum the energy's least is reached in fewer steps, each at its best rate.",
            "faster if the time step is large but not too large, in words",
            contrasts=runs.contrast(metric, "lower", against=("without momentum",)),
            moved_from="in at most two thirds of the steps",
        ),
        Check(
            "It takes fewer steps than L-BFGS.",
            "not among the paper's baselines",
            expected=False,
            tried="momentum 0.9, twelve rates: a quarter more, each with a product by the inverse in it",
            contrasts=runs.contrast(metric, "lower", against=("L-BFGS",)),
        ),
    ]


def _moons(key: Key, nodes: int) -> tuple[Float[Array, "nodes nodes"], Float[Array, " nodes"]]:
    """The normalised Laplacian of two half circles that lie within one another, and five labels of each."""
    half = nodes // 2
    angle = jnp.linspace(0, jnp.pi, half)
    upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    points = jnp.concatenate([upper, jnp.array([[1.0, 0.5]]) - upper]) + 0.1 * jax.random.normal(key, (2 * half, 2))
    square = jnp.sum((points[:, None] - points[None]) ** 2, -1)
    weights = jnp.exp(-square / (2 * 0.15**2)) * (1 - jnp.eye(2 * half))
    root = jnp.sqrt(jnp.sum(weights, 1))
    laplacian = jnp.eye(2 * half) - weights / root[:, None] / root[None]
    shown = jnp.zeros(half).at[:: half // 5].set(1.0)
    return laplacian, jnp.concatenate([shown, -shown])


def _first(small: Array) -> Float[Array, ""]:
    return jnp.where(jnp.any(small), jnp.argmax(small), len(small)).astype(jnp.float32)


def _split(nodes: int, momentum: float) -> Callable[[Array, Key], Array]:
    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        laplacian, labels = _moons(key, nodes)
        found = ginzburg_landau(
            laplacian, labels, labels, width=_WIDTH, rate=rate, momentum=momentum, steps=_MOST, throw=False
        )
        return _first(found.gradients <= _SMALL * found.gradients[0])

    return run


def _quasi_newton(nodes: int) -> Callable[[Array, Key], Array]:
    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        laplacian, labels = _moons(key, nodes)

        def energy(u: Array) -> Array:
            wells, misfit = jnp.sum((u**2 - 1) ** 2) / 4, jnp.sum(jnp.abs(labels) * (u - labels) ** 2) / 2
            return _WIDTH / 2 * u @ laplacian @ u + wells / _WIDTH + misfit

        def left(u: Array, *_: Any) -> Array:
            return jnp.linalg.norm(jax.grad(energy)(u))

        _, gradients = descended(energy, labels, optax.lbfgs(), 100, record=left)
        return _first(jnp.append(left(labels), gradients) <= _SMALL * left(labels))

    return run


__all__ = ["PAPER", "checks"]
