"""Accurate differential operators for hybrid neural fields: a local fit where autodiff gives noise, and fine-tuning."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import LocalPolynomial, polynomial_operators
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="accurate-differential-operators",
    title="Accurate Differential Operators for Hybrid Neural Fields",
    year=2023,
    link="https://arxiv.org/abs/2312.05984",
    rooms=("calculus",),
    row=94,
    read="text",
)

_RADIUS = 0.5
_SIZES = (16, 64)
_CELL = 2 / 64
# Widths of the fit's ball and of central differences, in cells of the finest grid; the targets of fine-tuning are
# taken from a ball of two.
_WIDTHS = (2, 3, 4, 6, 8, 12)
_BALL = 2 * _CELL


class _HybridField(eqx.Module):
    """Multi-resolution grid of features, interpolated bilinearly on [-1, 1]², read by a small network."""

    grids: list[Float[Array, "size size features"]]
    network: eqx.nn.MLP

    def __init__(self, key: Key) -> None:
        *grid_keys, network_key = jax.random.split(key, len(_SIZES) + 1)
        self.grids = [1e-2 * jax.random.normal(k, (n + 1, n + 1, 2)) for k, n in zip(grid_keys, _SIZES)]
        self.network = eqx.nn.MLP(2 * len(_SIZES), "scalar", 32, 1, key=network_key)

    def __call__(self, y: Float[Array, "2"]) -> Float[Array, ""]:
        return self.network(jnp.concatenate([_interpolate(grid, y) for grid in self.grids]))


def _interpolate(grid: Float[Array, "size size features"], y: Float[Array, "2"]) -> Float[Array, " features"]:
    cells = grid.shape[0] - 1
    place = jnp.clip((y + 1) / 2 * cells, 0, cells - 1e-4)
    low = jnp.floor(place).astype(int)
    a, b = place - low
    i, j = low
    return (1 - a) * ((1 - b) * grid[i, j] + b * grid[i, j + 1]) + a * (
        (1 - b) * grid[i + 1, j] + b * grid[i + 1, j + 1]
    )


def _distance(y: Float[Array, "2"]) -> Float[Array, ""]:
    return jnp.linalg.norm(y) - _RADIUS


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Fit a hybrid field to the signed distance of a circle, differentiate it both ways on the circle, fine-tune it.

    The paper's shapes are three-dimensional and its grid is hashed; here a plane and dense grids of two
    resolutions serve.

    Args:
        key: of all randomness.
        full: five times the training steps, and twelve fields in place of six.

    Returns:
        Three checks.
    """
    steps, keys = (4000, 12) if full else (800, 6)
    *field_keys, place, other = jax.random.split(key, keys + 2)
    pairs = [_fields(one, steps) for one in field_keys]
    misses: dict[str, list[Array]] = {"after fine-tuning": [], "before": []}
    for angles, errors in (_judge(*pair, place) for pair in pairs):
        for name, which in zip(misses, ("fine-tuned", "autodiff")):
            kept = errors[which] / (2 * errors["autodiff"])
            misses[name].append(jnp.maximum(angles[which] / (0.5 * angles["autodiff"]), kept))
    normals, curvature = _at_best_widths([field for field, _ in pairs], place, other)
    return [
        Check(
            "the local fit gives better normals than autodiff of the same field",
            "stated in words",
            contrasts=Contrast("angle to the true normal, °", normals[0], "lower", settings=normals[1]),
            moved_from="an angle below 3° too, which autodiff met as well; half of autodiff's, without differences",
        ),
        Check(
            "the local fit gives better mean curvature",
            "stated in words",
            contrasts=Contrast("error of the curvature", curvature[0], "lower", settings=curvature[1]),
            moved_from="an error below the truth; half of autodiff's and of the truth, without differences",
        ),
        Check(
            "fine-tuning on the fitted gradients makes autodiff itself accurate and keeps the signal",
            "stated in words",
            contrasts=Contrast(
                "largest miss: autodiff's angle, of half of that before; error in value, of twice that before",
                {name: jnp.stack(both) for name, both in misses.items()},
                "lower",
                threshold=1.0,
            ),
        ),
    ]


def _fields(key: Key, steps: int) -> tuple[_HybridField, _HybridField]:
    """One fitted to the distance, and the same fine-tuned on its own values and slopes, both smoothed."""
    start, sites, first, second = jax.random.split(key, 4)
    points = jax.random.uniform(sites, (16_384, 2), minval=-0.9, maxval=0.9)
    exact = points, jax.vmap(_distance)(points), jnp.zeros_like(points)
    field = _train(_HybridField(start), exact, jnp.array(0.0), jnp.array(1e-2), first, steps)
    fits = _smooth(field, points)
    smooth = points, fits.value, fits.gradient
    return field, _train(field, smooth, jnp.array(_CELL**2), jnp.array(2e-3), second, steps)


