"""Products with the Hessian, the Gauss-Newton matrix and the empirical Fisher matrix of a loss."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._core import check_like, check_loss, fault, forward, split, tangent_of

_DIRECTION = "Give it one number for each parameter; of several directions jax.vmap the product."


def hessian_product(loss: Callable[..., Float[Array, ""]]) -> Callable[..., PyTree]:
    r"""Multiply the Hessian of a loss with a direction, forward over reverse.

    .. math:: v \mapsto \nabla^2 L(\theta)\,v = \left.\tfrac{d}{ds}\right|_{s=0}\nabla L(\theta + s\,v)

    Where forward mode is not defined (a rule of `jax.custom_vjp` inside of another) it is reverse over reverse, which
    multiplies with the transposed Hessian: the same where the rules are true derivatives.

    Args:
        loss: ``loss(params, *args) -> scalar``.

    Returns:
        ``product(params, v, *args) -> Hv``, in units of the loss over units of the parameters squared, times
        ``v``. ``params`` is any pytree; its inexact array leaves are differentiated. ``v`` has the same leaves,
        or None (or anything else) in place of those that are not inexact arrays; ``Hv`` is shaped like ``v``
        and hands such leaves back untouched.

    Raises:
        ValueError: the loss is not a scalar, or ``v`` does not have the inexact leaves of ``params`` in their shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import hessian_product
        >>> loss = lambda p: p[0] ** 2 + p[0] * p[1]
        >>> hessian_product(loss)(jnp.zeros(2), jnp.array([1.0, 0.0])).tolist()
        [2.0, 1.0]

    Cost:
        One JVP of a VJP: about nine forward passes, or six where one linearisation serves many directions, as
        it does in :func:`lanczos`. Activations are stored.

    References:
        - Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994,
          https://doi.org/10.1162/neco.1994.6.1.147
    """

    def product(params: PyTree, v: PyTree, *args: PyTree) -> PyTree:
        at, others = split(params)
        tangent, rest = tangent_of(at, v)
        check_like(tangent, at, what="a direction that", fix=_DIRECTION)

        def value(inexact: PyTree) -> Float[Array, ""]:
            return check_loss(loss(eqx.combine(inexact, others), *args))

        pushed = forward(jax.grad(value), at, tangent)
        # Of a symmetric matrix the transposed product is the product.
        image = jax.vjp(jax.grad(value), at)[1](tangent)[0] if pushed is None else pushed[1]
        return eqx.combine(image, rest)

    return product


def gauss_newton_product(
    predict: Callable[..., PyTree], loss: Callable[..., Float[Array, ""]]
) -> Callable[..., PyTree]:
    r"""Multiply the generalised Gauss-Newton matrix with a direction: the loss's curvature through the model.

    .. math:: v \mapsto J^{\top}\,\nabla^2_f L(f)\,J\,v, \qquad f = f(\theta),\; J = \partial f/\partial\theta

    It is the Hessian without the term of the model's own curvature; positive semi-definite where the loss is
    convex in the outputs. For cross-entropy and for squared error it is also the Fisher matrix of the model.

    Args:
        predict: ``predict(params, *args) -> outputs``, any pytree of arrays, usually of a whole batch.
        loss: ``loss(outputs, *args) -> scalar``; ``args`` are the same.

    Returns:
        ``product(params, v, *args) -> Gv``; leaves as for :func:`hessian_product`.

    Raises:
        ValueError: the loss is not a scalar, or ``v`` does not have the inexact leaves of ``params`` in their shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import gauss_newton_product
        >>> product = gauss_newton_product(lambda p: p**2, lambda outputs: jnp.sum(outputs**2) / 2)
        >>> product(jnp.array([1.0, 3.0]), jnp.ones(2)).tolist()
        [4.0, 36.0]

    Cost:
        One JVP and one VJP through the model, about five forward passes, and a Hessian product through the loss.

    References:
        - Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent", 2002,
          https://doi.org/10.1162/08997660260028683
    """

    def product(params: PyTree, v: PyTree, *args: PyTree) -> PyTree:
        at, others = split(params)
        tangent, rest = tangent_of(at, v)
        check_like(tangent, at, what="a direction that", fix=_DIRECTION)

        def outputs(inexact: PyTree) -> PyTree:
            return predict(eqx.combine(inexact, others), *args)

        def value(predicted: PyTree) -> Float[Array, ""]:
            return check_loss(loss(predicted, *args))

        predicted, pull = jax.vjp(outputs, at)
        moved = jax.jvp(outputs, (at,), (tangent,))[1]
        (image,) = pull(jax.jvp(jax.grad(value), (predicted,), (moved,))[1])
        return eqx.combine(image, rest)

    return product


def fisher_product(losses: Callable[..., Float[Array, " examples"]]) -> Callable[..., PyTree]:
    r"""Multiply the empirical Fisher matrix, the second moment of the examples' gradients, with a direction.

    .. math:: v \mapsto \frac1n \sum_{i=1}^{n} g_i\,(g_i^{\top} v), \qquad g_i = \nabla_\theta\,\ell_i(\theta)

    The gradients are those of the labels at hand, not of labels drawn from the model; for the latter see
    :func:`gauss_newton_product`.

    Args:
        losses: ``losses(params, *args) -> [examples]``, one loss for each example.

    Returns:
        ``product(params, v, *args) -> Fv``; leaves as for :func:`hessian_product`.

    Raises:
        ValueError: the losses are not a vector, or ``v`` does not have the inexact leaves of ``params`` in their
            shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import fisher_product
        >>> losses = lambda p, x: x @ p
        >>> fisher_product(losses)(jnp.zeros(2), jnp.ones(2), jnp.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
        [0.5, 2.0]

    Cost:
        One JVP and one VJP, about five forward passes; no gradient of a single example is formed.

    References:
        - Kunstner, Balles and Hennig, "Limitations of the Empirical Fisher Approximation for Natural Gradient
          Descent", 2019, https://arxiv.org/abs/1905.12558 (how it differs from the Fisher matrix)
    """

    def product(params: PyTree, v: PyTree, *args: PyTree) -> PyTree:
        at, others = split(params)
        tangent, rest = tangent_of(at, v)
        check_like(tangent, at, what="a direction that", fix=_DIRECTION)

        def values(inexact: PyTree) -> Float[Array, " examples"]:
            return losses(eqx.combine(inexact, others), *args)

        each, pull = jax.vjp(values, at)
        if each.ndim != 1:
            raise fault(
                expected="a vector of losses, one for each example",
                got=f"shape {each.shape}",
                fix="Do not average them.",
            )
        slopes = jax.jvp(values, (at,), (tangent,))[1]
        (image,) = pull(slopes / each.shape[0])
        return eqx.combine(image, rest)

    return product
