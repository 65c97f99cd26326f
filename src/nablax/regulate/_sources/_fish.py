"""Fish: one small step for each domain in turn raises the inner products between the domains' gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import canonical_convolutions, check_number, fault, required


def fish(inner_rate: float | Float[Array, ""]) -> optax.GradientTransformationExtraArgs:
    r"""Average the domains' gradients along a walk that descends one domain after the other, in random order.

    .. math::
        g = \frac1K\sum_{k=1}^{K} \nabla L_{\sigma_k}(\theta_{k-1}),\qquad
        \theta_k = \theta_{k-1} - \alpha\nabla L_{\sigma_k}(\theta_{k-1})

    In expectation over the order :math:`\sigma` this is, to second order, the gradient of an objective that rewards
    gradients that agree:

    .. math::
        \operatorname{E} g = \nabla\Big(\frac1K\sum_i L_i
        - \frac{\alpha}{2K}\sum_{i<j}\nabla L_i\cdot\nabla L_j\Big) + O(\alpha^2)

    A step of rate :math:`\varepsilon\alpha K` along it is the outer step :math:`\theta + \varepsilon(\theta_K-\theta)`;
    the authors' code divides its rate of the outer step by K.

    Args:
        inner_rate: α, the step length of the walk, in units of parameters per gradient.

    Returns:
        The regulator of one gradient, that of the domain where the walk begins, without state. ``update(grads, state,
        params, order=[K], domain_grad=...)`` needs the order of the walk, a random one each step, of which ``grads`` is
        the gradient of ``order[0]``; the parameters; and ``domain_grad(params, index) -> grads``, the gradient of one
        domain elsewhere, ``index`` being a traced integer. In a loop the batch carries the order, and the loss is that
        of its first domain.

    Raises:
        ValueError: ``inner_rate`` is negative or no number; parameters, ``order`` or ``domain_grad`` are missing at an
            update, or the order has not two domains.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> centres = jnp.array([0.0, 2.0])
        >>> slope = lambda w, i: w - centres[i]  # of (w - centre)² / 2
        >>> regulator = regulate.fish(0.1)
        >>> w, order = jnp.array(1.0), jnp.array([0, 1])
        >>> updates, _ = regulator.update(slope(w, order[0]), regulator.init(w), w, domain_grad=slope, order=order)
        >>> round(float(updates), 4)  # 1, then -1 - 0.1
        -0.05

    Cost:
        K - 1 gradients one after the other, beside the one that comes in: K in all.

    References:
        - Shi, Seely, Torr, Siddharth, Hannun, Usunier and Synnaeve, "Gradient Matching for Domain Generalization",
          2021, https://arxiv.org/abs/2104.09937 (the walk; the expansion is derived here, and is tested. Where
          there are more domains than the walk visits, their code draws which, and so may ``order``)
    """
    check_number(inner_rate, what="inner_rate", least=0, fix="It is the step length of a walk down the losses.")

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        domain_grad: Callable[[PyTree, Int[Array, ""]], PyTree] | None = None,
        order: Int[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        params = required(params, "params", by="fish")
        domain_grad = required(domain_grad, "domain_grad", by="fish")
        turns = jnp.asarray(required(order, "order", by="fish"))
        if turns.ndim != 1 or len(turns) < 2:
            raise fault(
                expected="order=[K], every domain once, and two at least",
                got=f"shape {turns.shape}",
                fix="Pass jax.random.permutation(key, K), and the gradient of the first of them.",
            )

        def descend(params: PyTree, gradient: PyTree) -> PyTree:
            return jax.tree.map(lambda p, g: p - jnp.asarray(inner_rate, p.dtype) * g, params, gradient)

        @canonical_convolutions
        def walk(carry: tuple[PyTree, PyTree], index: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, total = carry
            gradient = domain_grad(params, index)
            # Gradients are summed, not displacements: no digits are lost where steps are small beside parameters.
            return (descend(params, gradient), jax.tree.map(jnp.add, total, gradient)), None

        (_, total), _ = jax.lax.scan(walk, (descend(params, updates), updates), turns[1:])
        return jax.tree.map(lambda leaf: leaf / len(turns), total), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
