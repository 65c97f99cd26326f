"""Control of activity on several timescales: the larger the deviation, the faster the scale that answers it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..._core import check_floats, fault, wide_dtype


class ActivityControlState(NamedTuple):
    """What has been corrected, and what should be.

    Attributes:
        target: mean magnitude of the activity of each unit, structured like the activities without their first axis.
        levels: running mean of the unregulated magnitude as each scale sees it, ``[scales, units]`` for each leaf.
        corrections: what each scale has taken off the logarithm of the gain, ``[scales, units]`` for each leaf.
    """

    target: PyTree
    levels: PyTree
    corrections: PyTree


def activity_control(
    target: PyTree,
    *,
    time_constants: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0),
    tolerances: tuple[float, ...] = (2.0, 0.5, 0.2, 0.0),
) -> optax.GradientTransformationExtraArgs:
    r"""Scale activity so that each unit's mean magnitude returns to a target, by integral control on several scales.

    $$
    y = a\,e^{-\sum_j c_j}, \qquad
    \ell_k \leftarrow \ell_k + \rho_k\,(\overline{|a|} - \ell_k), \qquad
    e_k = \ln\frac{\ell_k}{\text{target}} - \sum_j c_j, \qquad
    c_k \leftarrow c_k + \rho_k\operatorname{sign}(e_k)\max(|e_k| - \epsilon_k, 0)
    $$

    with $\rho_k = 1 - e^{-1/\tau_k}$. The rule is ours, after the abstract of a paper on multi-scale homeostasis. Each
    scale sees the activity averaged over its own time. A fast scale acts only on what
    exceeds its tolerance $\epsilon_k$, so that ordinary fluctuations, which carry the signal, pass while a unit that
    explodes is caught within a few steps; the slowest scale, with tolerance 0, removes what is left and any drift. The
    fastest of several scales only damps. For a steady excess without tolerances the error shrinks by the factor
    $1 - \sum_k\rho_k$ each step.

    Args:
        target: mean magnitude of the activity of each unit, ``[units]`` for each leaf, in units of the activity.
            Recorded on healthy activity. A unit with target 0, silent then, is left alone.
        time_constants: $\tau_k$ in updates, fastest first; 1 to 1000 by default. The paper's scales are 5 ms, 2 s,
            5 min and 1 h, of which ours are no copy: an update has no length in seconds.
        tolerances: $\epsilon_k$, in nats of the activity's magnitude, one for each scale; ours, and those that the
            paper's check runs.

    Returns:
        A transformation of activities, each leaf ``[samples, units]``, in the form of Optax; its state is a
        `ActivityControlState`.

    Raises:
        ValueError: a target is negative, not finite or no array of floats; the lengths differ, a constant is not
            positive, a tolerance is negative, or the scales together are so fast that they would overshoot.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.activity_control(jnp.ones(1))
        >>> activity = jnp.full((1, 1), 1e4)
        >>> state = regulator.init(activity)
        >>> for _ in range(100):
        ...     regulated, state = regulator.update(activity, state)
        >>> bool(regulated[0, 0] < 10.0)
        True

    Cost: a few operations an activity; two numbers of memory for each unit and scale.

    References:
        - Hakim, "Multi-Scale Temporal Homeostasis Enables Efficient and Robust Neural Networks", 2026,
          https://arxiv.org/abs/2602.07009 (after the abstract: four scales from milliseconds to an hour, and that they
          are coordinated. Integral control, tolerances as what coordinates the scales, and all defaults are ours)
    """
    if len(time_constants) != len(tolerances) or not time_constants:
        raise fault(
            expected="one tolerance for each time constant",
            got=f"{len(tolerances)} for {len(time_constants)}",
            fix="Give both fastest first.",
        )
    if min(time_constants) <= 0 or min(tolerances) < 0:
        raise fault(
            expected="positive time constants and tolerances of 0 or more",
            got=f"{time_constants}, {tolerances}",
            fix="Time constants count updates.",
        )
    numbers = jax.tree.map(lambda goal: jnp.asarray(goal) if isinstance(goal, float) else goal, target)
    check_floats(numbers, what="targets", fix="Pass the mean magnitude of each unit's activity, as arrays.")
    for goal in jax.tree.leaves(target):
        known = None if isinstance(goal, jax.core.Tracer) else np.asarray(goal, np.float64)
        if known is not None and not np.all(np.isfinite(known) & (known >= 0)):
            raise fault(expected="targets of 0 or more, finite", got=str(known), fix="They are mean magnitudes.")
    rates = tuple(-math.expm1(-1 / constant) for constant in time_constants)
    if sum(rates) > 1:
        raise fault(
            expected="scales whose rates 1 - exp(-1/τ) sum to at most 1",
            got=f"{sum(rates):.3g}",
            fix="Slow some of them down; together they would overshoot.",
        )

    def init(params: PyTree) -> ActivityControlState:
        goal = jax.tree.map(lambda a, t: jnp.asarray(t, wide_dtype(a)), params, target)
        levels = jax.tree.map(lambda t: jnp.broadcast_to(t, (len(rates), *t.shape)), goal)
        return ActivityControlState(goal, levels, jax.tree.map(jnp.zeros_like, levels))

    def update(
        updates: PyTree, state: ActivityControlState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, ActivityControlState]:
        def sense(activity: Array, level: Array) -> Array:
            now = jnp.mean(jnp.abs(activity).astype(level.dtype), axis=0)
            return jnp.stack([old + rate * (now - old) for old, rate in zip(level, rates)]).astype(level.dtype)

        def correct(level: Array, goal: Array, correction: Array) -> Array:
            steps = []
            for place, (seen, rate, tolerance) in enumerate(zip(level, rates, tolerances)):
                # What is silent even in the mean has no logarithm; no gain would wake it either.
                alive = (seen > 0) & (goal > 0)
                error = jnp.log(jnp.where(alive, seen, 1)) - jnp.log(jnp.where(alive, goal, 1))
                error = error - jnp.sum(correction, axis=0)
                excess = jnp.sign(error) * jnp.maximum(jnp.abs(error) - tolerance, 0)
                # A moment's silence is signal; only a moment's excess does harm.
                acts = alive & ((error > 0) | (place > 0) | (len(rates) == 1))
                steps.append(jnp.where(acts, rate * excess, 0))
            return correction + jnp.stack(steps).astype(correction.dtype)

        def scale(activity: Array, correction: Array) -> Array:
            return (activity * jnp.exp(-jnp.sum(correction, axis=0, keepdims=True))).astype(activity.dtype)

        levels = jax.tree.map(sense, updates, state.levels)
        corrections = jax.tree.map(correct, levels, state.target, state.corrections)
        regulated = jax.tree.map(scale, updates, corrections)
        return regulated, ActivityControlState(state.target, levels, corrections)

    return optax.GradientTransformationExtraArgs(init, update)
