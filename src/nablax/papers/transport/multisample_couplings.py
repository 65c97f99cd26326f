"""Multisample flow matching: pairing a batch well lowers variance, straightens paths and spares steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._core import Key
from ...fields import MLP
from ...transport import (
    Linear,
    SinkhornCoupling,
    flow_matching,
    heuristic_coupling,
    independent_coupling,
    optimal_coupling,
    stable_coupling,
)
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
    wasserstein,
    wide_moons,
)
from .._records import Check, Paper
from . import _plane_table

PAPER = Paper(
    slug="multisample-couplings",
    title="Multisample Flow Matching: Straightening Flows with Minibatch Couplings",
    year=2023,
    link="https://arxiv.org/abs/2304.14772",
    rooms=("transport", "diagnose"),
    row=85,
    read="text",
)

_BATCH, _EULER, _POOL = 256, 50, 250


def nearest_coupling(noise: Array, data: Array, *, key: Key, labels: PyTree = None) -> np.ndarray:
    """Give each data point its nearest noise: cheaper than any pairing, and no pairing."""
    distances = ((np.asarray(noise)[None, :] - np.asarray(data)[:, None]) ** 2).sum(-1)
    return distances.argmin(1)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train from noise to moons with three couplings of the batch, and from moons to a ring with two.

    Its stable and heuristic couplings are held against independent pairs by what they cost; its image sets are not run.

    Args:
        key: of all randomness.
        full: also reproduce the table of flows in the plane: 15 cells of five seeds, an hour or two on two cores.

    Returns:
        Seven checks; with ``full`` one more for each number of the table.
    """
    points = 1000
    keys = jax.random.split(key, 4)
    generator = np.random.default_rng(int(jax.random.bits(keys[0])))
    train, test, starts = moons(generator, 10 * points), moons(generator, points), normal(generator, points)
    # Between two sets that are both spread out, the pairing decides where a point goes and not only how.
    far, near = ring(generator, 10 * points, deviation=0.6), wide_moons(generator, 10 * points) / np.float32(2)

    def source(coupling: Any, number: int, **sets: Any) -> Source:
        pool = None if coupling is independent_coupling else _POOL
        return coupled(coupling=coupling, batch_size=_BATCH, key=jax.random.fold_in(keys[1], number), pool=pool, **sets)

    plain, paired = source(independent_coupling, 0, data=train), source(optimal_coupling, 1, data=train)
    wrong, entropic = (
        source(nearest_coupling, 2, data=train),
        source(SinkhornCoupling(0.5, tolerance=1e-2), 3, data=train),
    )
    across = [source(coupling, 4, data=far, noise=near) for coupling in (independent_coupling, optimal_coupling)]
    loose, tight, astray, loose_across, tight_across = learn(
        [plain, paired, wrong, *across], key=keys[2], batch_size=_BATCH, steps=2000
    )

    def off(network: MLP, steps: int = _EULER) -> float:
        return wasserstein(follow_euler(network, starts, steps), test)

    def contrast(metric: str, optimal: Any, independent: Any, **decides: Any) -> Contrast:
        return Contrast(metric, {"optimal pairs": optimal, "independent pairs": independent}, "lower", **decides)

    begin, reached, floor = near[:points], off(loose), wasserstein(moons(generator, points), test)

    def excess(field: MLP) -> float:
        """Cost of the map over that of the best map of the same points to the same ends."""
        ends = follow_euler(field, begin, _EULER)
        return _squared(begin, ends).mean() / wasserstein(begin, ends) ** 2

    stable, heuristic = source(stable_coupling, 5, data=train), source(heuristic_coupling, 6, data=train)
    optimal_cost, entropic_cost, stable_cost, heuristic_cost, independent_cost = (
        _squared(**batches(0, 20)).mean(axis=1) for batches in (paired, entropic, stable, heuristic, plain)
    )
    cost = "squared distance of a pair, batch by batch"
    found = [
        Check(
            "an optimal pairing lowers the variance of the gradient",
            "stated in words",
            contrasts=contrast(
                "total variance of a batch's gradient, after training",
                *(_gradient_variance(*pair, keys[3]) for pair in ((tight, paired), (loose, plain))),
                ratio=0.5,
            ),
        ),
        Check(
            "an optimal pairing straightens the flow",
            "stated in words",
            contrasts=contrast(
                "straightness / path energy",
                *(bend(field, starts[:500], _EULER) for field in (tight, loose)),
                threshold=0.05,
            ),
        ),
        Check(
            "so that few steps suffice",
            "stated in words",
            contrasts=contrast(
                f"W2 to fresh data of three Euler steps, above that of {_EULER} on independent pairs",
                *(off(field, 3) - reached for field in (tight, loose)),
                threshold=0.1,
            ),
        ),
        Check(
            "the learned map costs little more than the optimal one",
            "stated for high dimensions; here in the plane",
            contrasts=contrast(
                "mean squared displacement from moons to a ring, over that of the best map to the same ends",
                *(excess(field) for field in (tight_across, loose_across)),
                threshold=1.15,
            ),
            moved_from="over W2² of fresh samples, which varies by as much as is asked",
            figure=lambda axes: draw_clouds(
                axes,
                {"moons": begin, "ring": far[:points]},
                {
                    "independent pairs": moving_euler(loose_across, begin[:40], _EULER),
                    "optimal pairs": moving_euler(tight_across, begin[:40], _EULER),
                },
            ),
        ),
        Check(
            "a coupling with the right marginals leaves the right distribution",
            "proved (lemma 3.1)",
            contrasts=Contrast(
                "W2 to fresh data, above that of two samples of the data",
                {"optimal pairs": off(tight) - floor, "nearest noise, whose marginals are wrong": off(astray) - floor},
                "lower",
                threshold=0.2,
            ),
            figure=lambda axes: draw_clouds(
                axes,
                {
                    "data": test,
                    "optimal pairs": np.asarray(follow_euler(tight, starts, _EULER)),
                    "nearest noise": np.asarray(follow_euler(astray, starts, _EULER)),
                },
                {},
            ),
        ),
        Check(
            "the entropic coupling lies between optimal and independent",
            "stated in words",
            contrasts=[
                Contrast(
                    cost, {"entropic pairs": entropic_cost, "independent pairs": independent_cost}, "lower", ratio=0.5
                ),
                Contrast(cost, {"optimal pairs": optimal_cost, "entropic pairs": entropic_cost}, "lower"),
            ],
        ),
        Check(
            "stable and heuristic couplings, which satisfy less, bring most of what the optimal one does",
            "variance of 1.60 and 1.56 against 10.7 of independent pairs and 0.24 of optimal ones, in the plane",
            contrasts=[
                Contrast(cost, {name: found, "independent pairs": independent_cost}, "lower", ratio=0.5)
                for name, found in (("stable pairs", stable_cost), ("heuristic pairs", heuristic_cost))
            ],
        ),
    ]
    return found + (_plane_table.checks(key) if full else [])


def _squared(noise: np.ndarray, data: Array | np.ndarray) -> np.ndarray:
    """Squared distances between points that belong together."""
    return np.sum((np.asarray(data) - noise) ** 2, axis=-1)


@eqx.filter_jit
def _gradients(network: MLP, batches: dict[str, Array], keys: Array) -> Array:
    loss = flow_matching(Linear())

    def gradient(batch: dict[str, Array], key: Key) -> Array:
        leaves = jax.tree.leaves(eqx.filter_grad(lambda m: loss(m, batch, key=key))(network))
        return jnp.concatenate([leaf.ravel() for leaf in leaves])

    return jax.lax.map(lambda row: gradient(*row), (batches, keys))


def _gradient_variance(network: MLP, source: Source, key: Key, count: int = 64) -> float:
    """Trace of the covariance of a batch's gradient over batches and times."""
    batches = jax.tree.map(jnp.asarray, source(0, count))
    return float(jnp.sum(jnp.var(_gradients(network, batches, jax.random.split(key, count)), axis=0, ddof=1)))
