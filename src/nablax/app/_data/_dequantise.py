"""Rows of encoded cells become points of a density, with the correction that keeps the likelihood honest."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._core import Key
from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity

# Vertices lie ten standard deviations apart: a draw crosses the middle with probability 3e-7.
_SEPARATION = 10.0
_LOG_TWO_PI = math.log(2.0 * math.pi)


class Lines(NamedTuple):
    """The scales of valued columns as arrays [m], so that one operation serves them all.

    Attributes:
        grid: whether a value is a grid index, which noise spreads over its cell; else it is a coordinate already.
        log: whether the coordinate is of a logarithm.
        mean: of the measure, or of its logarithm.
        scale: standard deviation of the same.
        shift: what is added before the logarithm.
        margin: what the noise keeps off a cell's edges, in cells.
        step: width of a grid cell in the column's own unit; 1 off the grid.
    """

    grid: np.ndarray
    log: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    margin: np.ndarray
    step: np.ndarray


def lines(kinds: Sequence[AbstractKind]) -> Lines:
    """Gather the scales of the columns that carry values, in their order."""
    scales = [kind.scale for kind in kinds if isinstance(kind, AbstractQuantity)]
    # Of what type, where there are none.
    types = [bool if name in ("grid", "log") else np.float64 for name in Lines._fields]
    return Lines(*(np.array([getattr(s, name) for s in scales], dtype) for name, dtype in zip(Lines._fields, types)))


def dequantise_values(
    lines: Lines, value: Float[Array, "n m"], key: Key
) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
    """Standardised coordinates of values, and log |dy/dx| of each.

    y = (w(x + u) - mean) / scale with u uniform over the grid cell, and u = 0 off a grid.

    Args:
        lines: of the m valued columns.
        value: grid indices or coordinates, all finite.
        key: for the noise.

    Returns:
        y, and nats per cell for which log p(x | state) >= E[log p(y) + nats], in the column's own unit.
    """

    def row(values: np.ndarray) -> Float[Array, "1 m"]:
        return jnp.asarray(values[None, :], value.dtype)

    grid, log = jnp.asarray(lines.grid[None, :]), jnp.asarray(lines.log[None, :])
    # Off the grid and its logarithm the value is standardised already; its mean may be past single precision.
    used = lines.grid | lines.log
    mean, scale, shift = row(np.where(used, lines.mean, 0.0)), row(np.where(used, lines.scale, 1.0)), row(lines.shift)
    # The noise keeps off the cell's edges by what rounding could carry over them; its density is higher for it.
    noise = (jax.random.uniform(key, value.shape, value.dtype) - 0.5) * row(1.0 - 2.0 * lines.margin)
    measure = value + noise
    measure = jnp.where(log, jnp.log(jnp.maximum(jnp.where(grid & log, measure + shift, 1.0), 1e-6)), measure)
    y = jnp.where(grid, (measure - mean) / scale, value)
    terms = row(np.log(1.0 - 2.0 * lines.margin) - np.log(lines.scale) - np.log(lines.step))
    return y, terms - jnp.where(log, mean + scale * y, 0.0)


def vertices(states: int) -> np.ndarray:
    """Vertices of the regular simplex, centred, scaled to unit variance per coordinate.

    Args:
        states: k ≥ 2.

    Returns:
        Array [k, k - 1] whose rows are sqrt(2k) apart; ±1 for k = 2.

    Example:
        >>> vertices(2).tolist()
        [[-1.0], [1.0]]
    """
    rows = np.zeros((states, states - 1))
    for j in range(states - 1):
        # Helmert's contrasts: row j + 1 against the mean of those before it.
        height = math.sqrt(states / ((j + 1.0) * (j + 2.0)))
        rows[: j + 1, j] = -height
        rows[j + 1, j] = height * (j + 1.0)
    return rows


def deviation(states: int) -> float:
    """Standard deviation of the noise around each vertex."""
    return math.sqrt(2.0 * states) / _SEPARATION


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each column's coordinates lie in y: those of its state, then that of its value.

    Attributes:
        valued: positions of the columns that carry a value.
        groups: number of states to the positions of the columns that have as many, two at least.
        slices: the coordinates of each column's state; empty for a single state.
        value: the coordinate of each column's value, -1 for none.
        order: coordinate of y to its place in the concatenation values, groups.
        only_missing: whether the one other state of a valued column is "missing" [columns].
    """

    valued: np.ndarray
    groups: dict[int, np.ndarray]
    slices: tuple[slice, ...]
    value: np.ndarray
    order: np.ndarray
    only_missing: np.ndarray

    @property
    def dim(self) -> int:
        """Coordinates of y."""
        return len(self.order)

    def coordinates(self, column: int) -> list[int]:
        """All coordinates of a column, its value's last."""
        place, value = self.slices[column], int(self.value[column])
        return [*range(place.start, place.stop), *([value] if value >= 0 else [])]


