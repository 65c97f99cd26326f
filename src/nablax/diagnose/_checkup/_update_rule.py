"""What an Optax optimiser does to a gradient, read from its own response."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import check_optimizer
from ._optimizer_state import (
    ADAM,
    SQUARES,
    afresh,
    emitted,
    has_moments,
    merged,
    moments_of,
    others_of,
    unreadable,
    with_moments,
)
from ._recurrence import (
    TOLERANCE,
    UpdateRule,
    checked_rule,
    largest,
    unknown_rule,
)

# Second moment at which no ε matters, a power of two so that half precision has it exactly; and a count of steps at
# which no correction for the start is left.
LARGE = 2.0**40
LATE = 100_000_000


def update_rule(
    optimizer: optax.GradientTransformation, opt_state: PyTree, params: PyTree, gradient: PyTree, **extra: Any
) -> UpdateRule:
    r"""Read rates and momentum off an optimiser by asking it what it would do.

    Learning rate and betas are hidden in an Optax optimiser's closures, but its update is a function that can be
    called: with the moments in its state set to chosen values the answer gives, exactly and element by element,

    .. math::
        \beta = \frac{\partial m'}{\partial m}, \qquad
        R = -\frac{1-\beta_1^t}{\beta_1}\frac{\partial u}{\partial m} = \frac{\eta}{\sqrt{\hat\nu}+\epsilon}
        \;\;\text{(Adam)}, \qquad
        R = -\frac1\beta\frac{\partial u}{\partial m} = \eta \;\;\text{(heavy ball)}

    with schedules, injected hyperparameters and rates of their own for some parameters included. The rule so found
    has to predict the update for the actual gradient and state (without momentum, where that is how R is found: the
    update for the gradient turned round and halved, into the same second moment); one that does not is reported as
    not known. What has to agree does so to 0.1 %, the prediction to 1 %, and either to four roundings of the coarsest
    dtype involved where that is more.

    Adam's :math:`\eta` comes from second moments so large that no :math:`\epsilon` matters, late enough that no
    correction of the start is left. It is NaN if the update does not fall as one over their root (Adamax), or is not
    the same for all elements.

    Recognised are chains with exactly one of Optax's Adam, AMSGrad, trace (momentum), RMSProp, centred RMSProp or
    Adagrad states and no other state of the parameters' size, and chains without such state whose update is linear
    in the gradient or parallel to it (a clipped gradient: the rate is then that of this step). Parts of the parameters
    may have such a state each (``optax.multi_transform``) or stand still, with rates of zero. Where gradients are
    accumulated (``optax.MultiSteps``) the step is that of gradients that are all alike.

    Args:
        optimizer: an Optax transformation whose update is added to the parameters.
        opt_state: its state before the step.
        params: parameters; inexact leaves are those that move.
        gradient: of the step, shaped like the inexact leaves of ``params``.
        **extra: passed on to the optimiser's update (``value``, ``value_fn``, …).

    Returns:
        An `UpdateRule`.

    Raises:
        ValueError: ``optimizer`` is none.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax.diagnose import update_rule
        >>> optimizer, params = optax.sgd(0.1, momentum=0.9), jnp.ones(3)
        >>> rule = update_rule(optimizer, optimizer.init(params), params, jnp.ones(3))
        >>> rule.name(), round(float(rule.learning_rate), 6), round(float(rule.threshold), 4)
        ('heavy ball, momentum 0.9', 0.1, 3.8)

    Cost:
        Three to seven updates of the optimiser, times the calls between two steps where gradients are accumulated; no
        pass through the model.

    References:
        - Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021,
          https://arxiv.org/abs/2103.00065 (thresholds with momentum)
        - Cohen et al., "Adaptive Gradient Methods at the Edge of Stability", 2022,
          https://arxiv.org/abs/2207.14484 (the preconditioned Hessian and Adam's threshold; reading the rule off
          the optimiser's response is ours)
    """
    moving = eqx.filter(params, eqx.is_inexact_array)
    held = moments_of(opt_state)
    if any(eqx.is_inexact_array(x) and x.ndim > 0 for x in jax.tree.leaves(others_of(opt_state))):
        return unknown_rule(moving, "the optimiser keeps state that this check does not know")
    if why := unreadable(held, moving):
        return unknown_rule(moving, why)

    transform, start = check_optimizer(optimizer), afresh(opt_state)

    def ask(gradient: PyTree, at: PyTree = moving, **moments: PyTree) -> tuple[PyTree, Any]:
        """The update, and the recognised state after it, with moments (and parameters) replaced."""
        update, after = emitted(transform, gradient, with_moments(start, **moments), at, **extra)
        # The arithmetic with half-precision answers need not add to their roundings.
        return _wide(update), (_wide(merged(moments_of(after), moving)) if held else None)

    leaves = [x for x in jax.tree.leaves((moving, gradient, opt_state)) if eqx.is_inexact_array(x)]
    rounding = 4 * max(float(jnp.finfo(x.dtype).eps) for x in leaves)
    if not held:
        rule = _stateless(ask, gradient, rounding)
    elif isinstance(held[0], SQUARES):
        rule = _squares(ask, gradient, merged(held, moving), rounding)
    else:
        rule = _moments(ask, gradient, moving, merged(held, moving), has_moments(held, moving), rounding)
    rates = jax.tree.map(lambda rate, leaf: rate.astype(leaf.dtype), rule.rates, moving)
    return eqx.tree_at(lambda r: r.rates, rule, rates)


def _wide(tree: PyTree) -> PyTree:
    """In single precision at least."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if eqx.is_inexact_array(x) else x, tree
    )


