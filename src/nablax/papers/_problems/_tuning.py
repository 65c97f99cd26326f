"""Methods side by side on equal budgets: each tuned over a grid of one size, then run on keys that all share."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import Key, canonical_convolutions, fault
from .._contrast import Contrast

Run = Callable[[Any, Key], Any]
Grid = Sequence[float] | Sequence[Sequence[float]]


class Runs(NamedTuple):
    """What came of the methods at their best settings.

    Attributes:
        results: by method, what its runs returned, with the keys as leading axis.
        settings: by method, the setting, in words.
        seconds: by method, that one run took, compiled, several of them side by side.
        passes: by method, over the model, where they were given.
    """

    results: dict[str, Any]
    settings: dict[str, list[str]]
    seconds: dict[str, float]
    passes: dict[str, float]

    def contrast(
        self,
        metric: str,
        direction: Literal["lower", "higher"],
        *,
        of: str = "",
        against: Sequence[str] = (),
        **decides: Any,
    ) -> Contrast:
        """One metric of the methods, as a contrast.

        Args:
            metric: what it is, with its unit.
            direction: which values are better.
            of: its name in the results, where they are dictionaries.
            against: the baselines that count; by default all methods but the first.
            decides: ``margin``, ``ratio``, ``threshold``, ``curve`` of the `Contrast`.

        Returns:
            The contrast.
        """
        first, *others = self.results
        names = (first, *(against or others))
        return Contrast(
            metric,
            {name: self.results[name][of] if of else self.results[name] for name in names},
            direction,
            settings={name: self.settings[name] for name in names if name in self.settings},
            seconds={name: self.seconds[name] for name in names},
            passes={name: self.passes[name] for name in names if name in self.passes},
            **decides,
        )


def tuned(
    methods: Mapping[str, Run],
    grid: Grid | Mapping[str, Grid],
    direction: Literal["lower", "higher"],
    *,
    key: Key,
    keys: int,
    tuning: int = 2,
    of: str = "",
    ends: Mapping[float, str] | None = None,
    passes: Mapping[str, float] | None = None,
) -> Runs:
    """Run every method at every setting on the same tuning keys, and at its best setting on the same fresh keys.

    Args:
        methods: by name, the paper's first, ``run(setting, key)``: jittable, all randomness from the key, the data's
            too. It returns a number, or a dictionary of numbers.
        grid: settings, for all methods or by name, as many for each: numbers, or a tuple of axes whose product is
            taken; a run then gets one number for each axis. An axis of one setting is not tuned.
        direction: which values are better.
        key: of all randomness.
        keys: to run the best settings at.
        tuning: keys to choose them by, by the mean; a run that is not finite is the worst.
        of: in runs that return dictionaries, the number to tune by.
        ends: ends of an axis where nothing lies beyond, such as a strength of 0, and why; a best setting may lie there.
        passes: by method, over the model that a run makes.

    Returns:
        `Runs`; its ``contrast`` is what a check takes.

    Raises:
        ValueError: grids of different sizes, or a best setting at the end of one.

    Cost:
        For each method one compilation, and ``settings * tuning + keys`` runs, rounded up to a multiple of the number
        of settings, of which as many run side by side (of the keys, where there is one setting).
    """
    grids = {name: _axes(grid[name] if isinstance(grid, Mapping) else grid) for name in methods}
    sizes = {name: int(np.prod([len(axis) for axis in axes])) for name, axes in grids.items()}
    if len(set(sizes.values())) != 1:
        raise fault(
            expected="the same number of settings for every method", got=str(sizes), fix="Equal budgets make it fair."
        )
    tuning_key, fresh_key = jax.random.split(key)
    tried, fresh = jax.random.split(tuning_key, tuning), jax.random.split(fresh_key, keys)
    results, settings, seconds = {}, {}, {}
    for name, run in methods.items():
        axes = grids[name]
        points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1).astype(np.float32)
        side_by_side = _Batch(run, points, tried[0], width=len(points) if len(points) > 1 else keys)
        scores = np.zeros(len(points))
        if len(points) > 1:
            scores = np.mean(
                [_number(side_by_side(points, jnp.repeat(one[None], len(points))), of) for one in tried], 0
            )
        best = _best(scores if direction == "lower" else -scores, axes, name, ends or {})
        results[name] = side_by_side.at(points[best], fresh)
        seconds[name] = side_by_side.seconds
        free = [str(f"{value:g}") for value, axis in zip(points[best], axes) if len(axis) > 1]
        if free:
            settings[name] = [", ".join(free)]
    return Runs(results, settings, seconds, dict(passes or {}))


class _Batch:
    """A method compiled for as many runs side by side as it has settings, so that one program serves for all."""

    def __init__(self, run: Run, points: np.ndarray, key: Key, *, width: int):
        one = run if points.shape[1] > 1 else lambda setting, key: run(setting[0], key)
        self.width = width
        rows = np.repeat(points[:1], width, axis=0), jnp.repeat(key[None], width)
        self._program = jax.jit(canonical_convolutions(jax.vmap(one))).lower(*rows).compile()
        self._took: list[float] = []

    def __call__(self, points: np.ndarray, keys: Key) -> Any:
        start = time.perf_counter()
        result = jax.tree.map(np.asarray, self._program(points, keys))
        self._took.append(time.perf_counter() - start)
        return result

    def at(self, point: np.ndarray, keys: Key) -> Any:
        """Runs of one setting, one for each key; where the last batch is not full, it is filled up by the last key."""
        order = np.arange(-(-len(keys) // self.width) * self.width).clip(max=len(keys) - 1)
        points = np.repeat(point[None], self.width, axis=0)
        batches = [self(points, keys[rows]) for rows in order.reshape(-1, self.width)]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(keys)], *batches)

    @property
    def seconds(self) -> float:
        """Of one run, on average."""
        return float(np.mean(self._took)) / self.width


def _axes(grid: Grid) -> list[np.ndarray]:
    nested = isinstance(grid, tuple) and all(isinstance(axis, Sequence | np.ndarray) for axis in grid)
    return [np.asarray(axis, np.float64) for axis in (grid if nested else (grid,))]


def _number(result: Any, of: str) -> np.ndarray:
    return np.asarray(result[of] if of else result, np.float64)


def _best(scores: np.ndarray, axes: list[np.ndarray], name: str, ends: Mapping[float, str]) -> int:
    """The lowest score's place; of several as low, as with a method that takes no heed of a setting, the inmost."""
    scores = np.where(np.isfinite(scores), scores, np.inf)
    shape = [len(axis) for axis in axes]

    def at_ends(place: int) -> list[float]:
        index = np.unravel_index(place, shape)
        sides = [axis[i] for axis, i in zip(axes, index) if len(axis) > 1 and i in (0, len(axis) - 1)]
        return [float(side) for side in sides if side not in ends]

    best = min(np.flatnonzero(scores == scores.min()), key=lambda place: len(at_ends(int(place))))
    if at_ends(int(best)):
        raise fault(
            expected=f"a grid within which {name} has its best setting",
            got=f"the best of {[axis.tolist() for axis in axes]} at the end {at_ends(int(best))[0]:g}",
            fix="Widen the grid, for all methods alike; where nothing lies beyond, say why in `ends`.",
        )
    return int(best)


__all__ = ["Runs", "tuned"]
