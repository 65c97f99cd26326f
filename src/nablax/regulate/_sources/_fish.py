"""Fish: one small step for each domain in turn raises the inner products between the domains' gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, canonical_convolutions, fault, required
from .._aggregators._checks import leading_axis


class FishState(NamedTuple):
    """What Fish keeps between steps.

    Attributes:
        key: of the order of the domains at the next step.
    """

    key: Key


def fish(inner_rate: float | Float[Array, ""], *, key: Key) -> optax.GradientTransformationExtraArgs:
    r"""Average the domains' gradients along a walk that descends one domain after the other, in random order.

    .. math::
        g = \frac1K\sum_{k=1}^{K} \nabla L_{\sigma_k}(\theta_{k-1}),\qquad
        \theta_k = \theta_{k-1} - \alpha\nabla L_{\sigma_k}(\theta_{k-1})

    In expectation over the order :math:`\sigma` this is, to second order, the gradient of an objective that rewards
    gradients that agree:

    .. math::
        \operatorname{E} g = \nabla\Big(\frac1K\sum_i L_i
        - \frac{\alpha}{2K}\sum_{i<j}\nabla L_i\cdot\nabla L_j\Big) + O(\alpha^2)

    A step of rate :math:`\varepsilon\alpha K` along it is the outer step :math:`\theta + \varepsilon(\theta_K-\theta)`.

    Args:
        inner_rate: α, the step length of the walk, in units of parameters per gradient.
        key: of the orders.

    Returns:
        The aggregator of K domains. ``update(grads, state, params, domain_grad=...)`` needs the parameters and
        ``domain_grad(params, index) -> grads``, the gradient of one domain elsewhere, ``index`` being a traced integer;
        ``order=[K]`` fixes the order of a step. Its state is a `FishState`.

    Raises:
        ValueError: parameters or ``domain_grad`` are missing at an update, leading axes differ, or the
            order is not as long.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> centres = jnp.array([0.0, 2.0])
        >>> slope = lambda w, i: w - centres[i]  # of (w - centre)² / 2
        >>> aggregator = regulate.fish(0.1, key=jax.random.key(0))
        >>> w = jnp.array(1.0)
        >>> grads = slope(w, jnp.arange(2))
        >>> updates, state = aggregator.update(grads, aggregator.init(w), w, domain_grad=slope, order=jnp.array([0, 1]))
        >>> round(float(updates), 4)  # 1, then -1 - 0.1
        -0.05

    Cost:
        K - 1 gradients one after the other, beside the K that come in, of which one is used.

    References:
        - Shi, Seely, Torr, Siddharth, Hannun, Usunier and Synnaeve, "Gradient Matching for Domain Generalization",
          2021, https://arxiv.org/abs/2104.09937 (the walk; the expansion is derived here, and is tested)
    """

    def init(params: PyTree) -> FishState:
        del params
        return FishState(key)

    def update(
        grads: PyTree,
        state: FishState,
        params: PyTree = None,
        *,
        domain_grad: Callable[[PyTree, Int[Array, ""]], PyTree] | None = None,
        order: Int[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, FishState]:
        count = leading_axis(grads, params)
        params = required(params, "params", by="fish")
        domain_grad = required(domain_grad, "domain_grad", by="fish")
        following, now = jax.random.split(state.key)
        if order is not None and jnp.shape(order) != (count,):
            raise fault(
                expected=f"order=[{count}], every domain once",
                got=f"shape {jnp.shape(order)}",
                fix="Leave it out for a random one.",
            )
        turns = jax.random.permutation(now, count) if order is None else jnp.asarray(order)

        def descend(params: PyTree, gradient: PyTree) -> PyTree:
            return jax.tree.map(lambda p, g: p - jnp.asarray(inner_rate, p.dtype) * g, params, gradient)

        @canonical_convolutions
        def walk(carry: tuple[PyTree, PyTree], index: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, total = carry
            gradient = domain_grad(params, index)
            # Gradients are summed, not displacements: no digits are lost where steps are small beside parameters.
            return (descend(params, gradient), jax.tree.map(jnp.add, total, gradient)), None

        first = jax.tree.map(lambda leaf: leaf[turns[0]], grads)
        (_, total), _ = jax.lax.scan(walk, (descend(params, first), first), turns[1:])
        return jax.tree.map(lambda leaf: leaf / count, total), FishState(following)

    return optax.GradientTransformationExtraArgs(init, update)
