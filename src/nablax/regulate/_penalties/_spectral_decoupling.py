"""Penalise the logits in place of the weights, so that a strong feature does not starve a weak one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import fault, required, wide_dtype


class SpectralDecouplingState(NamedTuple):
    """What the last step's penalty was.

    Attributes:
        penalty: its value, in units of the loss.
    """

    penalty: Float[Array, ""]


def spectral_decoupling(
    logits: Callable[..., Array], strength: float | Float[Array, ""], *, shift: float | Float[Array, " classes"] = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of a penalty on the squared logits.

    .. math::
        g \leftarrow g + \nabla_\theta\, \frac{\lambda}{2n}\sum_{i=1}^{n}\lVert z_\theta(x_i) - \gamma\rVert^2

    Under cross-entropy alone an example that one strong feature explains has almost no gradient left from which to
    learn another feature. With the penalty in place of weight decay, a model that is rich enough and has one logit for
    labels ±1 ends with the same margin for every example, the root r of
    :math:`\lambda r = 1/(1+e^{r})`, whatever the strengths of the features.

    Args:
        logits: ``logits(params, inputs) -> [n, ...]``.
        strength: λ, no unit, not negative.
        shift: γ, what logits are drawn to, broadcast over the logits, 0 by default; one for each class where classes
            are uneven.

    Returns:
        The regulator. ``update(grads, state, params, inputs=(...))`` needs the parameters and the batch that ``logits``
        takes, as a tuple; it comes first in a chain. Its state is a `SpectralDecouplingState`.

    Raises:
        ValueError: a negative strength; parameters or inputs are missing at an update.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.spectral_decoupling(lambda w, x: x * w, 0.5)
        >>> w = jnp.array(3.0)
        >>> updates, state = regulator.update(jnp.array(0.0), regulator.init(w), w, inputs=jnp.array([2.0]))
        >>> float(updates), float(state.penalty)  # 0.5 · 2 · 6 and 0.25 · 6²
        (6.0, 9.0)

    Cost:
        One VJP of the logits. Where the loss is at hand, adding the same term to it costs next to nothing.

    References:
        - Pezeshki, Kaba, Bengio, Courville, Precup and Lajoie, "Gradient Starvation: A Learning Proclivity in Neural
          Networks", 2021, https://arxiv.org/abs/2011.09468 (the penalty, and its shift for each class; the margin at
          the optimum follows from setting its gradient to zero)
        - the authors' code, https://github.com/mpezeshki/Gradient_Starvation (the mean of the squared logits without
          the half of the text: its coefficients, 0.003 for moons and 2e-5 for coloured digits, are half our λ. There
          the penalty is weak at first and after 450 steps outweighs the loss, a schedule that is left to the caller)
    """
    if isinstance(strength, float | int) and strength < 0:
        raise fault(expected="a strength of zero or more", got=str(strength), fix="Try 1e-3.")

    def init(params: PyTree) -> SpectralDecouplingState:
        return SpectralDecouplingState(jnp.zeros((), wide_dtype(params)))

    def update(
        updates: PyTree,
        state: SpectralDecouplingState,
        params: PyTree = None,
        *,
        inputs: PyTree = None,
        **extra: Any,
    ) -> tuple[PyTree, SpectralDecouplingState]:
        params = required(params, "params", by="spectral_decoupling")
        inputs = required(inputs, "inputs", by="spectral_decoupling")

        def penalty(params: PyTree) -> Array:
            scores = logits(params, inputs)
            target = jnp.broadcast_to(jnp.asarray(shift, scores.dtype), scores.shape)
            return 0.5 * strength * jnp.sum(jnp.square(scores - target)) / scores.shape[0]

        value, grads = jax.value_and_grad(penalty)(params)
        added = jax.tree.map(lambda u, g: u + g.astype(u.dtype), updates, grads)
        return added, SpectralDecouplingState(value.astype(state.penalty.dtype))

    return optax.GradientTransformationExtraArgs(init, update)
