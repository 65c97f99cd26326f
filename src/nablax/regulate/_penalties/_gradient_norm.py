"""Penalise the gradient's norm by one more gradient, a step uphill; and flooding, which does so by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import check_like, check_number, check_pair, check_shape, fault, required


def gradient_norm(weight: float, ascent: float) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of :math:`\tfrac{\gamma}{2}\lVert\nabla L\rVert^2`, by a finite difference uphill.

    .. math::
        g \leftarrow g + \gamma\,\frac{\nabla L(\theta + \varepsilon g) - g}{\varepsilon},\qquad g = \nabla L(\theta)

    The difference is exact to first order in :math:`\varepsilon`; a large one is not only cheaper than differentiating
    twice but biased towards what the penalty is for. At :math:`\gamma=\varepsilon` only the gradient uphill is left, as
    in sharpness-aware minimisation without normalisation. A negative ``ascent`` takes the difference downhill.

    Args:
        weight: of the penalty, γ, in units of a step length.
        ascent: step length ε of the finite difference; negative for a step downhill.

    Returns:
        The regulator, without state. ``update(grads, state, params, grad_fn=...)`` needs the parameters and
        ``grad_fn(params) -> (value, grads)`` on the same batch, which `nablax.follow.fit` gives; it comes first in a
        chain.

    Raises:
        ValueError: ``weight`` is negative, ``ascent`` zero, or one is no number; at an update, parameters or
            ``grad_fn`` are missing, or gradients are not shaped like the parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> slope = jax.value_and_grad(lambda w: 2 * jnp.sum(w**2))  # 4 w; the penalty's gradient is 16 w
        >>> regulator = regulate.gradient_norm(weight=0.1, ascent=0.01)
        >>> w = jnp.array([1.0])
        >>> updates, _ = regulator.update(slope(w)[1], regulator.init(w), w, grad_fn=slope)
        >>> round(float(updates[0]), 4)
        5.6

    Cost:
        One more gradient; no second derivatives.

    References:
        - Karakida, Takase, Hayase and Osawa, "Understanding Gradient Regularization in Deep Learning: Efficient
          Finite-Difference Computation and Implicit Bias", 2023, https://arxiv.org/abs/2210.02720
    """
    check_number(weight, what="weight", least=0, fix="It weighs the penalty; 0 leaves it out.")
    check_number(ascent, what="ascent", fix="Try the learning rate.")
    if ascent == 0:
        raise fault(expected="an ascent step that is not zero", got="0", fix="Try the learning rate.")

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        params = required(params, "params", by="gradient_norm")
        grad_fn = required(grad_fn, "grad_fn", by="gradient_norm")
        check_like(updates, params, what="a gradient that", fix="Pass the parameters that it belongs to.")
        found = grad_fn(jax.tree.map(lambda p, g: p + jnp.asarray(ascent, p.dtype) * g, params, updates))
        _, uphill = check_pair(
            found,
            expected="grad_fn(params) -> (value, grads)",
            fix="Pass grad_fn=lambda params: jax.value_and_grad(loss)(params, batch).",
        )
        check_like(uphill, params, what="a grad_fn whose gradient", fix="It is grad_fn(params) -> (value, grads).")
        share = weight / ascent
        return jax.tree.map(lambda g, u: g + jnp.asarray(share, g.dtype) * (u - g), updates, uphill), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def flooding(level: float | Float[Array, ""]) -> optax.GradientTransformationExtraArgs:
    r"""Turn the gradient round where the loss is below a level: :math:`g\leftarrow\operatorname{sign}(L - b)\,g`.

    This is the gradient of :math:`|L - b| + b`. At the level steps go up and down in turn; a pair of them with rate
    :math:`\eta` is one step of `gradient_norm` with :math:`\varepsilon=\eta`, without the loss's own gradient.

    Args:
        level: b, in units of the loss.

    Returns:
        The regulator, without state. ``update(grads, state, value=loss)`` needs the batch's loss; it comes first in a
        chain.

    Raises:
        ValueError: the level is no number; the loss is missing at an update, or not one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.flooding(0.1)
        >>> updates, _ = regulator.update(jnp.array([2.0]), regulator.init(None), value=0.05)
        >>> float(updates[0])
        -2.0

    Cost:
        None.

    References:
        - Ishida, Yamane, Sakai, Niu and Sugiyama, "Do We Need Zero Training Loss After Achieving Zero Training
          Error?", 2020, https://arxiv.org/abs/2002.08709
        - Karakida, Takase, Hayase and Osawa, 2023, https://arxiv.org/abs/2210.02720 (the relation to `gradient_norm`)
    """
    check_number(level, what="level", fix="It is a loss, such as 0.1.")

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        value: Float[Array, ""] | float | None = None,
        **extra: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        loss: Any = required(value, "value", by="flooding")
        check_shape(loss, (), what="a value", fix="It is the loss of the batch, one number.")
        sign = jnp.where(jnp.asarray(loss) < level, -1, 1)
        return jax.tree.map(lambda g: sign.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
