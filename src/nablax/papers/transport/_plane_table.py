"""The table of flows in the plane: four methods, four pairs of distributions, two numbers, five seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import diffrax
import jax
import numpy as np

from ..._core import Key
from ...diagnose import path_geometry
from ...fields import MLP
from ...transport import independent_coupling, optimal_coupling
from .._problems import _plane as plane
from .._problems._plane import Sampler, Source
from .._records import Check

# Pairs of distributions. The first name of a column is its start.
COLUMNS: dict[str, tuple[Sampler, Sampler]] = {
    "normal → 8gaussians": (plane.normal, plane.ring),
    "moons → 8gaussians": (plane.wide_moons, plane.wide_ring),
    "normal → moons": (plane.normal, plane.moons),
    "normal → s-curve": (plane.normal, plane.s_curve),
}
# Mean and standard deviation over five seeds, of W2 and of the normalised path energy, in the order of the columns.
# Tong, Malkin, Fatras, Atanackovic, Zhang, Huguet, Wolf, Bengio (2024), Simulation-free Schrödinger bridges via score
# and flow matching, https://arxiv.org/abs/2307.03672, table 2.
STATED: dict[str, tuple[tuple[tuple[float, float], tuple[float, float]] | None, ...]] = {
    "OT-CFM": (
        ((0.303, 0.043), (0.031, 0.027)),
        ((0.601, 0.027), (0.015, 0.010)),
        ((0.130, 0.016), (0.083, 0.009)),
        ((0.144, 0.028), (0.027, 0.012)),
    ),
    "I-CFM": (
        ((0.373, 0.103), (0.202, 0.055)),
        ((1.557, 0.407), (2.680, 0.292)),
        ((0.178, 0.014), (0.891, 0.120)),
        ((0.242, 0.141), (0.856, 0.031)),
    ),
    "rectified": (
        ((0.421, 0.071), (0.044, 0.031)),
        ((1.525, 0.330), (0.203, 0.090)),
        ((0.283, 0.045), (0.130, 0.078)),
        ((0.345, 0.079), (0.099, 0.066)),
    ),
    "FM": (
        ((0.343, 0.058), (0.190, 0.054)),
        None,
        ((0.209, 0.055), (0.762, 0.099)),
        ((0.198, 0.037), (0.743, 0.116)),
    ),
}


class Size(NamedTuple):
    """How much is done; the defaults follow the paper where it says.

    ``pool`` is smaller than the paper's, and ``smoothing`` is that of the authors' public runner, since the paper gives
    none. The sets themselves are inferred from the stated path energies (see `_plane`). In full, with key 0, all
    thirty numbers meet the criterion (two spreads); they stand in the guide to the papers. OT-CFM from the
    moons to eight Gaussians (W2 0.774 ± 0.131 where 0.601 ± 0.027 is stated) is inside because our five seeds spread
    as they do.

    Attributes:
        seeds: networks a cell.
        points: rows of the training and of the test set.
        steps: of the optimiser: 1000 epochs of 20 batches.
        batch: pairs in a batch.
        pool: different pairings for each network of the optimal coupling; each serves ``steps / pool`` times, with new
            times, where the paper pairs anew at each step.
        smoothing: standard deviation of the conditional path.
        euler: steps of the solver.
    """

    seeds: int = 5
    points: int = 10_000
    steps: int = 20_000
    batch: int = 512
    pool: int = 2_500
    smoothing: float = 0.1
    euler: int = 100


class Cell(NamedTuple):
    """W2 and normalised path energy, one number a seed."""

    method: str
    column: str
    distance: np.ndarray
    energy: np.ndarray

    def line(self) -> str:
        """The measured numbers beside the stated ones, as text."""
        stated = STATED[self.method][list(COLUMNS).index(self.column)]
        text = f"{self.method:<10} {self.column:<20}"
        for name, values, known in zip(("W2", "NPE"), self[2:], stated or (None, None), strict=True):
            error = values.std(ddof=1) if len(values) > 1 else float("nan")
            text += f"  {name} {values.mean():.3f} ± {error:.3f}"
            text += f" (stated {known[0]:.3f} ± {known[1]:.3f})" if known else ""
        return text


def table(
    key: Key,
    *,
    columns: Sequence[str] = tuple(COLUMNS),
    methods: Sequence[str] = tuple(STATED),
    size: Size | None = None,
    report: Callable[[Cell], None] | None = None,
) -> list[Cell]:
    """Train and measure the cells of some columns.

    Args:
        key: of all randomness.
        columns: which; by default all.
        methods: which; by default all. A cell does not depend on what else is run.
        size: by default the paper's.
        report: called with each cell when it is done.

    Returns:
        The cells.
    """
    size = Size() if size is None else size
    cells = []
    for number, column in enumerate(COLUMNS):
        if column in columns:
            for cell in _column(column, methods, jax.random.fold_in(key, number), size):
                cells.append(cell)
                if report is not None:
                    report(cell)
    return cells


def _column(column: str, methods: Sequence[str], key: Key, size: Size) -> list[Cell]:
    start, end = COLUMNS[column]
    seeds = range(size.seeds)
    generators = [np.random.default_rng(int(jax.random.bits(jax.random.fold_in(key, s)))) for s in seeds]
    train = [end(g, size.points) for g in generators]
    begin = [None if start is plane.normal else start(g, size.points) for g in generators]
    origin = [start(g, size.points) for g in generators]
    test = [end(g, size.points) for g in generators]
    least = [plane.wasserstein(a, b) ** 2 for a, b in zip(origin, test, strict=True)]
    keys = jax.random.split(key, 5)

    def source(kind: str, seed: int) -> Source:
        coupling, pool = (optimal_coupling, size.pool) if kind == "OT-CFM" else (independent_coupling, None)
        smoothing = 0.0 if kind in ("FM", "rectified") else size.smoothing
        make = plane.coupled(
            train[seed],
            coupling,
            size.batch,
            key=jax.random.fold_in(keys[0], seed),
            noise=begin[seed],
            smoothing=smoothing,
            pool=pool,
        )
        if kind != "FM":
            return make

        def shrinking(first: int, count: int) -> dict[str, np.ndarray]:
            # Flow matching's own path narrows to a normal of this width around the data instead of keeping one width.
            batch = make(first, count)
            return batch | {"data": batch["data"] + size.smoothing * batch["noise"]}

        return shrinking

    def train_all(sources: list[Source], key: Key) -> list[MLP]:
        return plane.learn(sources, key=key, batch_size=size.batch, steps=size.steps)

    def measure(method: str, networks: list[MLP]) -> Cell:
        distance, energy = [], []
        for network, origins, tests, squared in zip(networks, origin, test, least, strict=True):
            distance.append(plane.wasserstein(plane.follow_euler(network, origins, size.euler), tests))
            geometry = path_geometry(network, origins, steps=size.euler, method=diffrax.Euler())
            energy.append(abs(float(geometry.energy.value) - squared) / squared)
        return Cell(method, column, np.array(distance), np.array(energy))

    cells = []
    for number, method in enumerate(("OT-CFM", "I-CFM", "FM")):
        if method in methods and STATED[method][list(COLUMNS).index(column)] is not None:
            cells.append(measure(method, train_all([source(method, s) for s in seeds], keys[1 + number])))
    if "rectified" not in methods:
        return cells
    first = train_all([source("rectified", s) for s in seeds], keys[4])
    pairs = []
    for network, starts, generator in zip(first, begin, generators, strict=True):
        noise = start(generator, 5 * size.points) if starts is None else starts
        pairs.append({"noise": noise, "data": np.asarray(plane.follow_euler(network, noise, size.euler))})
    again = [plane.together(p, size.batch, key=jax.random.fold_in(keys[4], s)) for s, p in enumerate(pairs)]
    cells.append(measure("rectified", train_all(again, keys[0])))
    return cells


def checks(key: Key, *, size: Size | None = None, report: Callable[[Cell], None] | None = None) -> list[Check]:
    """Put every number of the table to one criterion: no further from the stated mean than the two spreads allow.

    Args:
        key: of all randomness.
        size: by default the paper's.
        report: called with each cell when it is done.

    Returns:
        Two checks for each cell. The baseline is what another method gave in the same column (I-CFM for OT-CFM and the
        rectified flow, OT-CFM for the others). Some stated numbers of the two methods overlap; there the baseline meets
        the criterion too, which is said and does not count against the number.
    """
    cells = {(cell.method, cell.column): cell for cell in table(key, size=size, report=report)}
    found = []
    for (method, column), cell in cells.items():
        known = STATED[method][list(COLUMNS).index(column)]
        assert known is not None  # a cell without a stated number is not run
        rival = cells["I-CFM" if method in ("OT-CFM", "rectified") else "OT-CFM", column]
        for name, ours, theirs, (mean, error) in zip(("W2", "NPE"), cell[2:], rival[2:], known, strict=True):
            spread = float(ours.std(ddof=1)) if len(ours) > 1 else 0.0
            allowed = 2 * float(np.hypot(spread, error))
            blind = abs(float(theirs.mean()) - mean) <= allowed
            found.append(
                Check(
                    f"{method}, {column}: {name}",
                    f"{mean:.3f} ± {error:.3f} (table 2 of arXiv 2307.03672)",
                    f"{ours.mean():.3f} ± {spread:.3f} over {len(ours)} seeds",
                    f"within {allowed:.3f} of it: twice the root of the summed squares of the two spreads",
                    abs(float(ours.mean()) - mean) <= allowed,
                    f"{rival.method}: {theirs.mean():.3f}"
                    + (" (also within: no contrast in this number)" if blind else ""),
                )
            )
    return found
