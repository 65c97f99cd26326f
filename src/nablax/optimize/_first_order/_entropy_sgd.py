"""Entropy-SGD: towards the mean of a walk about the weights, which wide valleys hold and narrow ones do not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import (
    Key,
    check_callable,
    check_count,
    check_key,
    check_like,
    check_rows,
    register_rule,
    required,
    wide_dtype,
)
from .._answers import looking
from .._leaves import like, over_leaves, wide_zeros
from .._settings import check_decays, check_not_negative, check_positive, is_zero, with_rate

BatchGradient = Callable[[PyTree, PyTree], tuple[Array, PyTree]]
# Where the walk is, its velocity, and its mean.
Walk = tuple[PyTree, ...]


class EntropySgdState(NamedTuple):
    """What Entropy-SGD remembers.

    Attributes:
        step: number of steps made, each of as many gradients as its walk has steps.
    """

    step: Int[Array, ""]


register_rule(EntropySgdState, unreadable="Entropy-SGD: its step is to the mean of a walk of many gradients")


def scale_by_local_entropy(
    gamma: float = 1e-4,
    *,
    steps: int = 20,
    step_size: float = 0.1,
    noise: float = 1e-4,
    momentum: float = 0.9,
    average: float = 0.75,
    scoping: float = 1e-3,
    batch_value_and_grad: BatchGradient | None = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""How far the weights are from the mean of a walk about them, without a learning rate.

    .. math::
        F(x) = -\log\int e^{-f(y)-\frac\gamma2\lVert x-y\rVert^2}dy, \qquad
        \nabla F(x) = \gamma\,(x-\langle y\rangle)

    and the update is :math:`x-\mu`, where μ stands for the mean :math:`\langle y\rangle`: of Langevin's walk from x,

    .. math::
        d = \nabla f(y)+\gamma(y-x), \qquad v \leftarrow \beta v+d, \qquad
        y \leftarrow y-\eta'(d+\beta v)+\sqrt{2\eta'}\,\epsilon\,\xi, \qquad
        \mu \leftarrow \alpha\mu+(1-\alpha)y

    with v = 0 and μ = x at first and :math:`\gamma=\gamma_0(1+\gamma_1)^t` at step t. Its temperature is ε², where the
    integral has 1. On a quadratic of Hessian H a long walk without noise ends at :math:`\gamma(H+\gamma)^{-1}x`,
    whatever the momentum is.

    The first gradient of the walk, which begins at x, is the one that comes in. The others are by ``grad_fn``, of the
    present batch; the paper draws a new batch for each. For that give ``batch_value_and_grad``, and at each update by
    ``inputs`` the batches of the walk's other steps, stacked on a leading axis of ``steps`` − 1.

    Args:
        gamma: γ₀, in units of the loss's second derivative; how near the walk is held. 1e-4 by default, as in the
            authors' example for MNIST; that for CIFAR-10 is 0.03.
        steps: L, of the walk, 20 by default.
        step_size: η′, the walk's rate, 0.1 by default.
        noise: ε, 1e-4 by default. 0 makes a walk downhill.
        momentum: β, Nesterov's, of the walk; 0.9 by default, as in the authors' code. 0 is
            the paper's listing.
        average: α, 0.75 by default: the mean is of the last few steps.
        scoping: γ₁, by which γ grows in a step, 1e-3 by default; 0 keeps it.
        batch_value_and_grad: ``batch_value_and_grad(params, batch) -> (value, grads)``, as ``jax.value_and_grad(loss)``
            is; by default all gradients are of the present batch.
        key: of the noise. Each step draws anew.

    Returns:
        The rule; its state is an `EntropySgdState`. It needs ``params`` and ``grad_fn`` (``inputs`` in its place, with
        ``batch_value_and_grad``), and all of the parameters: no mask around it.

    Raises:
        ValueError: settings out of range, or no key; at an update, an argument is missing, or there are not
            ``steps`` − 1 batches.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> curvature, x = jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
        >>> grad_fn = lambda at: (jnp.sum(curvature * at**2) / 2, curvature * at)
        >>> rule = optimize.scale_by_local_entropy(1.0, steps=500, noise=0.0, key=jax.random.key(0))
        >>> update, _ = rule.update(grad_fn(x)[1], rule.init(x), x, grad_fn=grad_fn)
        >>> [round(float(u), 3) for u in update]  # H / (H + γ)
        [0.5, 0.75]

    Cost: L − 1 gradients beside the one that came, L in all; during an update three arrays of memory.

    References:
        - Chaudhari et al., "Entropy-SGD: Biasing Gradient Descent Into Wide Valleys", 2016,
          https://arxiv.org/abs/1611.01838, and the authors' code (https://github.com/ucla-vision/entropy-sgd), followed
          but for this: there the pull γ(y − x) has no momentum, so that its γ is worth (1 − β)γ here; a gradient at x
          is taken besides, of which nothing is used; and weight decay and momentum are of the walk and of the outer
          steps alike. The noise is the code's √(2η′) ε; the paper's listing has √η′ ε, and no momentum (after memory).
    """
    check_not_negative(gamma=gamma, noise=noise, scoping=scoping)
    check_positive(step_size=step_size)
    check_decays(momentum=momentum, average=average)
    steps = check_count(steps, what="steps")
    check_key(key)
    if batch_value_and_grad is not None:
        fix = "Pass jax.value_and_grad(loss), of loss(params, batch)."
        check_callable(batch_value_and_grad, what="batch_value_and_grad", fix=fix, takes=2)

    def init(params: PyTree) -> EntropySgdState:
        return EntropySgdState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree,
        state: EntropySgdState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        inputs: PyTree = None,
        **extra: Any,
    ) -> tuple[PyTree, EntropySgdState]:
        params = required(params, "params", by="entropy_sgd")
        check_like(params, updates, what="parameters that", fix="Pass the parameters that are trained.")
        if batch_value_and_grad is None:
            present = required(grad_fn, "grad_fn", by="entropy_sgd")
        else:
            inputs = required(inputs, "inputs", by="entropy_sgd(batch_value_and_grad=...)")
            fix = "Stack one batch for each step of the walk but the first, whose gradient comes in."
            check_rows(inputs, steps - 1, what="batches as inputs", fix=fix)
        start = jax.tree.map(lambda x: jnp.asarray(x, wide_dtype(x)), params)
        gamma_now = gamma * (1 + scoping) ** state.step
        now = jax.random.fold_in(key, state.step)

        def moved(walk: Walk, grads: PyTree, number: Array) -> Walk:
            draws = iter(jax.random.split(jax.random.fold_in(now, number), len(jax.tree.leaves(start)) or 1))

            def one(g: Array, x: Array, y: Array, v: Array, mean: Array) -> tuple[Array, Array, Array]:
                drift = g + gamma_now * (y - x)
                v = momentum * v + drift
                y = y - step_size * (drift + momentum * v)
                if not is_zero(noise):
                    y = y + (2 * step_size) ** 0.5 * noise * jax.random.normal(next(draws), y.shape, y.dtype)
                return y, v, average * mean + (1 - average) * y

            return like(over_leaves(one, 3, like(grads, start), start, *walk), walk)

        def step(walk: Walk, at: tuple[Array, PyTree]) -> tuple[Walk, None]:
            number, batch = at
            gradient = present if batch_value_and_grad is None else lambda point: batch_value_and_grad(point, batch)
            _, grads = looking(gradient, updates)(like(walk[0], updates))
            return moved(walk, grads, number), None

        walk = moved((start, wide_zeros(params), start), updates, jnp.zeros((), jnp.int32))
        batches = None if batch_value_and_grad is None else inputs
        (_, _, mean), _ = jax.lax.scan(step, walk, (jnp.arange(1, steps), batches))
        apart = like(jax.tree.map(jnp.subtract, start, mean), updates)
        return apart, EntropySgdState(optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)


