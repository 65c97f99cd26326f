"""Target-space surrogates: several steps of an optimiser for one gradient of the loss in the model's outputs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import (
    canonical_convolutions,
    check_callable,
    check_count,
    check_optimizer,
    register_rule,
    required,
    wide_dtype,
)
from .._leaves import like
from .._settings import check_positive, rate_at
from ._rows import Predict, RowLoss, check_inputs, of_rows, outputs_of


class TargetSurrogateState(NamedTuple):
    """What the surrogate's rule remembers.

    Attributes:
        step: number of steps made, each with one gradient of the loss.
        decrease: of the surrogate in the last step, in units of the loss; below zero the inner optimiser went astray.
    """

    step: Int[Array, ""]
    decrease: Float[Array, ""]


register_rule(
    TargetSurrogateState, unreadable="target surrogate: its steps are several of another rule, on another loss"
)


def target_surrogate(
    inner: optax.GradientTransformation,
    predict: Predict,
    loss: RowLoss,
    *,
    eta: optax.ScalarOrSchedule,
    steps: int = 10,
) -> optax.GradientTransformationExtraArgs:
    r"""Several steps of an optimiser on a model of the loss in the space of the model's outputs.

    .. math::
        \min_\theta\ \frac1b\sum_{i=1}^b\Big(\langle g_i, f_i(\theta)-z_i\rangle
        +\frac{1}{2\eta}\lVert f_i(\theta)-z_i\rVert^2\Big),\qquad
        z_i = f_i(\theta_t),\quad g_i = \nabla\ell_i(z_i)

    The loss itself is asked for one gradient g in the outputs of each row; all inner steps use that. It is for losses
    that are expensive (a simulator, an expert, a person) behind a model that is cheap. With one step of descent it is
    descent; with many the outputs go to those nearest to :math:`z-\eta g` that the model can make, and for an η below
    one over the loss's curvature in the outputs the loss is below what the surrogate says. Where the loss is as cheap
    as the model, as many steps of the inner optimiser on the loss itself do more.

    The inner optimiser begins anew at each step, and is given ``value``, ``grad`` and ``value_fn`` of the surrogate, so
    that line searches work. The gradient that comes in is not looked at: the rule stands alone, or first in a chain.

    Args:
        inner: any optimiser of Optax's.
        predict: ``predict(params, row) -> outputs`` of one row of data, an array.
            Of an Equinox model ``params`` is what is trained alone: ``equinox.combine(params, model)(row["x"])``.
        loss: ``loss(outputs, row) -> scalar`` of one row.
        eta: η, the rate in the space of outputs, a number or a schedule of the number of the step.
        steps: of the inner optimiser, 10 by default; the authors use 1, 5, 10 and 100.

    Returns:
        The optimiser; its state is a `TargetSurrogateState`. It needs ``params`` and ``inputs``, the batch's rows.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> rule = optimize.target_surrogate(
        ...     optax.sgd(0.1),
        ...     lambda w, row: row["x"] @ w,
        ...     lambda out, row: (out - row["y"]) ** 2 / 2,
        ...     eta=0.5,
        ...     steps=200,
        ... )
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 3.0]]), "y": jnp.array([1.0, 3.0])}
        >>> w = jnp.zeros(2)
        >>> update, _ = rule.update(w, rule.init(w), w, inputs=batch)
        >>> [round(float(x), 3) for x in update]  # half of the way for each output
        [0.5, 0.5]

    Cost: a gradient of the loss in the outputs, and ``steps`` forward and backward passes of the model.

    References:
        - Lavington, Vaswani, Babanezhad, Schmidt and Le Roux, "Target-based Surrogates for Stochastic Optimization",
          2023, https://arxiv.org/abs/2302.02607 (their code for surrogate and settings; there 1/η weighs the gradient
          and the square has no ½, so that its η is of one over twice ours)
    """
    optimizer = check_optimizer(inner, what="inner")
    check_callable(predict, what="predict", fix="Pass predict(params, row) -> outputs, of one row.", takes=2)
    check_callable(loss, what="loss", fix="Pass loss(outputs, row) -> scalar, of one row.", takes=2)
    steps = check_count(steps, what="steps")
    if not callable(eta):
        check_positive(eta=eta)

    def init(params: PyTree) -> TargetSurrogateState:
        return TargetSurrogateState(jnp.zeros((), jnp.int32), jnp.zeros((), wide_dtype(params)))

    def update(
        updates: PyTree, state: TargetSurrogateState, params: PyTree = None, *, inputs: PyTree = None, **extra: Any
    ) -> tuple[PyTree, TargetSurrogateState]:
        params = required(params, "params", by="target_surrogate")
        inputs = required(inputs, "inputs", by="target_surrogate")
        rows, rate = check_inputs(inputs), rate_at(eta, state.step)

        def outputs(at: PyTree) -> Float[Array, "rows ..."]:
            predicted = outputs_of(predict, at, inputs)
            return predicted.astype(wide_dtype(predicted))

        targets = outputs(params)
        slopes = jax.grad(lambda predicted: jnp.sum(of_rows(loss, predicted, inputs)))(targets)

        def surrogate(at: PyTree) -> Float[Array, ""]:
            moved = outputs(at) - targets
            return jnp.sum(slopes * moved + moved**2 / (2 * rate)) / rows

        @canonical_convolutions
        def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
            at, memory = carry
            value, grads = jax.value_and_grad(surrogate)(at)
            moves, memory = optimizer.update(grads, memory, at, value=value, grad=grads, value_fn=surrogate)
            return (optax.apply_updates(at, moves), memory), None

        (found, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
        change = like(jax.tree.map(jnp.subtract, found, params), updates)
        decrease = (-surrogate(found)).astype(state.decrease.dtype)
        return change, TargetSurrogateState(optax.safe_increment(state.step), decrease)

    return optax.GradientTransformationExtraArgs(init, update)
