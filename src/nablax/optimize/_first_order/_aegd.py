"""AEGD: descent whose rate is an energy that can only fall, with a metric or element by element."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import check_callable, check_like, fault, register_rule, required, wide_dtype
from .._leaves import like, over_leaves, wide_zeros
from .._settings import check_rate, rate_at


class AegdState(NamedTuple):
    """What AEGD remembers.

    Attributes:
        step: number of steps made.
        energy: r, in units of the loss's root: one for each parameter, or with a metric one number.
    """

    step: Int[Array, ""]
    energy: PyTree


register_rule(AegdState, unreadable="AEGD: it finds its rate anew at each step, from an energy that falls")


def aegd(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    offset: float = 1.0,
    precondition: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AEGD: descent whose rate is an energy that can only fall.

    .. math::
        v_t = \frac{\nabla f(\theta_t)}{2\sqrt{f(\theta_t)+c}}, \qquad
        r_{t+1} = \frac{r_t}{1+2\eta v_t^{\top}A^{-1}v_t}, \qquad
        \theta_{t+1} = \theta_t - 2\eta\,r_{t+1}A^{-1}v_t, \qquad r_0 = \sqrt{f(\theta_0)+c}

    Without a metric A each parameter has an r of its own, with its own :math:`v^2` in the place of
    :math:`v^{\top}A^{-1}v`. Whatever the rate, :math:`r_{t+1}^2 = r_t^2 - (r_{t+1}-r_t)^2 -
    \lVert\theta_{t+1}-\theta_t\rVert_A^2/\eta`, so that the path's length is bounded and nothing diverges; a rate too
    large uses the energy up, and the run stalls.

    Args:
        learning_rate: η, a number or a schedule; 0.1 by default, the authors'. As long as r is :math:`\sqrt{f+c}`, a
            step is that of gradient descent at η; r falls, and the authors' rates lie slightly above those of momentum.
        offset: c, in units of the loss, above minus its least value; 1 by default, the authors'.
        precondition: ``precondition(grads, params)``, :math:`A^{-1}` times a gradient, A symmetric and positive at the
            present parameters; none by default. An Optax transformation's momentum has no place here.

    Returns:
        The optimiser; its state is an `AegdState`. It needs ``value``, the loss of the batch whose gradient it is, and
        goes last in a chain.

    Raises:
        ValueError: a negative rate, an offset that is no finite number, a metric that is no function; at an update,
            ``value`` is missing, or ``params`` with a metric, or the metric returns something else than gradients.
            A loss at or below −c is an error when it is met.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.aegd(0.1), jnp.array(0.5)
        >>> state = optimizer.init(x)
        >>> update, state = optimizer.update(x, state, x, value=x**2 / 2)
        >>> round(float(optax.apply_updates(x, update)), 4)
        0.4505

    Cost: one array of memory, with a metric one number; the metric's own cost.

    References:
        - Liu and Tian, "AEGD: Adaptive Gradient Descent with Energy", 2020, https://arxiv.org/abs/2010.05109 (element
          by element, as the authors' code, https://github.com/txping/AEGD, whose weight decay is not here); Liu et al.,
          "Adaptive Preconditioned Gradient Descent with Energy", 2023,
          https://arxiv.org/abs/2310.06733 (the metric, after the abstract and equations as others give them). The
          identity of the energy is derived here, and tested.
    """
    check_rate(learning_rate)
    traced = isinstance(offset, jax.Array)  # an injected hyperparameter
    if not traced and not (isinstance(offset, int | float | np.number) and math.isfinite(offset)):
        raise fault(expected="a finite number for offset", got=repr(offset), fix="Leave it out for 1.")
    if precondition is not None:
        check_callable(precondition, what="precondition", fix="Pass a function of (grads, params), or None.")

    def init(params: PyTree) -> AegdState:
        energy = wide_zeros(params) if precondition is None else jnp.zeros((), wide_dtype(params))
        return AegdState(jnp.zeros((), jnp.int32), energy)

    def update(
        updates: PyTree, state: AegdState, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, AegdState]:
        loss = jnp.asarray(required(value, "value", by="aegd"), wide_dtype(updates)) + offset
        if loss.ndim:
            raise fault(expected="one loss as value", got=f"an array of shape {loss.shape}", fix="Pass its mean.")
        message = f"aegd: the loss plus its offset {offset} is not positive: pass a larger offset."
        root = jnp.sqrt(eqx.error_if(loss, loss <= 0, message))
        rate = rate_at(learning_rate, state.step)

        if precondition is None:

            def one(g: Array, energy: Array) -> tuple[Array, Array]:
                v = g.astype(energy.dtype) / (2 * root)
                before = jnp.where(state.step == 0, root, energy)
                after = like(before / (1 + 2 * rate * v**2), energy)
                return (-2 * rate * after * v).astype(g.dtype), after

            steps, energy = over_leaves(one, 2, updates, state.energy)
        else:
            metric = precondition(updates, required(params, "params", by="aegd with a metric"))
            check_like(metric, updates, what="a preconditioned gradient that", fix="Return A⁻¹ g, shaped like g.")
            dtype = state.energy.dtype
            pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(metric))
            square = sum(jnp.sum(g.astype(dtype) * h.astype(dtype)) for g, h in pairs) / (4 * root**2)
            energy = like(jnp.where(state.step == 0, root, state.energy) / (1 + 2 * rate * square), state.energy)
            steps = jax.tree.map(
                lambda h, g: (-rate * energy / root * h.astype(dtype)).astype(g.dtype), metric, updates
            )
        return steps, AegdState(optax.safe_increment(state.step), energy)

    return optax.GradientTransformationExtraArgs(init, update)