def _common(values: Float[Array, " dim"], among: Bool[Array, " dim"], rounding: float) -> Float[Array, ""]:
    """The value that these elements share to a part in a thousand, or to rounding; NaN if they do not."""
    low, high = jnp.min(values, initial=jnp.inf, where=among), jnp.max(values, initial=-jnp.inf, where=among)
    return jnp.where(high - low <= max(1e-3, rounding) * jnp.abs(high), (low + high) / 2, jnp.nan)


def _quotient(numerator: PyTree, denominator: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b)), numerator, denominator)


def _scaled(scale: Any, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), tree)


def _filled(gradient: PyTree) -> PyTree:
    """The gradient with its zeros replaced by something small, so that every element can be asked."""
    size = largest(gradient)
    small = jnp.where(size > 0, 1e-3 * size, 1)
    return jax.tree.map(lambda g: jnp.where(g == 0, small.astype(g.dtype), g), gradient)


def _stateless(ask: Callable, gradient: PyTree, rounding: float) -> UpdateRule:
    probe, tolerance = _filled(gradient), max(TOLERANCE, rounding)
    offset, _ = ask(optax.tree.zeros_like(gradient))
    step = optax.tree.sub(ask(probe)[0], offset)
    half = optax.tree.sub(ask(_scaled(0.5, probe))[0], offset)
    probe = _wide(probe)
    size = largest(step)
    linear = largest(optax.tree.sub(half, _scaled(0.5, step))) / size
    # Clipped by its norm the update is not linear, but still parallel: the rate of this step.
    scale = largest(probe)
    unit = _scaled(1 / scale, probe)
    factor = optax.tree.vdot(unit, step) / optax.tree.vdot(unit, unit)
    parallel = largest(optax.tree.sub(step, _scaled(factor, unit))) / size
    own = _scaled(-1, _quotient(step, probe))
    rates = jax.tree.map(lambda r: jnp.where(linear <= tolerance, r, -factor / scale).astype(r.dtype), own)
    mismatch, flat = jnp.minimum(linear, parallel), ravel_pytree(rates)[0]
    return checked_rule(
        "gradient descent",
        rates,
        mismatch,
        jnp.asarray(2.0),
        tolerance,
        momentum=jnp.zeros(()),
        learning_rate=_common(flat, flat != 0, rounding),
    )


def _squares(ask: Callable, gradient: PyTree, state: Any, rounding: float) -> UpdateRule:
    probe, nothing = _filled(gradient), optax.tree.zeros_like(gradient)
    turned = _scaled(-0.5, probe)
    fields: tuple[str, ...] = state._fields
    none, ones = ({name: optax.tree.full_like(getattr(state, name), value) for name in fields} for value in (0, 1))
    offset, _ = ask(nothing)
    step = optax.tree.sub(ask(probe)[0], offset)
    # What the moments take from each gradient, and what they keep of themselves.
    whole, half, kept = ask(probe, **none)[1], ask(turned, **none)[1], ask(nothing, **ones)[1]

    def shifted(moment: Array, whole: Array, half: Array, kept: Array) -> Array:
        return (moment + (whole - half) / jnp.where(kept == 0, 1, kept)).astype(moment.dtype)

    same = {name: jax.tree.map(shifted, *(getattr(s, name) for s in (state, whole, half, kept))) for name in fields}
    other = optax.tree.sub(ask(turned, **same)[0], offset)
    # Clipped, the gradient was not halved: its square in the second moment says what arrived.
    share = jax.tree.map(
        lambda w, h: jnp.where(w > 0, jnp.sqrt(h / jnp.where(w > 0, w, 1)), 0.5),
        *(getattr(s, fields[-1]) for s in (whole, half)),
    )
    mismatch = largest(jax.tree.map(lambda o, p, s: o + p * s, other, step, share)) / largest(step)
    return checked_rule(
        "RMSProp",
        _scaled(-1, _quotient(step, _wide(probe))),
        mismatch,
        jnp.asarray(2.0),
        max(TOLERANCE, rounding),
        momentum=jnp.zeros(()),
        learning_rate=jnp.full((), jnp.nan),
    )


