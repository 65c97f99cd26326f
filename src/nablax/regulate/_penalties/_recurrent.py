"""Keep the error's norm as it travels back through time: the vanishing-gradient regulariser."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import canonical_convolutions, fault, norm, required, unit_vector, wide_dtype

# step(params, state, input) -> state, for a batch: leading axis of state and input.
Step = Callable[[PyTree, Array, PyTree], Array]


class Unrolled(NamedTuple):
    """A recurrent network's course through a batch of sequences, and the loss's derivative along it.

    Attributes:
        states: before each step; the last one is not among them.
        inputs: of each step.
        cotangents: derivative of the loss with respect to the state after each step, through all later ones.
    """

    states: Float[Array, "time batch state"]
    inputs: PyTree
    cotangents: Float[Array, "time batch state"]


class VanishingGradientState(NamedTuple):
    """What the regulariser saw at the last step.

    Attributes:
        omega: the penalty, no unit; 0 where every step keeps the error's norm.
        share: of all steps and sequences, those whose error was large enough to count.
    """

    omega: Float[Array, ""]
    share: Float[Array, ""]


def unrolled_value_and_grad(
    step: Step, loss: Callable[..., Float[Array, ""]]
) -> Callable[..., tuple[Float[Array, ""], PyTree, Unrolled]]:
    """Loss, gradient and what `vanishing_gradient` needs, by one pass forwards and one back.

    Args:
        step: ``step(params, state, input) -> state`` for a batch.
        loss: ``loss(params, states, *args) -> scalar`` of the states after each step, [time, batch, state].

    Returns:
        ``function(params, start, inputs, *args) -> (value, grads, unrolled)``; ``start`` is [batch, state] and every
        leaf of ``inputs`` has the leading axes [time, batch].

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> function = regulate.unrolled_value_and_grad(lambda w, h, x: w * h + x, lambda w, h: jnp.sum(h[-1]))
        >>> value, grads, unrolled = function(0.5, jnp.zeros((1, 1)), jnp.ones((3, 1, 1)))
        >>> unrolled.cotangents.ravel().tolist()
        [0.25, 0.5, 1.0]

    Cost:
        One forward pass and one VJP.
    """

    def function(params: PyTree, start: Array, inputs: PyTree, *args: Any) -> tuple[Array, PyTree, Unrolled]:
        length = jax.tree.leaves(inputs)[0].shape[0]

        def run(params: PyTree, taps: Array) -> tuple[Array, Array]:
            def body(state: Array, now: tuple[PyTree, Array]) -> tuple[Array, Array]:
                state = step(params, state, now[0]) + now[1]
                return state, state

            _, states = jax.lax.scan(body, start, (inputs, taps))
            return loss(params, states, *args), states

        taps = jnp.zeros((length, *start.shape), start.dtype)
        differentiated = canonical_convolutions(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
        (value, states), (grads, cotangents) = differentiated(params, taps)
        before = jnp.concatenate([start[None], states[:-1]])
        return value, grads, Unrolled(before, inputs, cotangents)

    return function


def vanishing_gradient(step: Step, weight: float, *, threshold: float = 0.0) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of a penalty on errors that shrink or grow on their way back through time.

    .. math::
        \Omega = \operatorname*{mean}_{k,\,\text{sequences}}
        \left(\frac{\big\lVert \delta_{k+1}\,\partial x_{k+1}/\partial x_k\big\rVert}
        {\lVert\delta_{k+1}\rVert}-1\right)^2,\qquad \delta_{k+1} = \frac{\partial L}{\partial x_{k+1}}

    Only directions in which an error does travel count, unlike a penalty on the recurrent matrix. States and errors are
    taken as given: the gradient is that of the one-step derivative alone. With the state as what goes into the
    nonlinearity, ``step = W σ(x) + ...``, only the recurrent matrix gets one, as in the paper. Large errors are not its
    matter; ``optax.clip_by_global_norm`` comes after it in the chain.

    Args:
        step: ``step(params, state, input) -> state`` for a batch.
        weight: of the penalty, no unit.
        threshold: steps with a smaller :math:`\lVert\delta_{k+1}\rVert` are left out, in units of loss per state; 0 by
            default, which leaves out only vanished ones. The authors' is 1e-10, against overflow, which does not occur
            here and would make the penalty depend on the loss's unit.

    Returns:
        The regulator. ``update(grads, state, params, unrolled=...)`` needs the parameters and the `Unrolled` that
        `unrolled_value_and_grad` gives; its state is a `VanishingGradientState`.

    Raises:
        ValueError: a negative threshold; parameters or ``unrolled`` are missing at an update.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> step = lambda w, h, x: w * h + x
        >>> function = regulate.unrolled_value_and_grad(step, lambda w, h: jnp.sum(h[-1]))
        >>> _, grads, unrolled = function(jnp.array(0.5), jnp.zeros((1, 1)), jnp.ones((3, 1, 1)))
        >>> regulator = regulate.vanishing_gradient(step, 1.0)
        >>> updates, state = regulator.update(grads, regulator.init(0.5), jnp.array(0.5), unrolled=unrolled)
        >>> float(state.omega), float(updates - grads)  # (w - 1)² and its derivative
        (0.25, -1.0)

    Cost:
        One VJP of every step, and the derivative of that.

    References:
        - Pascanu, Mikolov and Bengio, "On the difficulty of training Recurrent Neural Networks", 2013,
          https://arxiv.org/abs/1211.5063 (the penalty, and clipping beside it), and the authors' code,
          https://github.com/pascanur/trainingRNNs, which compares squared norms, takes the mean over steps, as here,
          and gives the penalty a weight of 2; its states come after the nonlinearity, whose slope it takes as given
    """
    if threshold < 0:
        raise fault(expected="a threshold ≥ 0", got=str(threshold), fix="0 leaves out vanished errors only.")

    def init(params: PyTree) -> VanishingGradientState:
        dtype = wide_dtype(params)
        return VanishingGradientState(jnp.zeros((), dtype), jnp.zeros((), dtype))

    def penalty(params: PyTree, unrolled: Unrolled) -> tuple[Array, Array]:
        def one(state: Array, inputs: PyTree, seed: Array) -> tuple[Array, Array]:
            # Rows of a batch do not mix, and each seed's size cancels: unit seeds keep tiny errors in range.
            counted = norm(seed, -1) > threshold
            unit = jnp.where(counted[..., None], unit_vector(seed, -1), 0)
            (back,) = jax.vjp(lambda x: step(params, x, inputs), state)[1](unit)
            return jnp.where(counted, jnp.square(norm(back, -1) - 1), 0), counted

        terms, counted = jax.vmap(one)(*unrolled)
        number = jnp.sum(counted)
        return jnp.sum(terms) / jnp.maximum(number, 1).astype(terms.dtype), number / counted.size

    def update(
        updates: PyTree,
        state: VanishingGradientState,
        params: PyTree = None,
        *,
        unrolled: Unrolled | None = None,
        **extra: Any,
    ) -> tuple[PyTree, VanishingGradientState]:
        params = required(params, "params", by="vanishing_gradient")
        unrolled = required(unrolled, "unrolled", by="vanishing_gradient")
        unrolled = jax.lax.stop_gradient(unrolled)
        (omega, share), grads = jax.value_and_grad(penalty, has_aux=True)(params, unrolled)
        added = jax.tree.map(lambda g, p: g + jnp.asarray(weight, g.dtype) * p.astype(g.dtype), updates, grads)
        return added, VanishingGradientState(omega.astype(state.omega.dtype), share.astype(state.share.dtype))

    return optax.GradientTransformationExtraArgs(init, update)
