"""Rows of encoded cells become points of a density, with the correction that keeps the likelihood honest."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._core import Key
from ._columns import Column

# Vertices lie ten standard deviations apart: a draw crosses the middle with probability 3e-7.
_SEPARATION = 10.0
_LOG_TWO_PI = math.log(2.0 * math.pi)


def vertices(categories: int) -> np.ndarray:
    """Vertices of the regular simplex, centred, scaled to unit variance per coordinate.

    Args:
        categories: k ≥ 2.

    Returns:
        Array [k, k - 1] whose rows are sqrt(2k) apart; ±1 for k = 2.

    Example:
        >>> vertices(2).tolist()
        [[-1.0], [1.0]]
    """
    rows = np.zeros((categories, categories - 1))
    for j in range(categories - 1):
        # Helmert's contrasts: row j + 1 against the mean of those before it.
        height = math.sqrt(categories / ((j + 1.0) * (j + 2.0)))
        rows[: j + 1, j] = -height
        rows[j + 1, j] = height * (j + 1.0)
    return rows


def deviation(categories: int) -> float:
    """Standard deviation of the noise around each vertex."""
    return math.sqrt(2.0 * categories) / _SEPARATION


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each column's coordinates lie, and the columns gathered by kind so that one operation serves many.

    Attributes:
        numbers: positions of the continuous and grid columns.
        categories: number of categories to the positions of the columns that have as many.
        indicators: positions of the columns that may be missing.
        slices: the value coordinates of each column.
        present: the coordinate that tells presence, -1 for columns that are never missing.
        order: coordinate of y to its place in the concatenation numbers, categories, indicators.
    """

    numbers: np.ndarray
    categories: dict[int, np.ndarray]
    indicators: np.ndarray
    slices: tuple[slice, ...]
    present: np.ndarray
    order: np.ndarray

    @property
    def dim(self) -> int:
        """Coordinates of y."""
        return len(self.order)

    @property
    def values(self) -> int:
        """Coordinates that hold values, all but the presence ones."""
        return self.dim - len(self.indicators)

    @property
    def codes(self) -> int:
        """Coordinates of categories, presence among them."""
        return self.dim - len(self.numbers)


def layout(columns: Sequence[Column]) -> Layout:
    """Lay the columns out side by side, the presence coordinate last in each.

    Args:
        columns: the modelled columns.

    Returns:
        The layout.
    """
    slices, present, at = [], [], 0
    for column in columns:
        slices.append(slice(at, at + column.dims))
        at += column.dims
        present.append(at if column.missing else -1)
        at += column.missing
    numbers = np.array([j for j, c in enumerate(columns) if c.kind != "category"], np.int64)
    sizes = sorted({len(c.categories) for c in columns if c.kind == "category"})
    categories = {
        k: np.array([j for j, c in enumerate(columns) if c.kind == "category" and len(c.categories) == k])
        for k in sizes
    }
    indicators = np.array([j for j, c in enumerate(columns) if c.missing], np.int64)
    places = [slices[j].start for j in numbers]
    for group in categories.values():
        places += [dim for j in group for dim in range(slices[j].start, slices[j].stop)]
    places += [present[j] for j in indicators]
    order = np.argsort(np.array(places, np.int64))
    return Layout(numbers, categories, indicators, tuple(slices), np.array(present, np.int64), order)


