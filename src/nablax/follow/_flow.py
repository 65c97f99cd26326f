"""Follow a field: ordinary and stochastic differential equations, by Diffrax."""

from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_callable,
    check_floats,
    check_instance,
    check_key,
    check_shape,
    checked_field,
    fault,
    known_finite,
)
from ._solver import Solver

_ADAPTIVE = Solver()


class Solution(AbstractRecord):
    """Where a field led.

    Attributes:
        ts: the times of ``ys``: those asked for, or the time alone (a scalar) at which it ended.
        ys: the states at ``ts``; no leading time axis when no times were asked for.
        stats: ``num_steps``, ``num_accepted_steps``, ``num_rejected_steps``, and ``num_evaluations`` of the field.
        result: a ``diffrax.RESULTS`` member; ``diffrax.RESULTS.successful`` when the end was reached,
            ``diffrax.RESULTS.event_occurred`` when an event came first.
        event_mask: shaped like the event's conditions, True for the one that ended it; None without an event.
        interpolation: Diffrax's dense output, None unless it was asked for; see `evaluate`.
    """

    ts: Float[Array, "..."]
    ys: PyTree
    stats: dict[str, Any]
    result: diffrax.RESULTS
    event_mask: PyTree = None
    interpolation: diffrax.AbstractPath | None = None

    def evaluate(self, t: float | Array) -> PyTree:
        """State at any time between the ends, interpolated between steps at the solver's order or one less.

        Args:
            t: time, scalar; ``jax.vmap`` it for several.

        Returns:
            The state, shaped like ``y0``.

        Raises:
            ValueError: the flow was not followed with ``dense=True``.
        """
        if self.interpolation is None:
            raise fault(expected="a dense solution", got="one without", fix="Pass dense=True to follow.flow.")
        return self.interpolation.evaluate(t)


