"""Twisted sequential Monte Carlo along a flow: the engine of `complete` and `sample_posterior`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..._core import AbstractRecord, Key, canonical_convolutions, check_count
from .._march import Moment, march, time_grid
from .._transport import Transport
from ._foreseen import Chain, Foreseen

_RESAMPLE_BELOW = 0.5  # effective sample size, as a share of the particles


class Posterior(AbstractRecord):
    """Draws from a conditional distribution, and whether to trust them.

    Attributes:
        samples: the draws, leading axis ``count``.
        effective_sample_size: the smallest over the steps, in particles: near 1, one particle has taken over.
        lineages: effective number of first particles that the last ones descend from, in particles: a low number says
            that the draws are alike because they are kin, and that more particles are needed.
        log_evidence: log-density of what was observed, in nats of its unit; its exponential is unbiased.
    """

    samples: Float[Array, " count *shape"]
    effective_sample_size: Float[Array, ""]
    lineages: Float[Array, ""]
    log_evidence: Float[Array, ""]


class _Population(NamedTuple):
    """The particles: where they are, what they foresee, how much they weigh, and whom they descend from."""

    ys: Float[Array, "particles dim"]
    ahead: Foreseen
    log_weights: Float[Array, " particles"]
    lineage: Int[Array, " particles"]
    log_evidence: Float[Array, ""]


@eqx.filter_jit
@canonical_convolutions
def twisted(
    transport: Transport,
    matrix: Array,
    variance: Array,
    observation: Array,
    count: int,
    key: Key,
    particles: int,
    steps: int,
    args: PyTree,
) -> Posterior:
    """Draw given ``matrix @ x + noise = observation``, all flat; see `sample_posterior` for the method."""
    count, particles = check_count(count, what="count"), check_count(particles, what="particles")
    chain, dtype = Chain(transport, matrix, variance, observation, args), observation.dtype
    dim = transport.space.dim
    first_key, noise_key, pick_key, last_key = jax.random.split(key, 4)

    def start(t: Array, ys: Array) -> _Population:
        ys = ys.reshape(particles, -1).astype(dtype)
        ahead = jax.vmap(chain.look, in_axes=(None, 0))(t, ys)
        weights = _dead_if_not_finite(ahead.log_twist)
        return _Population(ys, ahead, weights, jnp.arange(particles), jnp.zeros((), dtype))

    def step(now: Moment, population: _Population, _: None) -> tuple[_Population, Array]:
        resample_key, move_key = jax.random.split(now.key)
        ys, ahead, log_weights, lineage, log_evidence = _resampled(population, resample_key)
        noise = jax.random.normal(move_key, (particles, 2 * dim + observation.size), dtype)
        ys, ahead, gained = jax.vmap(chain.move, in_axes=(None, None, 0, 0, 0))(now.t, now.s, ys, ahead, noise)
        log_weights = _dead_if_not_finite(log_weights + gained)
        return _Population(ys, ahead, log_weights, lineage, log_evidence), _effective(log_weights)

    # From the last of these times the end is drawn at once, so the path's own last time is not visited.
    times = time_grid(transport.path, steps, dtype)[:-1]
    population, sizes = march(transport, step, particles, key=first_key, steps=times, noise_key=noise_key, start=start)

    log_evidence = population.log_evidence + _log_mean(population.log_weights)
    # The draws too depend on it, for a guard on what is not used is left out of the program.
    log_evidence, log_weights = eqx.error_if(
        (log_evidence, population.log_weights),
        ~jnp.isfinite(log_evidence),
        "every particle lost its weight: is the field finite at this row?",
    )
    index = _systematic(log_weights, count, pick_key)
    chosen = jax.tree.map(lambda leaf: leaf[index], population.ahead)
    ends = jax.vmap(chain.end)(chosen, jax.random.normal(last_key, (count, dim + observation.size), dtype))
    shares = jnp.zeros((particles,), dtype).at[population.lineage].add(jax.nn.softmax(log_weights))
    smallest = jnp.min(jnp.append(sizes, _effective(log_weights)))
    samples = ends.reshape(count, *transport.space.shape)
    return Posterior(samples, smallest, 1 / jnp.sum(jnp.square(shares)), log_evidence)


def _resampled(population: _Population, key: Key) -> _Population:
    """The same particles; where few carry the weight, drawn anew by it."""
    ys, ahead, log_weights, lineage, log_evidence = population
    particles = log_weights.size
    uneven = _effective(log_weights) < _RESAMPLE_BELOW * particles
    index = jnp.where(uneven, _systematic(log_weights, particles, key), jnp.arange(particles))
    log_evidence = log_evidence + jnp.where(uneven, _log_mean(log_weights), 0.0)
    log_weights = jnp.where(uneven, jnp.zeros_like(log_weights), log_weights)
    ys, ahead, lineage = jax.tree.map(lambda leaf: leaf[index], (ys, ahead, lineage))
    return _Population(ys, ahead, log_weights, lineage, log_evidence)


def _effective(log_weights: Array) -> Array:
    return 1 / jnp.sum(jnp.square(jax.nn.softmax(log_weights)))


def _log_mean(log_weights: Array) -> Array:
    return jax.nn.logsumexp(log_weights) - jnp.log(jnp.asarray(log_weights.size, log_weights.dtype))


def _dead_if_not_finite(log_weights: Array) -> Array:
    return jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)


def _systematic(log_weights: Array, count: int, key: Key) -> Array:
    # Evenly spaced points, turned round by one uniform draw: each particle is taken its expected number of times, to
    # within one, and every single pick has the right law.
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(count, dtype=edges.dtype) / count + jax.random.uniform(key, (), edges.dtype)) % 1
    return jnp.minimum(jnp.searchsorted(edges, points * edges[-1], side="right"), log_weights.size - 1)


__all__ = ["Posterior", "twisted"]