def _at_best_widths(fields: list[_HybridField], place: Key, other: Key) -> list[tuple[dict, dict]]:
    """Errors of the normals, and of the curvature, by method: each at its best width on other places of the circle."""
    found: list[tuple[dict, dict]] = [({}, {}), ({}, {})]
    for name, differentiate in _METHODS.items():
        widths = (1,) if name == "autodiff" else _WIDTHS

        def errors(width: int, where: Key, differentiate: Callable = differentiate) -> np.ndarray:
            return np.array([_errors(differentiate, field, width * _CELL, where) for field in fields]).T

        trials = np.array([errors(width, other).mean(1) for width in widths])  # [widths, 2]
        for (values, settings), i, best in zip(found, (0, 1), np.argmin(trials, axis=0)):
            values[name] = errors(widths[best], place)[i]
            if len(widths) > 1:
                settings[name] = [f"{widths[best]} cells"]
    return found


def _fitted(field: _HybridField, y: Float[Array, "2"], width: float) -> tuple[Array, Array]:
    fit = polynomial_operators(field, radius=width)(y)
    return fit.gradient, fit.hessian


def _differences(field: _HybridField, y: Float[Array, "2"], width: float) -> tuple[Array, Array]:
    """Central differences of first and second order, of nine values."""
    a, b = width * jnp.eye(2)
    ahead, back = jnp.stack([field(y + a), field(y + b)]), jnp.stack([field(y - a), field(y - b)])
    mixed = (field(y + a + b) - field(y + a - b) - field(y - a + b) + field(y - a - b)) / (4 * width**2)
    second = (ahead - 2 * field(y) + back) / width**2
    return (ahead - back) / (2 * width), jnp.array([[0.0, mixed], [mixed, 0.0]]) + jnp.diag(second)


def _by_autodiff(field: _HybridField, y: Float[Array, "2"], width: float) -> tuple[Array, Array]:
    return jax.grad(field)(y), jax.hessian(field)(y)


_METHODS: dict[str, Callable[[_HybridField, Array, float], tuple[Array, Array]]] = {
    "local fit": _fitted,
    "autodiff": _by_autodiff,
    "central differences": _differences,
}


@eqx.filter_jit
def _smooth(field: _HybridField, points: Float[Array, "n 2"]) -> LocalPolynomial:
    return jax.vmap(polynomial_operators(field, radius=_BALL))(points)


def _circle(place: Key) -> tuple[Float[Array, "points 2"], Float[Array, "points 2"]]:
    """Points of it, and the normals there."""
    angles = jax.random.uniform(place, (500,), maxval=2 * math.pi)
    normals = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    return _RADIUS * normals, normals


def _degrees(gradients: Float[Array, "points 2"], normals: Float[Array, "points 2"]) -> Float[Array, ""]:
    cosine = jnp.sum(gradients * normals, axis=1) / jnp.linalg.norm(gradients, axis=1)
    return jnp.mean(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1))))


@eqx.filter_jit
def _errors(differentiate: Callable, field: _HybridField, width: float, place: Key) -> tuple[Array, Array]:
    """Mean errors on the circle: of normals in degrees, and of the curvature, the divergence of the unit gradient."""
    circle, normals = _circle(place)
    gradients, hessians = jax.vmap(lambda y: differentiate(field, y, width))(circle)
    lengths = jnp.linalg.norm(gradients, axis=1)
    along = jnp.einsum("ni,nij,nj->n", gradients, hessians, gradients) / lengths**2
    curvatures = (jnp.trace(hessians, axis1=1, axis2=2) - along) / lengths
    return _degrees(gradients, normals), jnp.mean(jnp.abs(curvatures - 1 / _RADIUS))


@eqx.filter_jit
def _judge(field: _HybridField, tuned: _HybridField, place: Key) -> tuple[dict[str, Array], dict[str, Array]]:
    """Mean errors on the circle by autodiff, before and after fine-tuning: of normals, and in value."""
    circle, normals = _circle(place)
    both = {"autodiff": field, "fine-tuned": tuned}
    return (
        {name: _degrees(jax.vmap(jax.grad(f))(circle), normals) for name, f in both.items()},
        {name: jnp.mean(jnp.abs(jax.vmap(f)(circle) - jax.vmap(_distance)(circle))) for name, f in both.items()},
    )


@eqx.filter_jit
def _train(
    field: _HybridField, targets: tuple[Array, Array, Array], weight: Array, rate: Array, key: Key, steps: int
) -> _HybridField:
    """Fit values and, with a weight, slopes: targets are points, values and slopes."""
    arrays, static = eqx.partition(field, eqx.is_inexact_array)

    def loss(arrays: _HybridField, batch: tuple[Array, Array, Array]) -> Array:
        points, values, slopes = batch
        ours, ascent = jax.vmap(jax.value_and_grad(eqx.combine(arrays, static)))(points)
        return jnp.mean((ours - values) ** 2 + weight * jnp.sum((ascent - slopes) ** 2, axis=1))

    def batch(step: Array, key: Key) -> tuple[Array, Array, Array]:
        rows = jax.random.randint(key, (256,), 0, len(targets[0]))
        return jax.tree.map(lambda x: x[rows], targets)

    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return eqx.combine(trained(loss, arrays, optimizer, batch, steps, key=key)[0], static)


__all__ = ["PAPER", "checks"]
