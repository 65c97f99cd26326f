"""What papers with sets in the plane share: the sets, the exact distance, training several networks at once."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import path_geometry
from ...fields import MLP
from ...follow import Solver, fit, flow
from ...transport import (
    Linear,
    coupled_batches,
    flow_matching,
    optimal_coupling,
)

Cloud = Float[np.ndarray, "points 2"]
Sampler = Callable[[np.random.Generator, int], Cloud]
Source = Callable[[int, int], dict[str, np.ndarray]]


def normal(generator: np.random.Generator, count: int) -> Cloud:
    """The standard normal."""
    return generator.standard_normal((count, 2), np.float32)


def ring(
    generator: np.random.Generator, count: int, *, radius: float = 5.0, deviation: float = 1.0, scale: float = 1.0
) -> Cloud:
    """Eight normals on a circle, by default of radius 5 and standard deviation 1."""
    angles = 2 * np.pi * generator.integers(8, size=count) / 8
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (scale * (centres + deviation * generator.standard_normal((count, 2)))).astype(np.float32)


def moons(generator: np.random.Generator, count: int, *, noise: float = 0.05) -> Cloud:
    """Two interleaved half circles of radius 2, moved one to the left."""
    angles = np.pi * generator.random(count)
    outer = generator.random(count) < 0.5
    x = np.where(outer, np.cos(angles), 1 - np.cos(angles))
    y = np.where(outer, np.sin(angles), 0.5 - np.sin(angles))
    points = 2 * (np.stack([x, y], axis=1) + noise * generator.standard_normal((count, 2)))
    return (points - [1.0, 0.0]).astype(np.float32)


def s_curve(generator: np.random.Generator, count: int) -> Cloud:
    """The letter S, three high."""
    angles = 3 * np.pi * (generator.random(count) - 0.5)
    points = np.stack([np.sin(angles), np.sign(angles) * (np.cos(angles) - 1)], axis=1)
    return (1.5 * (points + 0.05 * generator.standard_normal((count, 2)))).astype(np.float32)


def wide_ring(generator: np.random.Generator, count: int) -> Cloud:
    """Eight normals of standard deviation 1.5 on a circle of radius 12."""
    return ring(generator, count, radius=4.0, deviation=0.5, scale=3.0)


def wide_moons(generator: np.random.Generator, count: int) -> Cloud:
    """Two moons brought to mean 0 and standard deviation 7 over all coordinates."""
    points = moons(generator, count, noise=0.1)
    return (7 * (points - points.mean()) / points.std()).astype(np.float32)


def wasserstein(left: Array | np.ndarray, right: Array | np.ndarray) -> float:
    """Exact 2-Wasserstein distance (square-rooted) between two clouds of as many points, in units of the data."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    pairing = optimal_coupling(left, right, key=jax.random.key(0))
    return float(np.sqrt(np.mean(np.sum((left[pairing] - right) ** 2, axis=1))))


def learn(sources: list[Source], *, key: Key, batch_size: int, steps: int) -> list[MLP]:
    """Train one 3 × 64 SELU network for each source, all of them in one compiled loop.

    The summed loss has one term for each network and AdamW works number by number, so they train as if alone.

    Args:
        sources: of batches "noise" and "data", one for each network.
        key: of weights and times.
        batch_size: pairs in a batch.
        steps: updates.

    Returns:
        The networks, in the order of the sources.
    """
    count = len(sources)
    weights_key, times_key = jax.random.split(key)
    networks = eqx.filter_vmap(lambda k: MLP(2, width=64, depth=3, activation="selu", key=k))(
        jax.random.split(weights_key, count)
    )
    one = flow_matching(Linear())

    def loss(networks: MLP, batch: dict[str, Array], *, key: Key) -> Float[Array, ""]:
        split = jax.tree.map(lambda x: x.reshape(count, batch_size, 2), batch)
        return jnp.sum(eqx.filter_vmap(lambda m, b, k: one(m, b, key=k))(networks, split, jax.random.split(key, count)))

    def source(first: int, number: int) -> dict[str, np.ndarray]:
        batches = [make(first, number) for make in sources]
        return {name: np.concatenate([batch[name] for batch in batches], axis=1) for name in ("noise", "data")}

    done = fit(
        loss,
        networks,
        source,
        optimizer=optax.adamw(1e-3, weight_decay=1e-5),
        steps=steps,
        batch_size=count * batch_size,
        key=times_key,
    )
    return [jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, done.model) for i in range(count)]


