"""Keep every step inside the radius in which cross-entropy's Taylor series converges."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import fault, required, scaled, wide_dtype
from ...calculus import softmax_radius


class GhostStepState(NamedTuple):
    """What the controller saw and did at the last step.

    Attributes:
        radius: the batch's convergence radius along the proposed update, in multiples of that update.
        scale: what the update was multiplied by, at most 1.
    """

    radius: Float[Array, ""]
    scale: Float[Array, ""]


def ghost_step(logits: Callable[..., Array], *, fraction: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Shorten updates that would leave the disc in which cross-entropy's Taylor series converges.

    .. math::
        u \leftarrow \min(1, c\,\rho)\,u, \qquad
        \rho = \min_{\text{rows}} \frac{\pi}{\max_k a_k - \min_k a_k}, \qquad a_k = \nabla z_k\cdot u

    It is the last link of ``optax.chain``, behind the learning rate, since it looks at the step that would be taken.
    Updates within the radius pass untouched, so that nothing is changed of a run that is going well; momentum that is
    kept before it keeps what it has gathered.

    Args:
        logits: ``logits(params, inputs) -> [..., classes]``.
        fraction: c, the share of the radius that a step may take, 1 by default.

    Returns:
        The regulator. ``update(updates, state, params, inputs=(...))`` needs the parameters and the batch that
        ``logits`` takes, as a tuple; its state is a `GhostStepState`.

    Raises:
        ValueError: ``fraction`` is not positive; parameters or inputs are missing at an update.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.ghost_step(lambda weights, x: weights * x)
        >>> state = regulator.init(jnp.zeros(2))
        >>> updates, state = regulator.update(jnp.array([50.0, -50.0]), state, jnp.zeros(2), inputs=1.0)
        >>> [round(float(u), 4) for u in updates]  # spread of the logits: π
        [1.5708, -1.5708]

    Cost:
        One JVP of the logits.

    References:
        - Sao, "Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy", 2026,
          https://arxiv.org/abs/2603.13552, and its code, https://github.com/piyush314/ghosts-of-softmax (followed: the
          step is cut to the bound of the worst row, along the optimiser's update. The experiments look at every row of
          the training set, here it is the batch's, whose bound the text calls less conservative; the share c is ours.
          Their ``RhoScaledAdam``, whose rate goes with π over the spread of the logits themselves, is another rule)
    """
    if not fraction > 0:
        raise fault(expected="a positive fraction", got=str(fraction), fix="1 is the whole radius.")

    def init(params: PyTree) -> GhostStepState:
        dtype = wide_dtype(params)
        return GhostStepState(jnp.array(jnp.inf, dtype), jnp.ones((), dtype))

    def update(
        updates: PyTree,
        state: GhostStepState,
        params: PyTree = None,
        *,
        inputs: PyTree = None,
        **extra: Any,
    ) -> tuple[PyTree, GhostStepState]:
        params = required(params, "params", by="ghost_step")
        inputs = required(inputs, "inputs", by="ghost_step")
        dtype = state.radius.dtype
        # A direction of size one, so that an update of any size has a finite JVP.
        direction, size = scaled(updates)
        direction = jax.tree.map(lambda unit, leaf: unit.astype(leaf.dtype), direction, updates)
        radius = jnp.min(softmax_radius(logits)(params, direction, inputs).simple).astype(dtype)
        # An update without effect on the logits has no radius; it passes.
        length = jnp.minimum(size, fraction * radius)
        limited = jax.tree.map(lambda leaf: leaf * length.astype(leaf.dtype), direction)
        kept = jax.tree.map(lambda old, new: jnp.where(length < size, new, old), updates, limited)
        return kept, GhostStepState((radius / size).astype(dtype), (length / size).astype(dtype))

    return optax.GradientTransformationExtraArgs(init, update)
