"""The forms that a registered rule can have, their numbers read from an optimiser's answers.

Each asks the optimiser about gradients and moments chosen for it, and measures by how much the form misses an answer.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import TOLERANCE, Moves, OptimizerProbe, UpdateRule, divide, largest, nonzero

# Second moment at which no ε matters, a power of two so that half precision has it exactly; and a count of steps at
# which no correction for the start is left.
LARGE = 2.0**40
LATE = 100_000_000
# By so much may what a moment gains from a gradient be off in half precision.
GAIN = 0.05


def form(moves: Moves | None, probe: OptimizerProbe) -> UpdateRule:
    """The rule of an optimiser that moves so; None of one that keeps nothing of the parameters' size."""
    if moves is None:
        return _stateless(probe)
    if moves.moment and moves.steps and not moves.squares:
        # A mean whose start is corrected, or is not, which its state does not say: late it is the same.
        return _moments(moves._replace(steps=""), _late(probe, moves.steps))
    return _moments(moves, probe) if moves.moment else _squares(moves, probe)


def _late(p: OptimizerProbe, count: str) -> OptimizerProbe:
    """The same optimiser at a step at which no correction for the start is left."""
    late = jnp.full_like(getattr(p.state, count), LATE)

    def ask(gradient: PyTree, at: PyTree = p.params, **moments: PyTree) -> tuple[PyTree, Any]:
        return p.ask(gradient, at, **moments | {count: late})

    return p._replace(ask=ask)