def dequantise(
    columns: Sequence[Column],
    plan: Layout,
    base: Float[Array, "n columns"],
    key: Key,
    *,
    to_fill: bool = False,
) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
    """Draw y ~ q(y | row) and the correction c(y, row) for which log p(row) >= E[log p(y) + c].

    Numbers: y = (w(x + u) - mean) / scale with u uniform over the grid cell, c = log |dy/dx|. Categories: y is
    normal around the category's vertex; with P(category | y) the posterior of equally weighted vertices,
    c = log P(category | y) - log q(y | category) = -log Σ_v N(y; v, σ²). Missing cells: y is standard normal filler
    whose log-density is taken off again, and presence is a category of its own.

    Args:
        columns: the modelled columns.
        plan: their layout.
        base: encoded cells: coordinates, grid indices and category numbers; NaN is missing.
        key: for the noise.
        to_fill: whether missing cells are to be filled in later, so that presence says "present".

    Returns:
        y [n, dim] and the corrections [n], in nats; densities are per column's own unit.
    """
    n, codes = base.shape[0], plan.codes
    uniform_key, normal_key = jax.random.split(key)
    # One call for all normals: each call of the generator costs as much to compile as the rest together.
    normal = jax.random.normal(normal_key, (n, codes + plan.values), base.dtype)
    drawn, filler = normal[:, :codes], normal[:, codes:]
    missing = jnp.isnan(base)
    cells = jnp.where(missing, 0.0, base)
    parts, correction = [], jnp.zeros(n, base.dtype)
    at = used = 0
    if width := plan.numbers.size:
        y, terms = _numbers([columns[j] for j in plan.numbers], cells[:, plan.numbers], uniform_key)
        y, terms = _fill(y[..., None], terms, missing[:, plan.numbers], filler[:, :width, None])
        parts.append(y[..., 0])
        correction += jnp.sum(terms, axis=1)
        at = width
    for size, group in plan.categories.items():
        shape, width = (n, len(group), size - 1), len(group) * (size - 1)
        noise = drawn[:, used : used + width].reshape(shape)
        y, terms = _categories(cells[:, group].astype(jnp.int32), size, noise)
        y, terms = _fill(y, terms, missing[:, group], filler[:, at : at + width].reshape(shape))
        parts.append(y.reshape(n, width))
        correction += jnp.sum(terms, axis=1)
        at, used = at + width, used + width
    if plan.indicators.size:
        there = jnp.ones_like(missing) if to_fill else ~missing
        y, terms = _categories(there[:, plan.indicators].astype(jnp.int32), 2, drawn[:, used:, None])
        parts.append(y[..., 0])
        correction += jnp.sum(terms, axis=1)
    return jnp.concatenate(parts, axis=1)[:, plan.order], correction


def _numbers(
    columns: Sequence[Column], cells: Float[Array, "n m"], key: Key
) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
    def constant(values: Sequence[float]) -> Float[Array, "1 m"]:
        return jnp.asarray(np.array(values)[None, :], cells.dtype)

    grid = jnp.array([[column.kind == "grid" for column in columns]])
    log = jnp.array([[column.log for column in columns]])
    mean, scale = constant([c.mean for c in columns]), constant([c.scale for c in columns])
    shift = constant([c.shift for c in columns])
    # The noise keeps off the cell's edges by what rounding could carry over them; its density is higher for it.
    margins = [_margin(column) for column in columns]
    width = constant([1.0 - 2.0 * margin for margin in margins])
    noise = (jax.random.uniform(key, cells.shape, cells.dtype) - 0.5) * width
    measure = cells + noise
    measure = jnp.where(log, jnp.log(jnp.maximum(jnp.where(grid & log, measure + shift, 1.0), 1e-6)), measure)
    y = jnp.where(grid, (measure - mean) / scale, cells)
    terms = constant([math.log(1.0 - 2.0 * margin) - math.log(c.scale * c.step) for margin, c in zip(margins, columns)])
    return y, terms - jnp.where(log, mean + scale * y, 0.0)


def _margin(column: Column) -> float:
    if column.kind != "grid":
        return 0.0
    levels = column.to_index(column.high) + 1.0
    # A few roundings of float32, more of them through the logarithm.
    return levels * (2.0**-20 if column.log else 2.0**-22)


def _categories(
    codes: Array, size: int, noise: Float[Array, "n m k_less_1"]
) -> tuple[Float[Array, "n m k_less_1"], Float[Array, "n m"]]:
    table = jnp.asarray(vertices(size), noise.dtype)
    spread = deviation(size)
    y = table[codes] + spread * noise
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
