"""A gradient transformation that is itself learnt, jointly with the start, so that few steps generalise."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import canonical_convolutions, fault


class MetaRegulation(NamedTuple):
    """What is meta-learnt.

    Attributes:
        start: the parameters that every task starts from.
        gain: logits of the gain on each gradient, structured like the parameters; 0 gives the gain 1.
        shift: added to each gradient, structured like the parameters, in units of the gradient.
    """

    start: PyTree
    gain: PyTree
    shift: PyTree


def meta_regulation(start: PyTree) -> MetaRegulation:
    """Begin meta-learning at a start with a transformation that changes nothing.

    Args:
        start: the parameters.

    Returns:
        A `MetaRegulation` to be trained on `meta_loss`.

    Cost: none of any model.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> meta = regulate.meta_regulation(jnp.zeros(2))
        >>> regulator = regulate.learned_regulation(meta)
        >>> regulator.update(jnp.array([1.0, 2.0]), regulator.init(meta.start))[0].tolist()
        [1.0, 2.0]
    """
    zeros = jax.tree.map(jnp.zeros_like, start)
    return MetaRegulation(start, zeros, zeros)


def learned_regulation(meta: MetaRegulation) -> optax.GradientTransformationExtraArgs:
    r"""Transform gradients by what was meta-learnt.

    $$
    \tilde g = 2\,\sigma(\gamma)\odot g + \beta
    $$

    Gains lie in (0, 2): the gain may silence a direction that does not generalise, but never reverses one; the shift
    may.

    Args:
        meta: of `meta_regulation`, trained on `meta_loss`.

    Returns:
        The regulator, without state.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> meta = regulate.meta_regulation(jnp.zeros(2))._replace(gain=jnp.array([-100.0, 0.0]))
        >>> regulator = regulate.learned_regulation(meta)
        >>> regulator.update(jnp.array([1.0, 2.0]), regulator.init(meta.start))[0].tolist()
        [0.0, 2.0]

    Cost: a multiply-add a parameter.

    References:
        - Li et al., "Gradient-Regulated Meta-Prompt Learning for Generalizable Vision-Language Models", 2023,
          https://arxiv.org/abs/2303.06571 (after the abstract: a lightweight regulating function of the gradient,
          meta-learnt with the start; the elementwise form with bounded gains is ours)
    """

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, optax.EmptyState]:
        def regulate(gradient: Array, gain: Array, shift: Array) -> Array:
            return (2 * jax.nn.sigmoid(gain) * gradient + shift).astype(gradient.dtype)

        return jax.tree.map(regulate, updates, meta.gain, meta.shift), state

    return optax.GradientTransformationExtraArgs(init, update)


def meta_adapt(
    loss: Callable[..., Float[Array, ""]], *, steps: int, learning_rate: float
) -> Callable[[MetaRegulation, PyTree], PyTree]:
    r"""Adapt to a task by a few regulated steps from the common start.

    $$
    \theta_{j+1} = \theta_j - \eta\,\psi(\nabla L(\theta_j; \text{support}))
    $$

    Args:
        loss: ``loss(params, data) -> scalar``.
        steps: number of steps, 1 or more.
        learning_rate: η.

    Returns:
        ``function(meta, support) -> params`` of one task.

    Raises:
        ValueError: fewer than one step.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> adapt = regulate.meta_adapt(lambda x, data: (x - data) ** 2, steps=1, learning_rate=0.5)
        >>> float(adapt(regulate.meta_regulation(jnp.array(0.0)), jnp.array(1.0)))
        1.0

    Cost: ``steps`` gradients.

    References:
        - Li et al., "Gradient-Regulated Meta-Prompt Learning for Generalizable Vision-Language Models", 2023,
          https://arxiv.org/abs/2303.06571 (after the abstract)
    """
    if steps < 1:
        raise fault(expected="at least one step", got=steps, fix="A few steps are usual.")

    def function(meta: MetaRegulation, support: PyTree) -> PyTree:
        regulator = learned_regulation(meta)

        @canonical_convolutions
        def step(params: PyTree, _: None) -> tuple[PyTree, None]:
            regulated, _ = regulator.update(jax.grad(loss)(params, support), optax.EmptyState())
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, regulated), None

        return jax.lax.scan(step, meta.start, length=steps)[0]

    return function


def meta_loss(
    loss: Callable[..., Float[Array, ""]], *, steps: int, learning_rate: float
) -> Callable[[MetaRegulation, PyTree, PyTree], Float[Array, ""]]:
    r"""Loss on query data after adapting to support data.

    $$
    \text{meta-loss}(\text{start}, \psi) = L\big(\text{adapt}(\text{start}, \psi, \text{support}); \text{query}\big)
    $$

    With queries of another domain than the supports, the transformation ψ learns which directions carry over. The
    gradient flows through all steps.

    Args:
        loss: ``loss(params, data) -> scalar``.
        steps: of `meta_adapt`.
        learning_rate: of `meta_adapt`.

    Returns:
        ``function(meta, support, query) -> scalar`` of one task; the caller averages over tasks and differentiates with
        respect to ``meta``.

    Raises:
        ValueError: fewer than one step.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> function = regulate.meta_loss(lambda x, data: (x - data) ** 2, steps=1, learning_rate=0.5)
        >>> meta = regulate.meta_regulation(jnp.array(0.0))
        >>> float(function(meta, jnp.array(1.0), jnp.array(3.0)))
        4.0

    Cost: ``steps`` gradients forward, and as many Hessian-vector products when differentiated.

    References:
        - Li et al., "Gradient-Regulated Meta-Prompt Learning for Generalizable Vision-Language Models", 2023,
          https://arxiv.org/abs/2303.06571 (after the abstract)
        - Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017,
          https://arxiv.org/abs/1703.03400
    """
    adapt = meta_adapt(loss, steps=steps, learning_rate=learning_rate)

    def function(meta: MetaRegulation, support: PyTree, query: PyTree) -> Float[Array, ""]:
        return loss(adapt(meta, support), query)

    return function
