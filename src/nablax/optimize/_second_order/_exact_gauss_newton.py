"""Exact Gauss-Newton: the damped step of the whole curvature matrix, from a system the size of the batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_callable, exact, register_rule, required, wide_dtype
from ...regulate import gramian
from .._leaves import like
from .._settings import check_decays, check_not_negative, check_positive, is_zero, with_rate
from ._rows import Predict, RowLoss, check_inputs, of_rows, outputs_of

_FEW, _ENOUGH = 0.25, 0.75  # shares of the decrease that the model promises


class GaussNewtonState(NamedTuple):
    """What exact Gauss-Newton remembers.

    Attributes:
        step: number of steps made.
        damping: λ of the next step where it is adapted, else of the last, in units of the curvature.
    """

    step: Int[Array, ""]
    damping: Float[Array, ""]


register_rule(
    GaussNewtonState, unreadable="exact Gauss-Newton: it turns the gradient by the whole curvature of its batch"
)


def scale_by_gauss_newton(
    predict: Predict, loss: RowLoss, *, damping: float = 1.0, adaptation: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""The exact Gauss-Newton direction of a batch, without a learning rate.

    With the outputs' Jacobian J (a row for each output of each of the b rows of data), the slopes s of the rows'
    losses in these outputs and their curvature Q (a block for each row), it is

    .. math::
        \Big(\tfrac1bJ^{\top}QJ+\lambda I\Big)^{-1}\tfrac1bJ^{\top}s = J^{\top}\big(Q\,JJ^{\top}+b\lambda I\big)^{-1}s

    The left side has the size of the parameters, the right side that of the outputs of one batch. Q is not inverted:
    for a cross-entropy of logits it is singular. Of parameters only products with J are formed, and
    :math:`JJ^{\top}`, by `nablax.regulate.gramian`, layer by layer.

    What the direction is of is the mean of ``loss(predict(params, row), row)`` over the rows of ``inputs``. The
    gradient that comes in is not looked at, so that the rule goes first in a chain, and what else bears on the step
    (clipping, weight decay, momentum, a line search) comes after it.

    Args:
        predict: ``predict(params, row) -> outputs`` of one row of data, an array.
            Of an Equinox model ``params`` is what is trained alone: ``equinox.combine(params, model)(row["x"])``.
        loss: ``loss(outputs, row) -> scalar`` of one row, twice differentiable, convex in the outputs: half the squared
            error, a cross-entropy of logits.
        damping: λ, 1 by default as the authors', in units of the curvature. Where curvatures are below it, steps are
            those of descent at a rate of 1/λ.
        adaptation: share by which λ grows where a step of the whole direction lowers the batch's loss by less than a
            quarter of what the model says, and by which it falls where by more than three quarters. 0, none, by
            default; 0.01 is the authors'.

    Returns:
        The rule; its state is a `GaussNewtonState`. It needs ``params`` and ``inputs``, the batch's rows: in
        `nablax.follow.fit` ``extra=lambda params, batch, grads: {"inputs": batch}``.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing, or leaves of ``inputs`` have different
            numbers of rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_gauss_newton(
        ...     lambda w, row: row["x"] @ w, lambda out, row: (out - row["y"]) ** 2 / 2, damping=1e-4
        ... )
        >>> batch = {"x": jnp.array([[1.0, 0.0], [0.0, 100.0]]), "y": jnp.array([1.0, 100.0])}
        >>> w = jnp.zeros(2)
        >>> direction, _ = rule.update(w, rule.init(w), w, inputs=batch)
        >>> [round(float(-x), 2) for x in direction]  # both at once, whatever their scales
        [1.0, 1.0]

    Cost: a forward pass, two backward passes, the Gramian of rows·outputs gradients and the factorisation of a matrix
        of that size; with ``adaptation`` a JVP and a forward pass more. Where there are fewer parameters than rows·
        outputs, a solve among the parameters is the cheaper.

    References:
        - Korbit, Adeoye, Bemporad and Zanon, "Exact Gauss-Newton Optimization for Training Deep Neural Networks", 2024,
          https://arxiv.org/abs/2405.14402 (direction, damping, momentum; their code, somax, for the defaults and the
          rule of λ, which it has switched off). Q of any loss by differentiation, the Gramian without the Jacobian, and
          judging λ by the whole direction rather than the step made of it are ours.
    """
    check_callable(predict, what="predict", fix="Pass predict(params, row) -> outputs, of one row.", takes=2)
    check_callable(loss, what="loss", fix="Pass loss(outputs, row) -> scalar, of one row.", takes=2)
    check_positive(damping=damping)
    check_not_negative(adaptation=adaptation)

    def init(params: PyTree) -> GaussNewtonState:
        return GaussNewtonState(jnp.zeros((), jnp.int32), jnp.asarray(damping, wide_dtype(params)))

    @exact
    def update(
        updates: PyTree, state: GaussNewtonState, params: PyTree = None, *, inputs: PyTree = None, **extra: Any
    ) -> tuple[PyTree, GaussNewtonState]:
        params = required(params, "params", by="exact_gauss_newton")
        inputs = required(inputs, "inputs", by="exact_gauss_newton")
        rows = check_inputs(inputs)

        def outputs(at: PyTree) -> Float[Array, "rows ..."]:
            return outputs_of(predict, at, inputs)

        # What is injected may change from step to step; what is adapted goes on from where it is.
        now = like(jnp.where(adaptation == 0, damping, state.damping), state.damping)
        predicted, pull = jax.vjp(outputs, params)
        slopes, curvature = _of_outputs(loss, predicted, inputs)
        system = _times(curvature, _inner_products(predict, params, inputs, predicted))
        found = jnp.linalg.solve(system + rows * now * jnp.eye(len(system)), slopes.ravel())
        (direction,) = pull(found.reshape(predicted.shape).astype(predicted.dtype))

        def adapted() -> Float[Array, ""]:
            moved = jax.tree.map(jnp.subtract, params, direction)
            along = jax.jvp(outputs, (params,), (jax.tree.map(jnp.negative, direction),))[1].reshape(slopes.shape)
            bent = jnp.einsum("bij,bj->bi", curvature, along)
            promised = jnp.sum(slopes * along + along * bent / 2) / rows
            # Both are negative where all is well; a product keeps a promise of 0 out of a division.
            change = jnp.mean(of_rows(loss, outputs(moved), inputs) - of_rows(loss, predicted, inputs))
            grow = change > _FEW * promised
            fall = change < _ENOUGH * promised
            factor = 1 + adaptation
            return now * jnp.where(grow, factor, jnp.where(fall, 1 / factor, 1.0))

        following = now if is_zero(adaptation) else like(adapted(), now)
        return like(direction, updates), GaussNewtonState(optax.safe_increment(state.step), following)

    return optax.GradientTransformationExtraArgs(init, update)


