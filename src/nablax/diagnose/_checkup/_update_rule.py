"""What an Optax optimiser does to a gradient, read from its own response."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..._core import RULES, OptimizerProbe, UpdateRule, check_optimizer, unknown_rule, verified
from ._optimizer_state import (
    afresh,
    behind,
    emitted,
    has_moments,
    merged,
    moments_of,
    unreadable,
    with_moments,
)
from ._rule_readers import form, wide


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

    Recognised are chains with exactly one registered state and no other state of the parameters' size (of Optax's:
    Adam, AMSGrad, trace (momentum), RMSProp, centred RMSProp or Adagrad; others by :func:`register_rule`), and chains
    without such state whose update is linear in the gradient or parallel to it (a clipped gradient: the rate is then
    that of this step). Of Lion, Muon, Adafactor and their kin it is said why they have no such rates. Parts of the
    parameters may have such a state each (``optax.multi_transform``) or stand still, with rates of zero. Where
    gradients are accumulated (``optax.MultiSteps``) the step is that of gradients that are all alike. Of a chain that
    begins with an aggregator of several gradients the rule is that of what follows it.

    Args:
        optimizer: an Optax transformation whose update is added to the parameters.
        opt_state: its state before the step.
        params: parameters; inexact leaves are those that move.
        gradient: of the step, shaped like the inexact leaves of ``params``; behind an aggregator what it hands on.
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
    if why := unreadable(opt_state, moving):
        return unknown_rule(moving, why)
    held, transform, start = moments_of(opt_state), behind(check_optimizer(optimizer)), afresh(opt_state)

    def ask(gradient: PyTree, at: PyTree = moving, **moments: PyTree) -> tuple[PyTree, Any]:
        """The update, and the recognised state after it, with moments (and parameters) replaced."""
        update, after = emitted(transform, gradient, with_moments(start, **moments), at, **extra)
        # The arithmetic with half-precision answers need not add to their roundings.
        return wide(update), (wide(merged(moments_of(after), moving)) if held else None)

    leaves = [x for x in jax.tree.leaves((moving, gradient, opt_state)) if eqx.is_inexact_array(x)]
    rounding = 4 * max(float(jnp.finfo(x.dtype).eps) for x in leaves)
    state = merged(held, moving) if held else None
    probe = OptimizerProbe(ask, gradient, moving, state, has_moments(held, moving), rounding)
    moves = RULES[type(state)] if held else None
    rule = verified(moves.reader(probe) if moves and moves.reader else form(moves, probe))
    rates = jax.tree.map(lambda rate, leaf: rate.astype(leaf.dtype), rule.rates, moving)
    return eqx.tree_at(lambda r: r.rates, rule, rates)