def coupled(
    data: Cloud,
    coupling: Any,
    batch_size: int,
    *,
    key: Key,
    noise: Cloud | None = None,
    smoothing: float = 0.0,
    pool: int | None = None,
) -> Source:
    """Coupled batches, smoothed as the papers do, each made once and used again after ``pool`` steps.

    Adding the same normal draw to both ends moves the whole segment and leaves its velocity: the path is smoothed by a
    normal of standard deviation ``smoothing`` at every time. A batch that comes again gets other times.

    Args:
        data: end points.
        coupling: of a batch.
        batch_size: pairs in a batch.
        key: of all randomness.
        noise: starting points. Default: standard normal.
        smoothing: standard deviation, in units of the data.
        pool: number of different batches. Default: every step has its own.

    Returns:
        A source of batches.
    """
    make = coupled_batches(data, coupling, batch_size, key=key, noise=noise)
    seed = int(jax.random.bits(key, dtype=jnp.uint32))
    kept: dict[int, dict[str, np.ndarray]] = {}

    def one(step: int) -> dict[str, np.ndarray]:
        number = step if pool is None else step % pool
        batch = kept.get(number) or {name: rows[0] for name, rows in make(number, 1).items()}
        if pool is not None:
            kept[number] = batch
        if not smoothing:
            return batch
        shift = np.random.default_rng([seed, step]).standard_normal(batch["data"].shape, np.float32) * smoothing
        return {name: rows + shift for name, rows in batch.items()}

    def source(first: int, count: int) -> dict[str, np.ndarray]:
        batches = [one(step) for step in range(first, first + count)]
        return {name: np.stack([batch[name] for batch in batches]) for name in ("noise", "data")}

    return source


def together(pairs: dict[str, np.ndarray], batch_size: int, *, key: Key) -> Source:
    """Batches of pairs that are drawn whole, with replacement.

    Args:
        pairs: "noise" and "data", one row a pair.
        batch_size: pairs in a batch.
        key: of the draws.

    Returns:
        A source of batches.
    """
    seed = int(jax.random.bits(key))
    size = len(pairs["data"])

    def source(first: int, count: int) -> dict[str, np.ndarray]:
        steps = range(first, first + count)
        rows = np.stack([np.random.default_rng([seed, step]).integers(size, size=batch_size) for step in steps])
        return {name: values[rows] for name, values in pairs.items()}

    return source


def bend(field: MLP, starts: Array | np.ndarray, steps: int) -> float:
    """Straightness of the flow over its path energy: 0 where it is straight."""
    return float(path_geometry(field, starts, steps=steps).relative_straightness.value)


def follow_euler(field: MLP, starts: Array | np.ndarray, steps: int = 100) -> Float[Array, "points 2"]:
    """Ends of the flow from some points, by Euler steps of equal size."""
    return _follow(field, jnp.asarray(starts), steps, None)


def moving_euler(field: MLP, starts: Array | np.ndarray, steps: int) -> Float[np.ndarray, "points times 2"]:
    """The paths of the same flow, at the end of every step."""
    times = jnp.linspace(0.0, 1.0, steps + 1)
    return np.swapaxes(np.asarray(_follow(field, jnp.asarray(starts), steps, times)), 0, 1)


@eqx.filter_jit
def _follow(field: MLP, starts: Array, steps: int, times: Array | None) -> Array:
    def velocity(t: Array, ys: Array, args: None) -> Array:
        return jax.vmap(field, in_axes=(None, 0))(t, ys)

    return flow(velocity, starts, 0.0, 1.0, solver=Solver(steps=steps, method=diffrax.Euler()), ts=times).ys