def wide(tree: PyTree) -> PyTree:
    """In single precision at least."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if eqx.is_inexact_array(x) else x, tree
    )


def _common(values: Float[Array, " dim"], among: Bool[Array, " dim"], rounding: float) -> Float[Array, ""]:
    """The value that these elements share to a part in a thousand, or to rounding; NaN if they do not."""
    low, high = jnp.min(values, initial=jnp.inf, where=among), jnp.max(values, initial=-jnp.inf, where=among)
    return jnp.where(high - low <= max(1e-3, rounding) * jnp.abs(high), (low + high) / 2, jnp.nan)


def _scaled(scale: Any, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), tree)


def _filled(gradient: PyTree) -> PyTree:
    """The gradient with its zeros replaced by something small, so that every element can be asked."""
    size = largest(gradient)
    small = jnp.where(size > 0, 1e-3 * size, 1)
    return jax.tree.map(lambda g: jnp.where(g == 0, small.astype(g.dtype), g), gradient)


def _stateless(p: OptimizerProbe) -> UpdateRule:
    ask, gradient, rounding = p.ask, p.gradient, p.rounding
    probe, tolerance = _filled(gradient), max(TOLERANCE, rounding)
    offset, _ = ask(optax.tree.zeros_like(gradient))
    step = optax.tree.sub(ask(probe)[0], offset)
    half = optax.tree.sub(ask(_scaled(0.5, probe))[0], offset)
    probe = wide(probe)
    size = largest(step)
    linear = largest(optax.tree.sub(half, _scaled(0.5, step))) / size
    # Clipped by its norm the update is not linear, but still parallel: the rate of this step.
    scale = largest(probe)
    unit = _scaled(1 / scale, probe)
    factor = optax.tree.vdot(unit, step) / optax.tree.vdot(unit, unit)
    parallel = largest(optax.tree.sub(step, _scaled(factor, unit))) / size
    own = _scaled(-1, jax.tree.map(divide, step, probe))
    rates = jax.tree.map(lambda r: jnp.where(linear <= tolerance, r, -factor / scale).astype(r.dtype), own)
    mismatch, flat = jnp.minimum(linear, parallel), ravel_pytree(rates)[0]
    return UpdateRule(
        rates=rates,
        momentum=jnp.zeros(()),
        threshold=jnp.asarray(2.0),
        learning_rate=_common(flat, flat != 0, rounding),
        mismatch=mismatch,
        nesterov=jnp.zeros((), bool),
        kind="gradient descent",
        tolerance=tolerance,
    )


def _squares(moves: Moves, p: OptimizerProbe) -> UpdateRule:
    ask, gradient, state, fields = p.ask, p.gradient, p.state, moves.squares
    probe, nothing = _filled(gradient), optax.tree.zeros_like(gradient)
    turned = _scaled(-0.5, probe)
    none, ones = ({name: optax.tree.full_like(getattr(state, name), value) for name in fields} for value in (0, 1))
    offset, _ = ask(nothing)
    step = optax.tree.sub(ask(probe)[0], offset)
    # What the moments take from each gradient, and what they keep of themselves.
    whole, half, kept = ask(probe, **none)[1], ask(turned, **none)[1], ask(nothing, **ones)[1]

    def shifted(moment: Array, whole: Array, half: Array, kept: Array) -> Array:
        return (moment + (whole - half) / nonzero(kept)).astype(moment.dtype)

    same = {name: jax.tree.map(shifted, *(getattr(s, name) for s in (state, whole, half, kept))) for name in fields}
    other = optax.tree.sub(ask(turned, **same)[0], offset)
    # Clipped, the gradient was not halved: its square in the second moment says what arrived.
    share = jax.tree.map(
        lambda w, h: jnp.where(w > 0, jnp.sqrt(h / nonzero(w)), 0.5),
        *(getattr(s, fields[-1]) for s in (whole, half)),
    )
    mismatch = largest(jax.tree.map(lambda o, p, s: o + p * s, other, step, share)) / largest(step)
    return UpdateRule(
        rates=_scaled(-1, jax.tree.map(divide, step, wide(probe))),
        momentum=jnp.zeros(()),
        threshold=jnp.asarray(2.0),
        learning_rate=jnp.full((), jnp.nan),
        mismatch=mismatch,
        nesterov=jnp.zeros((), bool),
        kind="RMSProp",
        tolerance=max(TOLERANCE, p.rounding),
    )


def _moments(moves: Moves, p: OptimizerProbe) -> UpdateRule:
    ask, gradient, params, state, rounding = p.ask, p.gradient, p.params, p.state, p.rounding
    name, count, tolerance = moves.moment, moves.steps, max(TOLERANCE, rounding)
    moment = getattr(state, name)
    # Moments of the size of the true ones, nowhere zero.
    pushed = jax.tree.map(
        lambda m, g: jnp.where((m == 0) & (g == 0), 1, jnp.abs(m) + jnp.abs(g)).astype(m.dtype), moment, gradient
    )
    none, nothing = optax.tree.zeros_like(moment), optax.tree.zeros_like(gradient)
    # The optimiser is asked these questions: gradient, first moment and, of Adam, second moment and count.
    ones = optax.tree.ones_like(moment)
    # What the moment takes of a gradient, of one so short that nothing clips it, where no decay is.
    at_rest, small = optax.tree.zeros_like(params), _small(gradient)
    questions: list[tuple[PyTree, PyTree, dict[str, PyTree]]] = [
        *((gradient, params, {name: m}) for m in (moment, pushed, none)),
        *((nothing, params, {name: m}) for m in (none, ones)),
        *((optax.tree.full_like(gradient, size), at_rest, {name: none}) for size in (small, 0)),
    ]
    kept = {key: getattr(state, key) for key in (*moves.squares, *([count] if count else []))}
    for _, _, given in questions:
        given.update(kept)
    if moves.squares:
        # Away from the parameters, whose decay would be added. Gradient and moment are alike, for a β₁ of zero too.
        late = {count: jnp.full_like(kept[count], LATE)} if count else {}
        limit = min(jnp.finfo(leaf.dtype).maxexp for leaf in jax.tree.leaves([kept[key] for key in moves.squares]))
        for large in (min(LARGE, 2.0 ** (limit - 8)) * factor for factor in (1, 64)):
            given = {key: optax.tree.full_like(kept[key], large) for key in moves.squares} | late
            given[name], same = (optax.tree.full_like(tree, large**0.5) for tree in (moment, gradient))
            questions.append((same, at_rest, given))
    # One after the other: side by side they would all be held at once, each as large as optimiser and parameters.
    answers = [ask(given, at, **kept) for given, at, kept in questions]
    back, after = ravel_pytree(answers[0][0])[1], answers[0][1]
    flat = [ravel_pytree(update)[0] for update, _ in answers]
    moments = [ravel_pytree(getattr(left, name))[0] for _, left in answers]
    push, before = (ravel_pytree(wide(tree))[0] for tree in (pushed, moment))
    actual, with_push, without, offset = flat[0], flat[1], flat[2], flat[3]

    # Asked without a gradient, whose roundings a small 1 - β would feel.
    beta = _common(moments[4] - moments[3], p.has, rounding)
    correction = 1 - beta ** getattr(after, count).astype(beta.dtype) if count else jnp.ones_like(beta)
    gain = (moments[5] - moments[6]) / small
    # Without momentum the moment is the gradient itself, and the response is taken there.
    bare = divide(without - offset, moments[2] - moments[3])
    safe = jnp.where(beta > 0, beta, 1)
    rates = -correction * jnp.where(beta > 0, (with_push - without) / (push * safe), bare)
    new, step = moments[0] - moments[3], actual - offset
    # At a gradient and moments of zero there is no step to predict, and the response to the push sets the scale.
    size = jnp.max(jnp.abs(step))
    size = jnp.where(size > 0, size, jnp.max(jnp.abs(with_push - without)))
    mismatch = jnp.max(jnp.abs(step + rates * new / correction)) / size
    if moves.squares:
        # Beside second moments so large ε is nothing: what is left is their root and the learning rate.
        squares = [ravel_pytree(getattr(left, moves.squares[-1]))[0] for _, left in answers[7:]]
        each = jnp.concatenate([-u * jnp.sqrt(s) / m for u, s, m in zip(flat[7:], squares, moments[7:])])
        # NAdam: u = -R(β m'/(1 - β^(t+1)) + (1-β) g/(1 - β^t)), with (1-β) g = m' - β m.
        ahead = 1 - beta * (1 - correction) if count else correction
        other_rates = rates / safe * ahead / correction
        looking = beta * new / ahead + (new - beta * before) / correction
        other = jnp.max(jnp.abs(step + other_rates * looking)) / size
        nesterov = (other < mismatch) & (beta > 0)
        rates = jnp.where(nesterov, other_rates, rates)
        return UpdateRule(
            rates=back(rates * _share(gain, 1 - beta)),
            momentum=beta,
            threshold=(2 + 2 * beta) / (1 - beta) / jnp.where(nesterov, 1 + 2 * beta, 1),
            learning_rate=_common(each, jnp.tile(p.has & (rates != 0), 2), rounding),
            mismatch=jnp.where(nesterov, other, mismatch),
            nesterov=nesterov,
            kind="Adam",
            tolerance=tolerance,
        )
    # Nesterov: u = -η(g + β m'), with g = m' - β m.
    other_rates = rates / safe
    other = jnp.max(jnp.abs(step + other_rates * ((1 + beta) * new - beta * before))) / size
    nesterov = (other < mismatch) & (beta > 0)
    rates = jnp.where(nesterov, other_rates, rates)
    threshold = jnp.where(nesterov, (2 + 2 * beta) / (1 + 2 * beta), 2 + 2 * beta)
    mismatch = jnp.where(nesterov, other, mismatch)
    rates = rates * _share(gain, 1)
    return UpdateRule(
        rates=back(rates),
        momentum=beta,
        threshold=threshold,
        learning_rate=_common(rates, rates != 0, rounding),
        mismatch=mismatch,
        nesterov=nesterov,
        kind="momentum",
        tolerance=tolerance,
    )


def _small(gradient: PyTree) -> float:
    """An element so small that a vector of them has length 2⁻¹², a power of two that every dtype has."""
    leaves = jax.tree.leaves(gradient)
    least = max(jnp.finfo(leaf.dtype).minexp for leaf in leaves)
    return 2.0 ** max(least + 4, -12 - math.ceil(math.log2(sum(leaf.size for leaf in leaves)) / 2))


def _share(gain: Float[Array, " dim"], usual: Array | float) -> Float[Array, " dim"]:
    """What a moment takes of a gradient over what the form has it take; one up to half precision's rounding."""
    share = gain / usual
    return jnp.where(jnp.abs(share - 1) < GAIN, 1, share)
