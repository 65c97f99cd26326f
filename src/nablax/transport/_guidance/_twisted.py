"""Twisted sequential Monte Carlo along a flow: the engine of `complete` and `sample_posterior`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_count
from .._transport import Transport

_BLEND = 0.15  # below this a(t), the Jacobian is too small to say what the covariance is
_FLOOR = 1e-3  # smallest eigenvalue of the covariance, in units of an isotropic one's
_RESAMPLE_BELOW = 0.5  # effective sample size, as a share of the particles


class Posterior(eqx.Module):
    """Draws from a conditional distribution, and whether to trust them.

    Attributes:
        draws: the draws.
        effective_sample_size: the smallest over the steps, in particles: near 1, one particle has taken over.
        lineages: effective number of first particles that the last ones descend from, in particles: a low number says
            that the draws are alike because they are kin, and that more particles are needed.
        log_evidence: log-density of what was observed, in nats of its unit; its exponential is unbiased.
    """

    draws: Float[Array, " draws *shape"]
    effective_sample_size: Float[Array, ""]
    lineages: Float[Array, ""]
    log_evidence: Float[Array, ""]


class _Ahead(NamedTuple):
    """Where one particle may end, N(mean, basis diag(spectrum) basisᵀ), and what it says of the observation."""

    mean: Array
    basis: Array
    spectrum: Array
    factor: Array
    log_twist: Array


@eqx.filter_jit
@canonical_convolutions
def twisted(
    transport: Transport,
    matrix: Array,
    variance: Array,
    observation: Array,
    key: Key,
    draws: int,
    particles: int,
    steps: int,
    args: PyTree,
) -> Posterior:
    """Draw given ``matrix @ x + noise = observation``, all flat; see `sample_posterior` for the method."""
    draws, particles = check_count(draws, what="draws"), check_count(particles, what="particles")
    steps = check_count(steps, what="steps")
    path, shape = transport.path, transport.space.shape
    dim, dtype = transport.space.dim, observation.dtype
    first_key, scan_key, pick_key, last_key = jax.random.split(key, 4)

    def log_density(factor: Array, mean: Array) -> Array:
        whitened = jax.scipy.linalg.solve_triangular(factor, observation - matrix @ mean, lower=True)
        constant = 0.5 * observation.size * jnp.log(2 * jnp.pi)
        return -0.5 * jnp.sum(jnp.square(whitened)) - jnp.sum(jnp.log(jnp.diagonal(factor))) - constant

    def factorise(basis: Array, spectrum: Array) -> Array:
        half = (matrix @ basis) * jnp.sqrt(spectrum)[None]
        return jnp.linalg.cholesky(half @ half.T + jnp.diag(variance), symmetrize_input=False)

    def look(t: Array, y: Array) -> _Ahead:
        def denoise(y: Array) -> Array:
            return transport.denoiser(t, y.reshape(shape), args).reshape(-1)

        mean, push = jax.linearize(denoise, y)
        jacobian = jax.vmap(push)(jnp.eye(y.size, dtype=y.dtype))
        a, b, _, _ = path.coefficients(t)
        # (b²/a) J is 0/0 at the prior; there, and near it, blend into the covariance of standardised data.
        trust = a**4 / (a**4 + _BLEND**4)
        isotropic = b**2 / (a**2 + b**2)
        raw = (a**3 / (a**4 + _BLEND**4)) * b**2 * 0.5 * (jacobian + jacobian.T)
        spectrum, basis = jnp.linalg.eigh(raw, symmetrize_input=False)
        spectrum = jnp.maximum(spectrum + (1 - trust) * isotropic, _FLOOR * isotropic)
        factor = factorise(basis, spectrum)
        return _Ahead(mean, basis, spectrum, factor, log_density(factor, mean))

    def end(ahead: _Ahead, noise: Array) -> Array:
        # Matheron's rule: draw the end and its observation jointly, then correct by what was observed instead.
        drawn = ahead.mean + ahead.basis @ (jnp.sqrt(ahead.spectrum) * noise[:dim])
        error = jnp.sqrt(variance) * noise[dim:]
        gap = jax.scipy.linalg.cho_solve((ahead.factor, True), observation - matrix @ drawn - error)
        return drawn + ahead.basis @ (ahead.spectrum * (ahead.basis.T @ (matrix.T @ gap)))

    def move(t: Array, s: Array, y: Array, ahead: _Ahead, noise: Array) -> tuple[Array, _Ahead, Array]:
        a_t, b_t, _, _ = path.coefficients(t)
        a_s, b_s, _, _ = path.coefficients(s)
        ratio = a_t / a_s
        added = b_t**2 - ratio**2 * b_s**2
        to_end, to_now, spread = a_s * added / b_t**2, ratio * b_s**2 / b_t**2, added * b_s**2 / b_t**2
        moved = to_end * end(ahead, noise[dim:]) + to_now * y + jnp.sqrt(spread) * noise[:dim]
        # The observation's density given both states, under the law foreseen at t.
        shrink = to_end**2 * ahead.spectrum + spread
        innovation = ahead.basis.T @ (moved - to_end * ahead.mean - to_now * y)
        mean = ahead.mean + ahead.basis @ (to_end * ahead.spectrum / shrink * innovation)
        foreseen = log_density(factorise(ahead.basis, _after(ahead.spectrum * spread / shrink, innovation)), mean)
        then = look(s, _after(moved, foreseen))
        return moved, then, then.log_twist - foreseen

    def body(carry: tuple, now: tuple[Array, Array, Key]) -> tuple[tuple, Array]:
        ys, ahead, log_weights, lineage, log_evidence = carry
        t, s, key = now
        resample_key, move_key = jax.random.split(key)
        size = _effective(log_weights)
        chosen = size < _RESAMPLE_BELOW * particles
        index = jnp.where(chosen, _systematic(log_weights, particles, resample_key), jnp.arange(particles))
        log_evidence = log_evidence + jnp.where(chosen, _log_mean(log_weights), 0.0)
        log_weights = jnp.where(chosen, jnp.zeros_like(log_weights), log_weights)
        ys, ahead, lineage = jax.tree.map(lambda leaf: leaf[index], (ys, ahead, lineage))
        ys, ahead, gained = jax.vmap(move, in_axes=(None, None, 0, 0, 0))(
            t, s, ys, ahead, jax.random.normal(move_key, (particles, 2 * dim + observation.size), dtype)
        )
        log_weights = _dead_if_not_finite(log_weights + gained)
        return (ys, ahead, log_weights, lineage, log_evidence), _effective(log_weights)

    # From the last of these times the end is drawn at once, so the path's own last time is not visited.
    times = jnp.linspace(*path.times, steps + 1, dtype=dtype)[:-1]
    ys = jax.vmap(transport.prior.sample)(jax.random.split(first_key, particles)).reshape(particles, -1).astype(dtype)
    ahead = jax.vmap(look, in_axes=(None, 0))(times[0], ys)
    start = (ys, ahead, _dead_if_not_finite(ahead.log_twist), jnp.arange(particles), jnp.zeros((), dtype))
    keys = jax.random.split(scan_key, steps - 1)
    (ys, ahead, log_weights, lineage, log_evidence), sizes = jax.lax.scan(body, start, (times[:-1], times[1:], keys))

    log_evidence = log_evidence + _log_mean(log_weights)
    # The draws too depend on it, for a guard on what is not used is left out of the program.
    log_evidence, log_weights = eqx.error_if(
        (log_evidence, log_weights),
        ~jnp.isfinite(log_evidence),
        "every particle lost its weight: is the field finite at this row?",
    )
    index = _systematic(log_weights, draws, pick_key)
    chosen = jax.tree.map(lambda leaf: leaf[index], ahead)
    ends = jax.vmap(end)(chosen, jax.random.normal(last_key, (draws, dim + observation.size), dtype))
    shares = jnp.zeros((particles,), dtype).at[lineage].add(jax.nn.softmax(log_weights))
    smallest = jnp.min(jnp.append(sizes, _effective(log_weights)))
    return Posterior(ends.reshape(draws, *shape), smallest, 1 / jnp.sum(jnp.square(shares)), log_evidence)


def _after(value: Array, first: Array) -> Array:
    # On processors two batched factorisations at once may deadlock: each blocks a thread of the pool whose threads the
    # other needs (jaxlib 0.10). So they are chained. A float times zero is not folded away, for it may be NaN.
    return value + 0.0 * jnp.nan_to_num(first, nan=0.0, posinf=0.0, neginf=0.0)


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
