"""Log-density of a batch under a flow: the prior's at the codes, and the divergence on the way."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Field, Key, check_count, check_instance, check_key, fault
from ...calculus import divergence as exact_divergence
from ...follow import Solver, flow
from ...spaces import AbstractSpace, Euclidean
from .._batch import check_batch, finite_rows, with_stand_ins
from .._priors import Normal, Prior
from ._log_prob import LogProb, divergence_along

_EXACT_UP_TO = 256  # dimensions; beyond it D Jacobian products an evaluation cost more than a few probes
_Trace = Callable[[Array, PyTree, PyTree], Array]


def log_density(
    velocity: Field,
    batched: Field,
    times: tuple[float, float],
    prior: Prior,
    space: AbstractSpace,
    ys: Float[Array, " rows *shape"],
    args: PyTree,
    *,
    divergence: str,
    probes: int,
    key: Key | None,
    panels: int,
    solver: Solver,
    round_trip: bool,
) -> LogProb:
    """Score rows under the flow of a velocity from a prior; see `Transport.log_prob` for the options.

    Args:
        velocity: of one sample.
        batched: the same of a batch.
        times: first, at the prior, and last, at the data.
        prior: with a density.
        space: flat, where the samples live.
        ys: data, leading axis over rows.
        args: condition, the same leading axis, or None.
        divergence: "exact", "stochastic" or "auto".
        probes: of the stochastic divergence.
        key: for them.
        panels: of the divergence's quadrature.
        solver: of the trajectories.
        round_trip: also send the codes forwards again.

    Returns:
        A `LogProb`.

    Raises:
        ValueError: an option is unknown or out of range; the space is curved; the prior has no density; the rows are
            not of floats and of the space's shape, or the conditions not one a row.
    """
    check_instance(
        space, Euclidean, what="a flat space, for the density", fix="Curved spaces need a divergence of theirs."
    )
    if not isinstance(prior, Normal):
        raise fault(expected="a prior with a density", got="Empirical", fix="Use a Normal prior for likelihoods.")
    if divergence not in ("auto", "exact", "stochastic"):
        raise fault(expected="auto, exact or stochastic", got=repr(divergence), fix="Use the default, auto.")
    panels = check_count(panels, what="panels")
    given = check_batch(ys, args, space.shape)
    conditions = args
    ys, args, finite = with_stand_ins(given.astype(jnp.promote_types(given.dtype, jnp.float32)), args)
    rows = len(ys)
    first, last = times
    exact = divergence == "exact" or (divergence == "auto" and space.dim <= _EXACT_UP_TO)
    trace = jax.vmap(exact_divergence(velocity), in_axes=(None, 0, 0)) if exact else _probed(velocity, ys, probes, key)
    codes, integral, gap, evaluations = divergence_along(
        batched, trace, ys, args, last, first, panels=panels, solver=solver
    )
    log_prior = jax.vmap(prior.log_prob)(codes)  # the integral runs backwards: it is minus the formula's
    if exact:
        value, error = log_prior + integral, jnp.zeros_like(log_prior)
    else:
        value, gap = log_prior + jnp.mean(integral, axis=1), jnp.mean(gap, axis=1)
        error = jnp.full_like(value, jnp.nan) if probes == 1 else jnp.std(integral, axis=1, ddof=1) / probes**0.5
    missed = jnp.full_like(value, jnp.nan)
    if round_trip:
        back = flow(batched, codes, first, last, args=args, solver=solver).ys
        missed = jnp.sqrt(jnp.mean(jnp.square(back - ys).reshape(rows, -1), axis=1))
    # The density of what is infinite, unlike that of what is not known, is zero.
    known = finite_rows(conditions, rows) & ~jnp.any(jnp.isnan(given).reshape(rows, -1), axis=1)
    value = jnp.where(finite, value, jnp.where(known, -jnp.inf, jnp.nan).astype(value.dtype))
    error, gap, missed = (jnp.where(finite, part, jnp.nan) for part in (error, gap, missed))
    return LogProb(value, error, gap, missed, evaluations)


def _probed(velocity: Field, ys: Array, probes: int, key: Key | None) -> _Trace:
    """Hutchinson's estimates of the divergence, one a probe, the probes of a row the same at every time."""
    if key is None or probes < 1:
        raise fault(
            expected="a key and probes ≥ 1 for the stochastic divergence",
            got=f"key={'given' if key is not None else None}, probes={probes}",
            fix="Pass key=jax.random.key(...), or divergence='exact'.",
        )
    check_key(key)
    directions = jax.random.rademacher(key, (len(ys), probes, *ys.shape[1:]), ys.dtype)

    def one(t: Array, y: Array, args: PyTree, directions: Array) -> Array:
        _, product = jax.linearize(lambda y: velocity(t, y, args), y)
        return jax.vmap(lambda e: jnp.vdot(e, product(e)))(directions)

    return lambda t, ys, args: jax.vmap(one, in_axes=(None, 0, 0, 0))(t, ys, args, directions)


__all__ = ["log_density"]
