"""How fast neighbouring trajectories part, in every direction, on average over a long time."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_finite,
    check_floats,
    check_key,
    checked_field,
    fault,
    table,
    wide_dtype,
)
from ...calculus import Estimate


class Lyapunov(AbstractRecord):
    r"""Lyapunov exponents of a flow, largest first.

    Attributes:
        exponents: ``[exponents]`` in nats per unit time, with standard errors from blocks of the trajectory. They hold
            the block-to-block scatter, not the error of the integrator.
        sum: their sum; with all of them, the mean divergence along the trajectory.
        dimension: Kaplan and Yorke's dimension of the attractor; NaN when the exponents computed do not add up to a
            negative number, so that it cannot be had from them.
        entropy: sum of the positive exponents, nats per unit time: an upper bound of the rate at which the flow forgets
            (Ruelle), and that rate for many chaotic flows (Pesin).
        duration: that was averaged over, in units of time.
        blocks: into which it was cut for the standard errors.
    """

    exponents: Estimate
    sum: Estimate
    dimension: Float[Array, ""]
    entropy: Estimate
    duration: Float[Array, ""]
    blocks: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per exponent, with standard error and unit.
        """
        unit = "nats/time"
        rows: list = [
            (f"exponent {number + 1}", Estimate(value, error), unit)
            for number, (value, error) in enumerate(zip(self.exponents.value, self.exponents.standard_error))
        ]
        rows += [
            ("sum", self.sum, unit),
            ("sum of the positive", self.entropy, unit),
            ("Kaplan–Yorke dimension", self.dimension, "1"),
        ]
        return table("Lyapunov spectrum", rows, [f"over a time of {float(self.duration):.4g}, in {self.blocks} blocks"])


def lyapunov(
    field: Field,
    y0: PyTree,
    args: PyTree = None,
    *,
    t0: float = 0.0,
    t1: float,
    steps: int,
    count: int | None = None,
    discard: float = 0.1,
    blocks: int = 16,
    method: diffrax.AbstractSolver | None = None,
    key: Key,
) -> Lyapunov:
    r"""Compute the Lyapunov spectrum of a flow by repeated orthogonalisation.

    .. math::
        \dot y = f(t, y),\qquad \dot Q = J(t, y)\,Q,\qquad
        Q \leftarrow QR^{-1}\ \text{after every step},\qquad
        \lambda_i = \frac1T\sum\log R_{ii}

    The frame is integrated beside the state by the same solver, so that for a linear field the answer is the solver's
    own growth factor. The spectrum is a long-time average: over a short time, such as that of a sampler's flow, the
    numbers depend on the frame drawn at the start (see :func:`stiffness` for what holds at each moment).

    Args:
        field: ``field(t, y, args) -> dy``.
        y0: the start, any pytree of one sample.
        args: condition, handed on.
        t0: start time, 0 by default.
        t1: end time; after ``t0``, for exponents of the way forward.
        steps: fixed steps of the solver, from ``t0`` to ``t1``.
        count: exponents, the largest; all D by default.
        discard: share of the time at the start that is not averaged over, 0.1 by default: the way to the attractor, and
            the time that the frame takes to turn.
        blocks: for the standard errors, 16 by default; longer than what the flow remembers, if these are to be right.
        method: the rule of one step, an explicit Diffrax solver. Default: ``Tsit5``.
        key: for the frame at the start.

    Returns:
        A `Lyapunov`.

    Raises:
        ValueError: counts out of range; the start is not of finite floats; the field's value is not shaped like ``y``;
            the trajectory did not stay finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import lyapunov
        >>> record = lyapunov(lambda t, y, args: jnp.array([1.0, -2.0]) * y, jnp.zeros(2), t1=9.0, steps=900,
        ...                   key=jax.random.key(0))
        >>> [round(float(value), 3) for value in record.exponents.value]
        [1.0, -2.0]

    Cost:
        ``steps`` solver steps (six stages with Tsit5), each stage a forward pass and ``count`` JVPs, and a QR
        factorisation a step, in one compiled loop.

    References:
        - Benettin, Galgani, Giorgilli and Strelcyn, "Lyapunov Characteristic Exponents for smooth dynamical systems",
          1980, https://doi.org/10.1007/BF02128236
        - Kaplan and Yorke, "Chaotic behavior of multidimensional difference equations", 1979,
          https://doi.org/10.1007/BFb0064319
    """
    field = checked_field(field)
    y0 = jax.tree.map(jnp.asarray, y0)
    check_floats(y0, what="a start", fix="Convert it to a float dtype.")
    y0 = jax.tree.map(lambda leaf: leaf.astype(wide_dtype(leaf)), y0)
    check_key(key)
    flat, _ = ravel_pytree(y0)
    check_finite(flat, what="start", fix="Start elsewhere.")
    steps, blocks = check_count(steps, what="steps"), check_count(blocks, what="blocks", least=2)
    count = flat.size if count is None else check_count(count, what="count")
    if count > flat.size:
        raise fault(expected=f"from 1 to {flat.size} exponents", got=str(count), fix="There is one per dimension.")
    if not t1 > t0 or not 0 <= discard < 1:
        raise fault(
            expected="t1 > t0 and 0 ≤ discard < 1", got=f"t0={t0}, t1={t1}, discard={discard}", fix="Mend them."
        )
    length = int(steps * (1 - discard)) // blocks
    if length < 1:
        raise fault(
            expected="blocks of at least one step each",
            got=f"{steps} steps, of which {discard:.0%} discarded, in {blocks} blocks",
            fix="Take more steps.",
        )
    dt = (t1 - t0) / steps
    first = steps - length * blocks
    growth, last = _grow(
        field,
        y0,
        args,
        jnp.asarray(t0, flat.dtype),
        jnp.asarray(dt, flat.dtype),
        count,
        (first, length, blocks),
        diffrax.Tsit5() if method is None else method,
        key,
    )
    if not (np.isfinite(growth).all() and np.isfinite(last).all()):
        raise fault(
            expected="a trajectory that stays finite",
            got="one that does not",
            fix="Take smaller steps, or another start.",
        )
    # Thousands of small numbers: single precision would lose their digits in the sum.
    rates = jnp.asarray(np.asarray(growth, np.float64).sum(axis=1) / (length * dt), flat.dtype)
    spectrum = Estimate.from_samples(rates)
    # The frame orders them only in the long run.
    order = jnp.argsort(-spectrum.value)
    spectrum = Estimate(spectrum.value[order], spectrum.standard_error[order])
    return Lyapunov(
        exponents=spectrum,
        sum=Estimate.from_samples(rates.sum(axis=1)),
        dimension=jnp.asarray(_kaplan_yorke(np.asarray(spectrum.value, np.float64)), flat.dtype),
        entropy=Estimate.from_samples(jnp.where(spectrum.value > 0, rates[:, order], 0).sum(axis=1)),
        duration=jnp.asarray(length * blocks * dt, flat.dtype),
        blocks=blocks,
    )