def flow(
    field: Field,
    y0: PyTree,
    t0: float | Array,
    t1: float | Array,
    *,
    args: PyTree = None,
    solver: Solver = _ADAPTIVE,
    ts: Float[Array, " times"] | None = None,
    noise: Callable[[Array, PyTree, PyTree], Array] | None = None,
    key: Key | None = None,
    event: diffrax.Event | None = None,
    dense: bool = False,
    throw: bool = True,
) -> Solution:
    r"""Follow ``dy = field(t, y, args) dt + noise(t, y, args) dW`` from ``t0`` to ``t1``.

    One trajectory a call, whose state is any pytree; ``jax.vmap`` it for trajectories that each control their own
    step, or give it a batch as one state (and a batched field) for one step size with the root-mean-square error norm
    taken over the batch, which is faster. On CPUs the convolutions of ``field`` and ``noise`` are as fast as outside of
    the solver's loop.

    Args:
        field: the drift, ``field(t, y, args) -> dy``, ``dy`` shaped like ``y``.
        y0: the state at ``t0``, a pytree of floating-point arrays; its dtype is kept. Halves are computed with in
            single precision.
        t0: start time.
        t1: end time; smaller than ``t0`` to go backwards (without noise).
        args: handed to ``field`` and ``noise`` as they are.
        solver: steps, tolerances and method. Default: adaptive, both tolerances 1e-5.
        ts: times at which to return the state, between ``t0`` and ``t1`` in the direction of travel. Default: the end.
        noise: the diffusion coefficient, a scalar; Brownian motion is independent in every component, and the
            equation is read in Itô's sense with the default solver (with a coefficient that depends on ``y``, Heun and
            midpoint read it in Stratonovich's). Needs fixed steps and ``key``.
        key: for the Brownian motion.
        event: a ``diffrax.Event``: where its condition becomes true, or crosses zero, the flow ends early. Times asked
            for that were not reached hold infinity.
        dense: keep every step, so that ``Solution.evaluate`` gives the state at any time. Memory of ``max_steps``
            states and their stages.
        throw: raise when the solver fails. Otherwise look at ``result``.

    Returns:
        A `Solution`.

    Raises:
        ValueError: ``noise`` without fixed steps or ``key``, or that returns no single number; ``key`` without
            ``noise``; ``y0`` is not floating-point; the field's value is not shaped like ``y0``; ``ts`` are outside of
            ``t0`` and ``t1`` or in another order; ``t0`` or ``t1`` is not one number; ``solver`` or ``event`` is of
            another kind.
        EquinoxRuntimeError: the solver failed and ``throw`` is true; a traced number of steps is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.follow import flow
        >>> solution = flow(lambda t, y, args: -y, jnp.ones(2), 0.0, 1.0)
        >>> bool(jnp.allclose(solution.ys, jnp.exp(-1.0), atol=1e-4))
        True

    Cost:
        ``num_evaluations`` forward passes: six a step with ``Tsit5``, two with ``Heun``, one with ``Euler``.
        Memory: the stages of one step; under ``jax.grad``, Diffrax's online checkpointing.

    References:
        Kidger (2021), On Neural Differential Equations, https://arxiv.org/abs/2202.02435.
    """
    check_instance(solver, Solver, what="a solver", fix="Pass follow.Solver(steps=100), for one; method= is Diffrax's.")
    if event is not None:
        check_instance(event, diffrax.Event, what="an event", fix="Wrap the condition: diffrax.Event(condition).")
    steps, max_steps = solver.steps, solver.max_steps
    if isinstance(steps, jax.core.Tracer):
        steps = eqx.error_if(
            steps, steps < 1, "expected steps as a whole number, at least 1. Look where it comes from."
        )
    if noise is not None and (steps is None or key is None):
        raise fault(
            expected="`Solver(steps=...)` and `key` with `noise`",
            got=f"steps={steps}, key={'given' if key is not None else None}",
            fix="A stochastic equation is solved with fixed steps and an explicit key.",
        )
    if noise is None and key is not None:
        raise fault(expected="no `key` without `noise`", got="a key", fix="Leave it out: an ODE draws nothing.")

    given = jax.tree.map(jnp.asarray, y0)
    check_floats(given, what="a state", fix="Convert y0 to a float dtype.")
    # Halves have too few digits to add a step to a state, and Diffrax refuses them.
    y0 = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), given)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    start, end = (
        check_shape(t, (), what=what, fix="Pass one time; jax.vmap the flow for several.").astype(dtype)
        for t, what in ((t0, "t0"), (t1, "t1"))
    )
    if throw and (broken := [x for x in (start, end, *jax.tree.leaves(given)) if known_finite(x) is False]):
        raise fault(expected="finite times and a finite state", got=f"{broken[0]}", fix="Look where it comes from.")
    if ts is not None:
        ts = _checked_times(ts, start, end)
    terms: diffrax.AbstractTerm = diffrax.ODETerm(_InLoop(checked_field(field)))
    if noise is not None:
        assert steps is not None and key is not None
        check_key(key)
        check_callable(noise, what="noise", fix="Write it as noise(t, y, args) -> one number.", takes=3)
        brownian = _GridBrownianPath(
            t0=start,
            t1=end,
            steps=steps,
            shape=jax.eval_shape(lambda: y0),
            key=key,
            levy_area=diffrax.BrownianIncrement,
        )

        def diffusion(t: Any, y: PyTree, args: PyTree) -> lx.AbstractLinearOperator:
            coefficient = check_shape(
                canonical_convolutions(noise)(t, y, args),
                (),
                what="noise as one number",
                fix="It is the same in every component; rescale those of the state that need more or less.",
            )
            return lx.DiagonalLinearOperator(jax.tree.map(lambda x: jnp.full_like(x, coefficient), y))

        terms = diffrax.MultiTerm(terms, diffrax.ControlTerm(diffusion, brownian))
    method = solver.method
    if method is None:
        method = diffrax.Euler() if noise is not None else diffrax.Tsit5() if steps is None else diffrax.Heun()

    controller: diffrax.AbstractStepSizeController
    if steps is None:
        # Diffrax picks the first step; the default norm is the root mean square over the whole state.
        controller, dt0 = diffrax.PIDController(rtol=solver.rtol, atol=solver.atol), cast(Any, None)
    elif not isinstance(steps, int):
        controller, dt0 = diffrax.ConstantStepSize(), (end - start) / steps
    else:
        # Explicit times, because repeated addition of dt in float32 ends with one sliver of a step too many.
        grid = jnp.linspace(start, end, steps + 1, dtype=dtype)
        controller, dt0, max_steps = diffrax.StepTo(grid), None, steps
    solution = diffrax.diffeqsolve(
        terms,
        method,
        start,
        end,
        dt0,
        y0,
        args,
        saveat=diffrax.SaveAt(t1=ts is None, ts=ts, dense=dense),
        stepsize_controller=controller,
        max_steps=max_steps,
        event=event,
        throw=throw,
    )
    times, ys = solution.ts, jax.tree.map(lambda y, leaf: y.astype(leaf.dtype), solution.ys, given)
    assert times is not None
    if ts is None:
        times, ys = times[0], jax.tree.map(lambda y: y[0], ys)
    stats = dict(solution.stats)
    stats["num_evaluations"] = stats["num_steps"] * _evaluations_per_step(method)
    return Solution(times, ys, stats, solution.result, solution.event_mask, solution.interpolation)


