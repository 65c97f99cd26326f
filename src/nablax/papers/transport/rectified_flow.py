"""Flow Straight and Fast: straighter paths, the same marginals, no higher cost; seen from noise to two moons."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._core import Key
from ...diagnose import path_geometry
from ...fields import MLP
from ...follow import Solver
from ...spaces import Euclidean
from ...transport import (
    Empirical,
    Linear,
    Transport,
    independent_coupling,
    reflow,
)
from .._problems._paths import draw_paths, finish
from .._problems._plane import (
    coupled,
    follow_euler,
    learn,
    moons,
    moving_euler,
    normal,
    ring,
    together,
    wasserstein,
)
from .._records import Check, Paper

PAPER = Paper(
    slug="rectified-flow",
    title="Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    year=2022,
    link="https://arxiv.org/abs/2209.03003",
    rooms=("transport", "diagnose"),
    row=58,
    read="text",
)

_BATCH = 256
_EULER = 50


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a flow from noise to moons and one from a ring to moons, reflow the first, and compare.

    Args:
        key: of all randomness.
        full: five times the points and the steps. The paper's image experiments are not run at either scale.

    Returns:
        Five checks.
    """
    points, steps = (5000, 10_000) if full else (1000, 2000)
    keys = jax.random.split(key, 5)
    generator = np.random.default_rng(int(jax.random.bits(keys[0])))
    train, test = moons(generator, 10 * points), moons(generator, points)
    starts, clusters = normal(generator, points), ring(generator, 10 * points)

    first, transfer = learn(
        [
            coupled(train, independent_coupling, _BATCH, key=keys[1]),
            coupled(train, independent_coupling, _BATCH, key=keys[2], noise=clusters),
        ],
        key=keys[3],
        batch_size=_BATCH,
        steps=steps,
    )
    pairs = _pairs(first, normal(generator, 10 * points), keys[4])
    (second,) = learn([together(pairs, _BATCH, key=keys[0])], key=keys[1], batch_size=_BATCH, steps=steps)

    ends_first, ends_second = follow_euler(first, starts, _EULER), follow_euler(second, starts, _EULER)
    w_first, w_second = wasserstein(ends_first, test), wasserstein(ends_second, test)
    floor = wasserstein(moons(generator, points), test)
    hop_first, hop_second = (wasserstein(follow_euler(m, starts, 1), test) for m in (first, second))
    bend_first, bend_second = (_bend(m, starts[:500]) for m in (first, second))
    moved = wasserstein(follow_euler(transfer, clusters[:points], _EULER), test)
    unmoved = wasserstein(clusters[:points], test)
    costs = _cost_ratios(starts, ends_first, test)
    shuffled = _cost_ratios(starts, jnp.asarray(test[::-1]), test)

    def straightened(axes: Any) -> None:
        axes.plot(*test.T, ".", color="C2", ms=2, alpha=0.5, label="data", rasterized=True)
        for field, colour, name in ((first, "C1", "independent pairs"), (second, "C0", "after reflow")):
            draw_paths(axes, moving_euler(field, starts[:40], _EULER), colour, name)
        axes.set_axis_off()
        finish(axes, aspect="equal")

    def transferred(axes: Any) -> None:
        axes.plot(*clusters[:points].T, ".", color="C0", ms=2, alpha=0.5, label="ring", rasterized=True)
        axes.plot(*test.T, ".", color="C2", ms=2, alpha=0.5, label="moons", rasterized=True)
        draw_paths(axes, moving_euler(transfer, clusters[:60], _EULER), "C1", "flow")
        axes.set_axis_off()
        finish(axes, aspect="equal")

    return [
        Check(
            "reflow makes the paths straighter",
            "stated in words",
            f"straightness / path energy {bend_second:.4f} after one reflow",
            "below 0.05, where 0 is straight",
            bend_second < 0.05 <= bend_first,
            f"flow on independent pairs: {bend_first:.4f}",
            figure=straightened,
        ),
        Check(
            "after reflow one Euler step generates",
            "stated in words (figures are given for images only)",
            f"W2 to fresh data {hop_second:.3f} with one step, {w_second:.3f} with {_EULER}",
            f"one step at most 0.3 above the {_EULER}-step W2 of the flow on independent pairs, {w_first:.3f}",
            hop_second <= w_first + 0.3 < hop_first,
            f"flow on independent pairs, one step: {hop_first:.3f}",
        ),
        Check(
            "rectification keeps the marginals, once and again",
            "proved (theorem 3.3)",
            f"W2 to fresh data {w_first:.3f}, after reflow {w_second:.3f}; two samples of the data: {floor:.3f}",
            "both at most 0.25 above two samples of the data",
            max(w_first, w_second) <= floor + 0.25 < hop_first,
            f"the first flow cut to one step, which does not solve its equation: {hop_first:.3f}",
        ),
        Check(
            "rectification lowers every convex transport cost",
            "proved not to increase (theorem 3.5)",
            "; ".join(f"{name} {value:.3f}" for name, value in costs.items()) + " of the independent pairing's cost",
            "each cost at most 0.95 of the independent pairing's",
            max(costs.values()) <= 0.95 < min(shuffled.values()),
            "another independent pairing: " + "; ".join(f"{name} {value:.3f}" for name, value in shuffled.items()),
        ),
        Check(
            "the same procedure transfers between two data sets",
            "stated in words",
            f"ring to moons: W2 {moved:.3f}",
            f"at most 0.25 above two samples of the data, {floor:.3f}",
            moved <= floor + 0.25 < unmoved,
            f"the ring as it is: {unmoved:.3f}",
            figure=transferred,
        ),
    ]


def _pairs(field: MLP, prior: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    transport = Transport(field, Linear(), Empirical(jnp.asarray(prior)), Euclidean((2,)))
    return reflow(transport, len(prior), key=key, solver=Solver(steps=_EULER))


def _bend(field: MLP, starts: np.ndarray) -> float:
    geometry = path_geometry(field, starts, steps=_EULER, method=diffrax.Euler())
    return float(geometry.relative_straightness.value)


def _cost_ratios(starts: np.ndarray, ends: Array, independent: np.ndarray) -> dict[str, float]:
    """Mean of some convex costs of the displacement, over that of pairing ``starts`` with ``independent``."""
    ours = np.linalg.norm(np.asarray(ends) - starts, axis=1)
    theirs = np.linalg.norm(np.asarray(independent) - starts, axis=1)
    powers = {"distance": 1, "its square": 2, "its fourth power": 4}
    return {name: float(np.mean(ours**power) / np.mean(theirs**power)) for name, power in powers.items()}