@eqx.filter_jit
@canonical_convolutions
def _grow(
    field: Field,
    y0: PyTree,
    args: PyTree,
    t0: Float[Array, ""],
    dt: Float[Array, ""],
    count: int,
    cut: tuple[int, int, int],
    method: diffrax.AbstractSolver,
    key: Key,
) -> tuple[Float[Array, "blocks steps exponents"], Float[Array, " dim"]]:
    first, length, blocks = cut
    flat, unravel = ravel_pytree(y0)
    frame, _ = jnp.linalg.qr(jax.random.normal(key, (flat.size, count), flat.dtype))

    def velocity(t: Array, z: Array) -> Array:
        return ravel_pytree(field(t, unravel(z), args))[0]

    def step(state: tuple, index: Array) -> tuple:
        start = t0 + index * dt

        # On a clock that begins with the step: the difference of two late times has lost its digits.
        def together(since: Any, state: tuple, _: None) -> tuple:
            y, frame = state
            dy, push = jax.linearize(lambda z: velocity(start + since, z), y)
            return dy, jax.vmap(push, 1, 1)(frame)

        term, begin = diffrax.ODETerm(together), jnp.zeros_like(dt)
        memory = method.init(term, begin, dt, state, None)
        (y, frame), *_ = method.step(term, begin, dt, state, None, memory, made_jump=False)
        frame, triangle = jnp.linalg.qr(frame)
        return (y, frame), jnp.log(jnp.abs(jnp.diagonal(triangle)))

    state, _ = jax.lax.scan(lambda s, i: (step(s, i)[0], None), (flat, frame), jnp.arange(first))

    growth: Array
    (last, _), growth = jax.lax.scan(step, state, first + jnp.arange(length * blocks))
    return growth.reshape(blocks, length, count), last


def _kaplan_yorke(exponents: np.ndarray) -> float:
    sums = np.cumsum(exponents)
    if sums[0] < 0:
        return 0.0
    if sums[-1] >= 0:
        return float("nan")
    whole = int(np.argmax(sums < 0))
    return whole + sums[whole - 1] / abs(exponents[whole])
