"""Flow Straight and Fast: straighter paths, the same marginals, no higher cost; seen from noise to two moons."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..._core import Key
from ...fields import MLP
from ...follow import Solver, fit
from ...spaces import Euclidean
from ...transport import Empirical, Linear, Transport, independent_coupling, optimal_coupling, reflow
from .._contrast import Contrast
from .._problems._paths import draw_clouds
from .._problems._plane import (
    Source,
    bend,
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
    read="code",
)

_BATCH, _EULER, _POOL = 256, 50, 250


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a flow from noise to moons and one from a ring to moons, reflow the first, and compare.

    Reflow trains twice; the flow on optimal pairs of batches beside it has as many steps as both together.

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
    sources = [
        coupled(train, independent_coupling, _BATCH, key=keys[1]),
        coupled(train, independent_coupling, _BATCH, key=keys[2], noise=clusters),
    ]
    first, transfer = learn(sources, key=keys[3], batch_size=_BATCH, steps=steps)
    prior = Empirical(jnp.asarray(normal(generator, 10 * points)))
    transport = Transport(first, Linear(), prior, Euclidean((2,)))
    pairs = reflow(transport, 10 * points, key=keys[4], solver=Solver(steps=_EULER))
    (second,) = learn([together(pairs, _BATCH, key=keys[0])], key=keys[1], batch_size=_BATCH, steps=steps)

    optimal = coupled(train, optimal_coupling, _BATCH, key=keys[2], pool=_POOL)
    (paired,) = learn([optimal], key=keys[4], batch_size=_BATCH, steps=2 * steps)

    ends = follow_euler(first, starts, _EULER)
    floor = wasserstein(moons(generator, points), test)
    w_first, w_second = wasserstein(ends, test), wasserstein(follow_euler(second, starts, _EULER), test)
    straightened = {
        "after reflow": second,
        "flow on independent pairs": first,
        "flow on optimal pairs of batches": paired,
    }
    bends = {name: bend(field, starts[:500], _EULER) for name, field in straightened.items()}
    hops = {name: wasserstein(follow_euler(field, starts, 1), test) - w_first for name, field in straightened.items()}
    moved = follow_euler(transfer, clusters[:points], _EULER)
    static = _static_map(optimal, starts, key=keys[4], steps=steps)
    across = coupled(train, optimal_coupling, _BATCH, key=keys[2], noise=clusters, pool=_POOL)
    mapped = _static_map(across, clusters[:points], key=keys[4], steps=steps)

    def contrast(metric: str, ours: tuple[str, float], theirs: tuple[str, float], threshold: float) -> Contrast:
        return Contrast(metric, dict([ours, theirs]), "lower", threshold=threshold)

    return [
        Check(
            "reflow makes the paths straighter",
            "stated in words",
            contrasts=Contrast("straightness / path energy", bends, "lower", ratio=0.5),
            moved_from="at most 0.05, which the flow on independent pairs misses, with no other beside it",
            figure=lambda axes: draw_clouds(
                axes,
                {"data": test},
                {
                    "independent pairs": moving_euler(first, starts[:40], _EULER),
                    "after reflow": moving_euler(second, starts[:40], _EULER),
                },
            ),
        ),
        Check(
            "after reflow one Euler step generates",
            "stated in words (figures are given for images only)",
            contrasts=Contrast(
                f"W2 to fresh data of one step, above that of {_EULER} steps of the first flow",
                hops,
                "lower",
                ratio=0.5,
            ),
            expected=False,
            moved_from="at most 0.3, which the flow on independent pairs misses, with no other beside it",
            tried="one step after reflow is as good as fifty before it (0.01 above, 1.45 by one step of the first "
            "flow); a flow trained once on optimal pairs of batches, for as long as both, needs one step too, and ends "
            "nearer",
        ),
        Check(
            "rectification keeps the marginals, once and again",
            "proved (theorem 3.3)",
            contrasts=contrast(
                "W2 to fresh data, above that of two samples of the data",
                ("the worse of flow and reflow", max(w_first, w_second) - floor),
                ("a map regressed on optimal pairs of batches", wasserstein(static, test) - floor),
                threshold=0.25,
            ),
            moved_from="the same against the flow cut to one step, a planted error",
            expected=False,
            tried="flow and reflow keep to the threshold (0.20), and so does the baseline (0.13), which is trained on "
            "optimal pairs of batches and has nearly the right marginals too: no map that is at hand and fair fails",
        ),
        Check(
            "rectification lowers every convex transport cost",
            "proved not to increase (theorem 3.5)",
            contrasts=[
                contrast(
                    f"{name}, over that of independent pairs",
                    ("rectified pairs", _cost_ratio(starts, ends, test, power)),
                    ("other independent pairs", _cost_ratio(starts, test[::-1], test, power)),
                    threshold=0.95,
                )
                for name, power in (("distance", 1), ("its square", 2), ("its fourth power", 4))
            ],
        ),
        Check(
            "the same procedure transfers between two data sets",
            "stated in words",
            contrasts=contrast(
                "W2 from a ring to fresh moons, above that of two samples of the moons",
                ("flow", wasserstein(moved, test) - floor),
                ("a map regressed on optimal pairs of batches", wasserstein(mapped, test) - floor),
                threshold=0.25,
            ),
            expected=False,
            tried="the flow comes as near as asked (0.23), the map regressed on optimal pairs nearer: in the plane "
            "that is the easier problem",
            moved_from="the same against the ring as it is",
            figure=lambda axes: draw_clouds(
                axes,
                {"moons": test, "ring": clusters[:points]},
                {"flow": moving_euler(transfer, clusters[:60], _EULER)},
            ),
        ),
    ]


def _static_map(source: Source, starts: np.ndarray, *, key: Key, steps: int) -> np.ndarray:
    """Where a network carries the starts that was regressed on where they go: the usual way to learn a map at once."""
    start_key, fit_key = jax.random.split(key)

    def carried(network: MLP, points: Array) -> Array:
        return points + jax.vmap(lambda y: network(jnp.zeros(()), y, None))(points)

    def loss(network: MLP, batch: dict[str, Array], *, key: Key) -> Array:
        return jnp.mean(jnp.square(carried(network, batch["noise"]) - batch["data"]))

    network = MLP(2, width=64, depth=3, activation="selu", key=start_key)
    optimizer = optax.adamw(1e-3, weight_decay=1e-5)
    done = fit(loss, network, source, optimizer=optimizer, steps=steps, batch_size=_BATCH, key=fit_key)
    return np.asarray(carried(done.model, jnp.asarray(starts)))


def _cost_ratio(starts: np.ndarray, ends: Array | np.ndarray, independent: np.ndarray, power: int) -> float:
    """Mean power of the displacement, over that of pairing ``starts`` with ``independent``."""
    ours, theirs = (np.linalg.norm(np.asarray(to) - starts, axis=1) for to in (ends, independent))
    return float(np.mean(ours**power) / np.mean(theirs**power))