def layout(kinds: Sequence[AbstractKind]) -> Layout:
    """Lay the columns out side by side.

    Args:
        kinds: the modelled columns.

    Returns:
        The layout.
    """
    slices, value, at = [], [], 0
    for kind in kinds:
        slices.append(slice(at, at + kind.states - 1))
        at += kind.states - 1
        value.append(at if kind.valued else -1)
        at += kind.valued
    sizes = sorted({kind.states for kind in kinds if kind.states > 1})
    groups = {size: np.array([j for j, kind in enumerate(kinds) if kind.states == size]) for size in sizes}
    valued = np.array([j for j, kind in enumerate(kinds) if kind.valued], np.int64)
    places = [value[j] for j in valued]
    for group in groups.values():
        places += [dim for j in group for dim in range(slices[j].start, slices[j].stop)]
    order = np.argsort(np.array(places, np.int64))
    only_missing = np.array([kind.valued and kind.levels == 1 and kind.missing for kind in kinds], bool)
    return Layout(valued, groups, tuple(slices), np.array(value, np.int64), order, only_missing)


def dequantise(
    kinds: Sequence[AbstractKind], plan: Layout, base: Float[Array, "n columns 2"], key: Key, *, to_fill: bool = False
) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
    """Draw y ~ q(y | row) and the correction c(y, row) for which log p(row) >= E[log p(y) + c].

    Values: see `dequantise_values`. States: y is normal around the state's vertex; with P(state | y) the posterior of
    equally weighted vertices, c = log P(state | y) - log q(y | state) = -log Σ_v N(y; v, σ²). Where a state carries no
    value, y is standard normal filler whose log-density is taken off again; so is the state of an unknown cell.

    Args:
        kinds: the modelled columns.
        plan: their layout.
        base: encoded cells: state and value; a NaN state is unknown, and a negative one is read as unknown.
        key: for the noise.
        to_fill: whether unknown cells are to be filled in later, so that those of numbers are not "missing".

    Returns:
        y [n, dim] and the corrections [n], in nats; densities are per column's own unit.
    """
    n, m = base.shape[0], plan.valued.size
    widths = {size: len(group) * (size - 1) for size, group in plan.groups.items()}
    coded = sum(widths.values())
    uniform_key, normal_key = jax.random.split(key)
    # One call for all normals: each call of the generator costs as much to compile as the rest together.
    normal = jax.random.normal(normal_key, (n, 2 * coded + m), base.dtype)
    unknown = ~(base[..., 0] >= 0.0)
    state = jnp.where(unknown, 0.0, base[..., 0]).astype(jnp.int32)
    parts, correction = [], jnp.zeros(n, base.dtype)
    if m:
        there = (state == 0) & ~unknown & ~jnp.isnan(base[..., 1])
        value = jnp.where(there, base[..., 1], 0.0)[:, plan.valued]
        y, terms = dequantise_values(lines(kinds), value, uniform_key)
        y, terms = _fill(y[..., None], terms, ~there[:, plan.valued], normal[:, :m, None])
        parts.append(y[..., 0])
        correction += jnp.sum(terms, axis=1)
    at = m
    for size, group in plan.groups.items():
        shape, width = (n, len(group), size - 1), widths[size]
        noise, filler = (normal[:, s : s + width].reshape(shape) for s in (at, at + width))
        y, terms = _vertices(state[:, group], size, noise)
        lost = unknown[:, group] & ~plan.only_missing[None, group] if to_fill else unknown[:, group]
        y, terms = _fill(y, terms, lost, filler)
        parts.append(y.reshape(n, width))
        correction += jnp.sum(terms, axis=1)
        at += 2 * width
    return jnp.concatenate(parts, axis=1)[:, plan.order], correction


def _vertices(
    states: Array, size: int, noise: Float[Array, "n m k_less_1"]
) -> tuple[Float[Array, "n m k_less_1"], Float[Array, "n m"]]:
    table = jnp.asarray(vertices(size), noise.dtype)
    spread = deviation(size)
    y = table[states] + spread * noise
    products = jnp.einsum("nmd,kd->nmk", y, table, precision="highest")
    norms = jnp.sum(jnp.square(y), axis=-1) + (size - 1.0)  # every vertex has squared length k - 1
    exponents = (2.0 * products - norms[..., None]) / (2.0 * spread**2)
    terms = -jax.nn.logsumexp(exponents, axis=-1) + (size - 1) * (0.5 * _LOG_TWO_PI + math.log(spread))
    return y, terms


def _fill(
    y: Float[Array, "n m k"], terms: Float[Array, "n m"], missing: Bool[Array, "n m"], filler: Float[Array, "n m k"]
) -> tuple[Float[Array, "n m k"], Float[Array, "n m"]]:
    density = -0.5 * jnp.sum(jnp.square(filler) + _LOG_TWO_PI, axis=-1)
    return jnp.where(missing[..., None], filler, y), jnp.where(missing, -density, terms)