def entropy_sgd(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    gamma: float = 1e-4,
    *,
    steps: int = 20,
    step_size: float = 0.1,
    noise: float = 1e-4,
    momentum: float = 0.9,
    average: float = 0.75,
    scoping: float = 1e-3,
    weight_decay: float = 0.0,
    batch_value_and_grad: BatchGradient | None = None,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    r"""Entropy-SGD: descend the local entropy, whose gradient is a walk's; wide valleys have more of it than narrow.

    .. math:: x \leftarrow x-\eta\,(x-\mu) - \eta\lambda x

    with μ of `scale_by_local_entropy`. At η = 1 the weights become the mean of the walk. The paper's η is over γ:
    its :math:`\eta\gamma(x-\mu)`, for one, at η = 1/γ. Momentum of these outer steps is ``optax.trace`` between the
    rule and the rate.

    Args:
        learning_rate: η, a share of the way to the mean; a number or a schedule, 1 by default.
        gamma: γ₀, 1e-4 by default.
        steps: L, of the walk, each with a gradient; 20 by default.
        step_size: η′, the walk's rate, which is what plain descent's would be; 0.1 by default.
        noise: ε, 1e-4 by default.
        momentum: β of the walk, 0.9 by default.
        average: α, 0.75 by default.
        scoping: γ₁, 1e-3 by default.
        weight_decay: λ, decoupled, 0 by default.
        batch_value_and_grad: of batches of the walk's own, which ``inputs`` brings; see `scale_by_local_entropy`.
        key: of the noise.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_local_entropy`, or a negative rate or decay.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer = optimize.entropy_sgd(0.5, 1.0, steps=500, noise=0.0, key=jax.random.key(0))
        >>> x = jnp.array(1.0)
        >>> update, _ = optimizer.update(x, optimizer.init(x), x, grad_fn=lambda at: (at**2 / 2, at))
        >>> round(float(optax.apply_updates(x, update)), 3)  # half of the way to where (1 + γ) y = γ x
        0.75

    Cost: as `scale_by_local_entropy`: count L gradients a step.

    References:
        - Chaudhari et al., https://arxiv.org/abs/1611.01838, and https://github.com/ucla-vision/entropy-sgd.
    """
    rule = scale_by_local_entropy(
        gamma,
        steps=steps,
        step_size=step_size,
        noise=noise,
        momentum=momentum,
        average=average,
        scoping=scoping,
        batch_value_and_grad=batch_value_and_grad,
        key=key,
    )
    return with_rate(rule, learning_rate, weight_decay=weight_decay)
