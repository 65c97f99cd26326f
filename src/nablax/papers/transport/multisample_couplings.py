"""Multisample flow matching: pairing a batch well lowers variance, straightens paths and spares steps."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._core import Key
from ...diagnose import path_geometry
from ...fields import MLP
from ...transport import (
    Linear,
    SinkhornCoupling,
    flow_matching,
    independent_coupling,
    optimal_coupling,
)
from .._problems._paths import draw_paths, finish
from .._problems._plane import (
    Source,
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

_BATCH = 256
_EULER = 50


def nearest_coupling(noise: Array, data: Array, *, key: Key, labels: PyTree = None) -> np.ndarray:
    """Give each data point its nearest noise: cheaper than any pairing, and no pairing."""
    distances = ((np.asarray(noise)[None, :] - np.asarray(data)[:, None]) ** 2).sum(-1)
    return distances.argmin(1)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train from noise to moons with four couplings of the batch, and compare with independent pairs.

    The paper's image sets and its stable and heuristic couplings are not run.

    Args:
        key: of all randomness.
        full: also reproduce the table of flows in the plane: 15 cells of five seeds, an hour or two on two cores.

    Returns:
        Six checks; with ``full`` one more for each number of the table.
    """
    points, steps = 1000, 2000
    keys = jax.random.split(key, 4)
    generator = np.random.default_rng(int(jax.random.bits(keys[0])))
    train, test, starts = moons(generator, 10 * points), moons(generator, points), normal(generator, points)
    couplings: dict[str, Any] = {
        "independent": independent_coupling,
        "optimal": optimal_coupling,
        "entropic": SinkhornCoupling(0.5, tolerance=1e-2),
        "nearest": nearest_coupling,
    }
    sources = [
        coupled(train, coupling, _BATCH, key=k, pool=None if name == "independent" else 250)
        for (name, coupling), k in zip(couplings.items(), jax.random.split(keys[1], 4), strict=True)
    ]
    # Between two sets that are both spread out, the pairing decides where a point goes and not only how.
    far, near = ring(generator, 10 * points, deviation=0.6), wide_moons(generator, 10 * points) / np.float32(2)
    across = [
        coupled(far, coupling, _BATCH, key=keys[3], noise=near, pool=pool)
        for coupling, pool in ((independent_coupling, None), (optimal_coupling, 250))
    ]
    *learned, loose, tight = learn([*sources, *across], key=keys[2], batch_size=_BATCH, steps=steps)
    networks = dict(zip(couplings, learned, strict=True))

    ends = {name: np.asarray(follow_euler(network, starts, _EULER)) for name, network in networks.items()}
    w = {name: wasserstein(end, test) for name, end in ends.items()}
    few = {name: wasserstein(follow_euler(networks[name], starts, 3), test) for name in ("independent", "optimal")}
    bend, variance = {}, {}
    for (name, network), source in zip(networks.items(), sources, strict=True):
        geometry = path_geometry(network, starts[:500], steps=_EULER, method=diffrax.Euler())
        bend[name] = float(geometry.relative_straightness.value)
        variance[name] = _gradient_variance(network, source, keys[3])
    pair_cost = {name: _squared(**source(0, 20)) for name, source in zip(couplings, sources, strict=True)}
    begin = near[:points]
    moved_loose, moved_tight = (_squared(begin, follow_euler(m, begin, _EULER)) for m in (loose, tight))
    least = wasserstein(begin, ring(generator, points, deviation=0.6)) ** 2
    floor = wasserstein(moons(generator, points), test)

    def across_the_plane(axes: Any) -> None:
        for cloud, name in ((begin, "moons"), (far[:points], "ring")):
            axes.plot(*cloud.T, ".", color="C2", ms=2, alpha=0.4, label=name, rasterized=True)
        for network, colour, name in ((loose, "C1", "independent pairs"), (tight, "C0", "optimal pairs")):
            draw_paths(axes, moving_euler(network, begin[:40], _EULER), colour, name)
        axes.set_axis_off()
        finish(axes, aspect="equal")

    def arrived(axes: Any) -> None:
        clouds = (
            (test, "C2", "data"),
            (ends["nearest"], "C1", "nearest noise"),
            (ends["optimal"], "C0", "optimal pairs"),
        )
        for cloud, colour, name in clouds:
            axes.plot(*cloud.T, ".", color=colour, ms=2.5, alpha=0.6, label=name, rasterized=True)
        axes.set_axis_off()
        finish(axes, aspect="equal")

    found = [
        Check(
            "an optimal pairing lowers the variance of the gradient",
            "stated in words",
            f"total variance of a batch's gradient, after training, {variance['optimal']:.3g}",
            "at most half that of independent pairs",
            variance["optimal"] <= 0.5 * variance["independent"],
            f"independent pairs: {variance['independent']:.3g}",
        ),
        Check(
            "an optimal pairing straightens the flow",
            "stated in words",
            f"straightness / path energy {bend['optimal']:.4f}",
            "below 0.05, where 0 is straight",
            bend["optimal"] < 0.05 <= bend["independent"],
            f"independent pairs: {bend['independent']:.4f}",
        ),
        Check(
            "so that few steps suffice",
            "stated in words",
            f"W2 to fresh data with three Euler steps {few['optimal']:.3f}",
            f"at most 0.1 above {_EULER} steps of the flow on independent pairs, {w['independent']:.3f}",
            few["optimal"] <= w["independent"] + 0.1 < few["independent"],
            f"independent pairs, three steps: {few['independent']:.3f}",
        ),
        Check(
            "the learned map costs little more than the optimal one",
            "stated for high dimensions; here in the plane",
            f"from moons to a ring, mean squared displacement {moved_tight:.2f}, W2² {least:.2f}",
            "at most 15 % above W2²",
            moved_tight <= 1.15 * least < moved_loose,
            f"independent pairs: {moved_loose:.2f}",
            figure=across_the_plane,
        ),
        Check(
            "a coupling with the right marginals leaves the right distribution",
            "proved (lemma 3.1)",
            f"W2 to fresh data {w['optimal']:.3f} (two samples of the data: {floor:.3f})",
            "at most 0.2 above two samples of the data",
            w["optimal"] <= floor + 0.2 < w["nearest"],
            f"each data point with its nearest noise, whose marginals are wrong: {w['nearest']:.3f}",
            figure=arrived,
        ),
        Check(
            "the entropic coupling lies between optimal and independent",
            "stated in words",
            f"mean squared distance of a pair {pair_cost['entropic']:.3f} at regularisation 0.5",
            f"above the optimal pairing's {pair_cost['optimal']:.3f}, and at most half that of independent pairs",
            pair_cost["optimal"] < pair_cost["entropic"] <= 0.5 * pair_cost["independent"],
            f"independent pairs: {pair_cost['independent']:.3f}",
        ),
    ]
    return found + (_plane_table.checks(key) if full else [])


def _squared(noise: np.ndarray, data: Array | np.ndarray) -> float:
    """Mean squared distance between the points of two clouds that belong together."""
    return float(np.mean(np.sum((np.asarray(data) - noise) ** 2, axis=-1)))


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