def _checked_times(ts: Any, start: Array, end: Array) -> Float[Array, " times"]:
    """Times in the direction of travel. Where they are traced, Diffrax raises at run time."""
    times = jnp.asarray(ts, start.dtype)
    if times.ndim != 1:
        raise fault(expected="times of shape [times]", got=f"shape {times.shape}", fix="Pass ts=jnp.array([...]).")
    if not any(isinstance(part, jax.core.Tracer) for part in (times, start, end)):
        moments, first, last = (np.asarray(part) for part in (times, start, end))
        forward = np.sign(last - first)
        if np.any(forward * (moments - first) < 0) or np.any(forward * (last - moments) < 0):
            raise fault(
                expected=f"times between t0={first:g} and t1={last:g}",
                got=f"ts from {moments.min():g} to {moments.max():g}",
                fix="Follow the flow as far as you want to see it.",
            )
        if np.any(forward * np.diff(moments) < 0):
            raise fault(expected="ts in the direction of travel", got="another order", fix="Sort them.")
    return times


class _InLoop(eqx.Module):
    """A field for a solver's loop; not a closure, so that two of one field are equal and share a compiled program."""

    field: Field

    @canonical_convolutions
    def __call__(self, t: Any, y: PyTree, args: PyTree) -> PyTree:
        return self.field(t, y, args)


class _GridBrownianPath(diffrax.AbstractBrownianPath):
    """Brownian increments over the steps of a fixed grid, each from its own key.

    Diffrax's unsafe path cannot be replayed backwards and its virtual tree draws a whole branch for each increment; on
    a known grid an increment is one draw, and reverse mode replays it.
    """

    t0: Any  # type: ignore[misc]  # Diffrax declares them abstract
    t1: Any  # type: ignore[misc]
    steps: Any
    shape: PyTree = eqx.field(static=True)
    key: Key
    levy_area: Any = eqx.field(static=True)

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        del left
        index = jnp.round((t0 - self.t0) / (self.t1 - self.t0) * self.steps).astype(jnp.int32)
        leaves, structure = jax.tree.flatten(self.shape)
        keys = jax.random.split(jax.random.fold_in(self.key, index), len(leaves))
        width = jnp.sqrt(t1 - t0)
        draws = [
            width.astype(leaf.dtype) * jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves)
        ]
        increment = jax.tree.unflatten(structure, draws)
        return diffrax.BrownianIncrement(dt=t1 - t0, W=increment) if use_levy else increment


def _evaluations_per_step(method: diffrax.AbstractSolver) -> int:
    tableau = getattr(method, "tableau", None)
    if tableau is None:
        return 1
    stages = tableau.num_stages
    # First same as last: the last stage of a step is the first of the next.
    return stages - 1 if tableau.fsal else stages


__all__ = ["Solution", "flow"]