def exact_gauss_newton(
    learning_rate: optax.ScalarOrSchedule,
    predict: Predict,
    loss: RowLoss,
    *,
    damping: float = 1.0,
    adaptation: float = 0.0,
    momentum: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Exact Gauss-Newton: steps of `scale_by_gauss_newton` at a rate, with momentum.

    .. math::
        m_t = \mu\,m_{t-1}+(1-\mu)\,d_t,\qquad
        \theta_{t+1} = \theta_t-\eta\,\frac{m_t}{1-\mu^t}

    The authors' line search is Optax's, after it: ``optax.chain(exact_gauss_newton(1.0, predict, loss),
    optax.scale_by_backtracking_linesearch(15, slope_rtol=0.1))``.

    Args:
        learning_rate: η, no unit, a number or a schedule; 1 is the whole step.
        predict: ``predict(params, row) -> outputs``, of one row of data.
        loss: ``loss(outputs, row) -> scalar``, of one row.
        damping: λ, 1 by default, in units of the curvature.
        adaptation: share by which λ is changed after a step; 0 by default.
        momentum: μ, 0 by default.

    Returns:
        The optimiser. It needs ``params`` and ``inputs``.

    Raises:
        ValueError: settings out of range; at an update, an argument is missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import follow, optimize
        >>> predict = lambda w, row: jnp.exp(w * row["x"])
        >>> loss = lambda out, row: (out - row["y"]) ** 2 / 2
        >>> batch = {"x": jnp.linspace(0.0, 1.0, 8), "y": jnp.exp(0.5 * jnp.linspace(0.0, 1.0, 8))}
        >>> step = follow.train_step(
        ...     lambda w, batch: jnp.mean((jnp.exp(w * batch["x"]) - batch["y"]) ** 2) / 2,
        ...     optimizer := optimize.exact_gauss_newton(1.0, predict, loss, damping=1e-4),
        ...     extra=lambda params, batch, grads: {"inputs": batch},
        ... )
        >>> w = jnp.array(0.0)
        >>> state = optimizer.init(w)
        >>> for _ in range(4):
        ...     w, state, _ = step(w, state, batch)
        >>> round(float(w), 3)
        0.5

    Cost: that of `scale_by_gauss_newton`.

    References:
        - Korbit, Adeoye, Bemporad and Zanon, "Exact Gauss-Newton Optimization for Training Deep Neural Networks", 2024,
          https://arxiv.org/abs/2405.14402
    """
    check_decays(momentum=momentum)
    rule = scale_by_gauss_newton(predict, loss, damping=damping, adaptation=adaptation)
    averaged = [] if is_zero(momentum) else [optax.ema(momentum)]
    return with_rate(optax.chain(rule, *averaged), learning_rate)


def _of_outputs(
    loss: RowLoss, predicted: Float[Array, "rows ..."], inputs: PyTree
) -> tuple[Float[Array, "rows outputs"], Float[Array, "rows outputs outputs"]]:
    """Slopes and curvatures of the rows' losses in their outputs, in single precision at least."""
    shape = predicted.shape[1:]

    def one(flat: Float[Array, " outputs"], row: PyTree) -> Float[Array, ""]:
        return of_rows(loss, flat.reshape(1, *shape), jax.tree.map(lambda leaf: leaf[None], row))[0]

    flat = predicted.reshape(len(predicted), -1).astype(wide_dtype(predicted))
    return jax.vmap(jax.grad(one))(flat, inputs), jax.vmap(jax.hessian(one))(flat, inputs)


def _inner_products(
    predict: Predict, params: PyTree, inputs: PyTree, predicted: Float[Array, "rows ..."]
) -> Float[Array, "all all"]:
    """Inner products of the gradients of all outputs of all rows, each taken as a loss of its own."""
    outputs = predicted[0].size
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, outputs, axis=0), inputs)
    chosen = jnp.tile(jnp.eye(outputs, dtype=predicted.dtype), (len(predicted), 1))

    def each(params: PyTree, rows: PyTree) -> Float[Array, " all"]:
        return jax.vmap(lambda row, which: jnp.sum(which * predict(params, row).ravel()))(rows, chosen)

    return gramian(each, params, repeated)


def _times(
    curvature: Float[Array, "rows outputs outputs"], products: Float[Array, "all all"]
) -> Float[Array, "all all"]:
    """A matrix of blocks along the diagonal times another matrix."""
    rows, outputs, _ = curvature.shape
    blocks = products.reshape(rows, outputs, rows * outputs)
    return jnp.einsum("bij,bjn->bin", curvature, blocks).reshape(products.shape)
