"""Decay of weights, read from an optimiser's response: it is part of the field that is followed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import UpdateRule, largest
from ._optimizer_state import emitted

# Share by which a pull on the parameters may miss being proportional to them.
LINEAR = 0.01


def decay_curvature(
    transform: optax.GradientTransformationExtraArgs,
    state: PyTree,
    params: PyTree,
    gradient: PyTree,
    rule: UpdateRule,
    **extra: Any,
) -> Float[Array, " dim"]:
    r"""What decay adds to the diagonal of :math:`R^{1/2}HR^{1/2}`, so that the rule's threshold stays what it is.

    With :math:`u(\theta)` the update for this gradient and :math:`D=u(0)-u(1)`: where the pull goes through the
    momentum with the gradient it adds :math:`D` (Nesterov's :math:`D/(1+\beta)`), where it is added to the step behind
    the momentum :math:`DT/2`, T the threshold: the polynomial of the recurrence at :math:`z=-1` (derived here).

    Args:
        transform: the optimiser.
        state: before the step.
        params: those that move.
        gradient: of the step.
        rule: that was read.
        **extra: passed on to the update.

    Returns:
        One number an element; zeros where the rule is not known, or where the update does not pull in proportion to
        the parameters.
    """
    at = [params, optax.tree.zeros_like(params), optax.tree.ones_like(params)]
    asked = [emitted(transform, gradient, state, tree, **extra) for tree in at]
    updates = [
        ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), update))[0]
        for update, _ in asked
    ]
    here, rest, unit = updates
    share, vector = (
        rest - unit,
        ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), params))[0],
    )
    missed = jnp.max(jnp.abs(here - rest + share * vector))
    linear = missed <= LINEAR * jnp.max(jnp.abs(share * vector)) + 8 * jnp.finfo(here.dtype).eps * jnp.max(
        jnp.abs(rest)
    )
    # The pull goes through the momentum where the state after the step depends on the parameters.
    kept = [[leaf for leaf in jax.tree.leaves(after) if eqx.is_inexact_array(leaf)] for _, after in asked[1:]]
    coupled = largest(jax.tree.map(lambda a, b: a - b, *kept)) > 0 if kept[0] else jnp.asarray(False)
    through = share / jnp.where(rule.nesterov, 1 + rule.momentum, 1)
    behind = share * rule.threshold / 2
    added = jnp.where(coupled, jnp.zeros_like(share) if rule.kind == "Adam" else through, behind)
    usable = linear & rule.known & jnp.isfinite(rule.threshold) & jnp.all(jnp.isfinite(added)) & (jnp.min(share) >= 0)
    return jnp.where(usable, added, 0)
