"""Consensus-based optimisation: particles drawn to where the loss is low, shaken the more the farther they are."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_callable,
    check_count,
    check_floats,
    check_key,
    check_loss,
    exact,
    norm,
    normal,
    space,
)
from .._outcome import outcome
from .._settings import check_not_negative, check_positive, rate_at
from ._crowd import crowd


class Consensus(AbstractRecord):
    """Where particles came to agree.

    Attributes:
        params: the consensus at the end, shaped like one particle.
        particles: at the end, with a leading axis.
        values: the lowest loss among the particles before each step and at the end, [steps + 1].
        result: ``optimistix.RESULTS.successful``, or that no particle had a finite loss.
        evaluations: of the loss.
    """

    params: PyTree
    particles: PyTree
    values: Float[Array, " steps"]
    result: optimistix.RESULTS
    evaluations: int = eqx.field(static=True)


@eqx.filter_jit
@canonical_convolutions
@exact
def consensus(
    loss: Callable[[PyTree], Array],
    start: PyTree,
    *,
    steps: int,
    step_size: float = 0.01,
    drift: float = 1.0,
    noise: float = 7.0,
    sharpness: optax.ScalarOrSchedule = 100.0,
    anisotropic: bool = True,
    key: jax.Array,
    throw: bool = True,
) -> Consensus:
    r"""Minimise a function, by its values alone, over particles that agree on where it is low.

    .. math::
        c = \frac{\sum_iw_ix_i}{\sum_iw_i},\quad w_i = e^{-\alpha(E(x_i)-\min_jE(x_j))}, \qquad
        x_i^+ = x_i-\lambda h\,(x_i-c)+\sigma\sqrt h\,D_i\xi_i

    with normal noise of each particle's own, along each coordinate by its distance from the consensus,
    :math:`D_i=\mathrm{diag}(x_i-c)`, or by the whole distance, :math:`D_i=\lVert x_i-c\rVert`. The step of the
    consensus is a relaxed step of descent: were particles normal about x with variance s², and E ½k‖x‖², it would be
    :math:`x/(1+\alpha ks^2)`, a proximal step. Noise along coordinates does not grow with their number, and finds
    minima behind barriers that are lined up with the axes sooner than others.

    Particles shrink towards the consensus as long as :math:`\mathbb E\log|1-\lambda h+\sigma\sqrt h\,\xi|<0`; with
    ``noise`` too large they fly apart.

    Args:
        loss: ``loss(params) -> scalar`` of one particle; no gradient is taken. Particles where it is NaN or infinite
            have no say.
        start: particles with a leading axis, a tree of arrays; spread over where the minimum may be.
        steps: turns.
        step_size: h, time a step; 0.01 by default, the authors'. With 0.1 twenty-dimensional Rastrigin functions are
            not found.
        drift: λ, per unit of time, 1 by default.
        noise: σ, per root of time; 7 by default, ours, for noise along coordinates. The authors' illustration has 1.6,
            by the whole distance in two dimensions; other examples of theirs √1.6 along coordinates, with which
            particles have agreed before they find the ten-dimensional Rastrigin function's minimum (mean loss 8.7 in
            the claim's problem, against 1.1 at 7).
        sharpness: α, per unit of the loss, a number or a schedule; 100 by default, the authors': the lowest losses
            decide, of which a hundredth of their unit is told apart.
        anisotropic: noise along coordinates, True by default.
        key: of the noise.
        throw: raise where all losses are NaN or infinite (default), or only report it in ``result``.

    Returns:
        A :class:`Consensus`.

    Raises:
        ValueError: settings out of range, no key, fewer than two particles, or a loss that is no real scalar.
        RuntimeError: no particle had a finite loss; raised when it is run.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> def rastrigin(x):  # a minimum at 1, and others at nearly every whole distance from it
        ...     return jnp.sum((x - 1) ** 2 + 10 * (1 - jnp.cos(2 * jnp.pi * (x - 1))))
        >>> start_key, key = jax.random.split(jax.random.key(0))
        >>> start = jax.random.uniform(start_key, (200, 3), minval=-3, maxval=3)
        >>> found = optimize.consensus(rastrigin, start, steps=1000, key=key)
        >>> [round(float(x), 1) for x in found.params]
        [1.0, 1.0, 1.0]

    Cost: an evaluation of the loss, and a normal number for each coordinate, a particle and step.

    References:
        - Riedl, Klock, Geldhauser and Fornasier, "Gradient is All You Need? How Consensus-Based Optimization can be
          Interpreted as a Stochastic Relaxation of Gradient Descent", 2023, https://arxiv.org/abs/2306.09778, and the
          authors' code, https://github.com/KonstantinRiedl/CBOGlobalConvergenceAnalysis (the scheme, and weights from
          the lowest loss, are followed. It has a step along the gradient beside them, off where the figures are made,
          and the paper's other scheme, of draws about the consensus, which are not here; that losses which are no
          numbers have no say, and the closed form for the normal, are ours).
        - CBXpy, https://github.com/PdIPS/CBXpy, has the same scheme, with h 0.01, λ and α 1, σ 5.1 and noise by the
          whole distance unless told otherwise.
    """
    check_callable(loss, what="loss", fix="Pass loss(params) -> scalar of one particle.")
    steps = check_count(steps, what="steps")
    check_positive(step_size=step_size)
    check_not_negative(drift=drift, noise=noise)
    if not callable(sharpness):
        check_positive(sharpness=sharpness)
    check_key(key)
    check_floats(start, what="particles", fix="Keep what is not moved out of them, in the loss.")
    particles = crowd(start, least=2)
    one = jax.tree.map(lambda leaf: leaf[0], start)
    states = space(one)
    whole = jax.vmap(lambda particle: space(particle).flat)(start)

    def energies(x: Float[Array, "particles dim"]) -> Float[Array, " particles"]:
        values = jax.vmap(lambda row: check_loss(loss(states.tree(row))))(x)
        return jnp.where(jnp.isfinite(values), values, jnp.inf).astype(x.dtype)

    def agreed(x: Float[Array, "particles dim"], step: Array | int) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        values = energies(x)
        lowest = jnp.min(values)
        above = jnp.where(jnp.isfinite(lowest), values - lowest, jnp.nan)
        weights = jnp.exp(-rate_at(sharpness, step) * above).astype(x.dtype)
        # Nought times what is no number is none.
        heard = jnp.where(weights[:, None] > 0, x, 0)
        return weights @ heard / jnp.sum(weights), lowest

    def turn(x: Float[Array, "particles dim"], now: tuple[Array, Array]) -> tuple[Array, Array]:
        step, key = now
        centre, lowest = agreed(x, step)
        away = x - centre[None]
        reach = away if anisotropic else norm(away, axis=1, keepdims=True)
        shaken = noise * step_size**0.5 * reach * normal(key, x.shape, x.dtype)
        return (x - drift * step_size * away + shaken).astype(x.dtype), lowest

    whole, lowest = jax.lax.scan(turn, whole, (jnp.arange(steps), jax.random.split(key, steps)))
    centre, last = agreed(whole, steps)
    values = jnp.append(lowest, last)
    params, result = outcome(states.tree(centre), jnp.all(jnp.isfinite(values)), throw)
    return Consensus(params, states.rows(whole), values, result, particles * (steps + 1))