def _moments(
    ask: Callable, gradient: PyTree, params: PyTree, state: Any, has: Bool[Array, " dim"], rounding: float
) -> UpdateRule:
    adam, tolerance = isinstance(state, ADAM), max(TOLERANCE, rounding)
    name = "mu" if adam else "trace"
    moment = getattr(state, name)
    # Moments of the size of the true ones, nowhere zero.
    pushed = jax.tree.map(
        lambda m, g: jnp.where((m == 0) & (g == 0), 1, jnp.abs(m) + jnp.abs(g)).astype(m.dtype), moment, gradient
    )
    none, nothing = optax.tree.zeros_like(moment), optax.tree.zeros_like(gradient)
    # The optimiser is asked all questions at once: gradient, first moment and, of Adam, second moment and count.
    ones = optax.tree.ones_like(moment)
    questions: list[tuple[PyTree, PyTree, dict[str, PyTree]]] = [
        *((gradient, params, {name: m}) for m in (moment, pushed, none)),
        *((nothing, params, {name: m}) for m in (none, ones)),
    ]
    if adam:
        highest = {key: getattr(state, key) for key in state._fields if key == "nu_max"}
        for _, _, given in questions:
            given.update(nu=state.nu, count=state.count, **highest)
        # Away from the parameters, whose decay would be added. Gradient and moment are alike, for a β₁ of zero too.
        at_rest, late = optax.tree.zeros_like(params), jnp.full_like(state.count, LATE)
        limit = min(jnp.finfo(leaf.dtype).maxexp for leaf in jax.tree.leaves(state.nu))
        for large in (min(LARGE, 2.0 ** (limit - 8)) * factor for factor in (1, 64)):
            given = {key: optax.tree.zeros_like(tree) for key, tree in highest.items()}
            given.update(nu=optax.tree.full_like(state.nu, large), count=late)
            given[name], same = (optax.tree.full_like(tree, large**0.5) for tree in (moment, gradient))
            questions.append((same, at_rest, given))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *questions)
    updates, after = jax.vmap(lambda question: ask(question[0], question[1], **question[2]))(stacked)
    flat, back = _flatten(updates)
    moments, _ = _flatten(getattr(after, name))
    push, before = (ravel_pytree(_wide(tree))[0] for tree in (pushed, moment))
    actual, with_push, without, offset = flat[0], flat[1], flat[2], flat[3]

    # Asked without a gradient, whose roundings a small 1 - β would feel.
    beta = _common(moments[4] - moments[3], has, rounding)
    correction = 1 - beta ** after.count[0].astype(beta.dtype) if adam else jnp.ones_like(beta)
    # Without momentum the moment is the gradient itself, and the response is taken there.
    moved = moments[2] - moments[3]
    bare = jnp.where(moved == 0, 0, (without - offset) / jnp.where(moved == 0, 1, moved))
    safe = jnp.where(beta > 0, beta, 1)
    rates = -correction * jnp.where(beta > 0, (with_push - without) / (push * safe), bare)
    new, step = moments[0] - moments[3], actual - offset
    # At a gradient and moments of zero there is no step to predict, and the response to the push sets the scale.
    size = jnp.max(jnp.abs(step))
    size = jnp.where(size > 0, size, jnp.max(jnp.abs(with_push - without)))
    mismatch = jnp.max(jnp.abs(step + rates * new / correction)) / size
    if adam:
        # Beside second moments so large ε is nothing: what is left is their root and the learning rate.
        each = -flat[5:] * jnp.sqrt(_flatten(after.nu)[0][5:]) / moments[5:]
        rate = _common(each.ravel(), jnp.tile(has & (rates != 0), 2), rounding)
        threshold = (2 + 2 * beta) / (1 - beta)
        return checked_rule("Adam", back(rates), mismatch, threshold, tolerance, momentum=beta, learning_rate=rate)
    # Nesterov: u = -η(g + β m'), with g = m' - β m.
    other_rates = rates / safe
    other = jnp.max(jnp.abs(step + other_rates * ((1 + beta) * new - beta * before))) / size
    nesterov = (other < mismatch) & (beta > 0)
    rates = jnp.where(nesterov, other_rates, rates)
    threshold = jnp.where(nesterov, (2 + 2 * beta) / (1 + 2 * beta), 2 + 2 * beta)
    mismatch = jnp.where(nesterov, other, mismatch)
    numbers = {"momentum": beta, "learning_rate": _common(rates, rates != 0, rounding), "nesterov": nesterov}
    return checked_rule("momentum", back(rates), mismatch, threshold, tolerance, **numbers)


def _flatten(stacked: PyTree) -> tuple[Float[Array, "questions dim"], Callable[[Array], PyTree]]:
    """Trees stacked along the leading axis as rows; and the way back of one row."""
    _, back = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], stacked))
    return jax.vmap(lambda tree: ravel_pytree(tree)[0])(stacked), back
