"""A step as a linear recurrence: its rates, its momentum, and the curvature at which it turns unstable."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ._errors import fault
from ._record import AbstractRecord

# The rule is believed where it predicts the optimiser's own update to within this share.
TOLERANCE = 0.01


class UpdateRule(AbstractRecord):
    r"""A step as the linear recurrence it is while its preconditioner stands still.

    Attributes:
        rates: step per unit of gradient for each element, :math:`R=\eta P^{-1}`: a tree like the parameters. Ones
            where the rule is not known.
        momentum: :math:`\beta`, no unit; 0 without.
        threshold: the largest eigenvalue of :math:`R^{1/2}HR^{1/2}` at which the recurrence is stable, no unit:
            2 for gradient descent, 2 + 2β for heavy ball, (2 + 2β)/(1 + 2β) for Nesterov's momentum,
            (2 + 2β₁)/(1 − β₁) for the Adam family. NaN where the rule is not known.
        learning_rate: the common factor :math:`\eta` of all that moves, NaN where there is none or it is not known.
        mismatch: how far the rule's prediction is from the optimiser's actual update, as a share; infinite where
            there is no prediction, NaN where there is no update.
        nesterov: whether the momentum is Nesterov's.
        kind: "gradient descent", "momentum", "Adam", "RMSProp" or "unknown".
        reason: why the rule is not known; empty otherwise. A rule that was recognised by its state and yet fails
            to predict the update keeps its kind and has ``known`` False.
        tolerance: the mismatch up to which it is, wider in half precision.
    """

    rates: PyTree
    momentum: Float[Array, ""]
    threshold: Float[Array, ""]
    learning_rate: Float[Array, ""]
    mismatch: Float[Array, ""]
    nesterov: Bool[Array, ""]
    kind: str = eqx.field(static=True)
    reason: str = eqx.field(static=True, default="")
    tolerance: float = eqx.field(static=True, default=TOLERANCE)

    @property
    def known(self) -> Bool[Array, ""]:
        """Whether the rule predicts the optimiser's update."""
        return self.mismatch <= self.tolerance

    def name(self) -> str:
        """The rule in words."""
        if self.reason:
            return f"unknown: {self.reason}"
        if bool(jnp.isnan(self.mismatch)):
            return "unknown: the optimiser makes no step here (rate zero?)"
        if not bool(self.known):
            return f"unknown: looked like {self.kind}, but does not predict the update ({float(self.mismatch):.2g} off)"
        if self.kind == "momentum":
            return f"{'Nesterov' if bool(self.nesterov) else 'heavy ball'}, momentum {float(self.momentum):.3g}"
        if self.kind == "Adam":
            return f"Adam family, {'Nesterov, ' if bool(self.nesterov) else ''}β₁ {float(self.momentum):.3g}"
        return self.kind


def given_rule(params: PyTree, learning_rate: Any, momentum: Any = None) -> UpdateRule:
    """Gradient descent or heavy ball by its numbers.

    Args:
        params: parameters; inexact leaves are those that move.
        learning_rate: scalar.
        momentum: of heavy ball; None for plain gradient descent.

    Returns:
        An `UpdateRule`.
    """
    moving = eqx.filter(params, eqx.is_inexact_array)
    dtype = jnp.result_type(*jax.tree.leaves(moving))
    rate, beta = jnp.asarray(learning_rate, dtype), jnp.asarray(0 if momentum is None else momentum, dtype)
    return UpdateRule(
        rates=jax.tree.map(lambda leaf: jnp.broadcast_to(rate, leaf.shape).astype(leaf.dtype), moving),
        momentum=beta,
        threshold=2 + 2 * beta,
        learning_rate=rate,
        mismatch=jnp.zeros((), dtype),
        nesterov=jnp.zeros((), bool),
        kind="gradient descent" if momentum is None else "momentum",
    )


def unknown_rule(moving: PyTree, reason: str) -> UpdateRule:
    """A rule about which nothing is claimed; its rates are ones, so that curvature is that of the bare Hessian."""
    leaves = jax.tree.leaves(moving)
    if not leaves:
        raise fault(expected="parameters with inexact leaves", got="none", fix="Pass the model that is trained.")
    nan = jnp.full((), jnp.nan, jnp.result_type(*leaves))
    return UpdateRule(
        rates=jax.tree.map(jnp.ones_like, moving),
        momentum=nan,
        threshold=nan,
        learning_rate=nan,
        mismatch=nan,
        nesterov=jnp.zeros((), bool),
        kind="unknown",
        reason=reason,
    )


def verified(rule: UpdateRule) -> UpdateRule:
    """A rule as it was read, its rates and threshold withheld unless they predict a step down the gradient."""
    # A step up the gradient, or a gate that lets nothing through, is no descent.
    lowest = jnp.min(jnp.stack([jnp.min(leaf, initial=jnp.inf) for leaf in jax.tree.leaves(rule.rates)]))
    highest, mismatch = largest(rule.rates), rule.mismatch
    valid = (lowest >= -1e-3 * highest) & (highest > 0) & jnp.isfinite(highest)
    valid = valid & (mismatch <= rule.tolerance) & jnp.isfinite(rule.threshold)
    # NaN says that there is no step; a step with nothing to predict it is another matter.
    invalid = jnp.where(jnp.isnan(mismatch), jnp.where(highest == 0, jnp.nan, jnp.inf), jnp.maximum(mismatch, 1))
    dtype = highest.dtype
    return UpdateRule(
        rates=jax.tree.map(lambda r: jnp.where(valid, jnp.maximum(r, 0), 1).astype(r.dtype), rule.rates),
        momentum=jnp.asarray(rule.momentum, dtype),
        threshold=jnp.where(valid, rule.threshold, jnp.nan).astype(dtype),
        learning_rate=jnp.where(valid, rule.learning_rate, jnp.nan).astype(dtype),
        mismatch=jnp.where(valid, mismatch, invalid).astype(dtype),
        nesterov=jnp.asarray(rule.nesterov),
        kind=rule.kind,
        reason=rule.reason,
        tolerance=rule.tolerance,
    )


def largest(tree: PyTree) -> Float[Array, ""]:
    """The largest magnitude in a tree."""
    # A maximum rather than a sum of squares, which would leave float32 at small gradients.
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]))
