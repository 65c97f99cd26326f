"""The sign with the derivative of a power function: from the identity's towards the sign's own as training goes on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_floats

WIDTH = 1.5  # the authors'
CENTRE = 0.1  # around zero, where the power's own slope is infinite


def rectified_straight_through(x: Float[Array, "..."], order: float | Float[Array, ""] = 1.0) -> Float[Array, "..."]:
    r"""The sign, with the derivative of :math:`f_o(x)=\operatorname{sign}(x)\,|x|^{1/o}` in its place.

    .. math::
        \frac{\partial}{\partial x} := \begin{cases}
        f_o(0.1)/0.1 & |x|\le 0.1\\ \tfrac1o |x|^{(1-o)/o} & 0.1<|x|\le 1.5\\ 0 & |x|>1.5\end{cases}

    At order 1 this is the straight-through estimator of width 1.5; as o grows :math:`f_o` tends to the sign, the error
    of the estimate falls and the variance of the updates rises. At ±0.1 the derivative jumps by the factor o, as the
    authors have it.

    Args:
        x: any shape.
        order: o ≥ 1, 1 by default; `rectified_order` gives the authors' ramp.

    Returns:
        −1, 0 or 1 in the shape and dtype of ``x``; a binary layer multiplies it by mean |x| over the whole weight.

    Raises:
        ValueError: ``x`` is no array of floats.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> slope = jax.grad(lambda x: jnp.sum(estimate.rectified_straight_through(x, 2.0)))
        >>> [round(float(one), 3) for one in slope(jnp.array([0.04, 0.25, 2.0]))]
        [3.162, 1.0, 0.0]

    Cost: one power an entry.

    References:
        - Wu, Zheng, Liu and Zheng, "Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator
          for Binary Neural Networks Training", 2023, https://arxiv.org/abs/2308.06689, and its code (widths, ramp)
    """
    check_floats(x, what="x", fix="Pass an array of floats.")
    size, power = jnp.abs(jax.lax.stop_gradient(x)), 1 / jnp.asarray(order, x.dtype)
    outer = power * jnp.maximum(size, CENTRE) ** (power - 1)
    slope = jnp.where(size <= CENTRE, CENTRE**power / CENTRE, jnp.where(size <= WIDTH, outer, 0))
    # A product with what is zero: also where an infinite x would make it NaN.
    through = jnp.where(size <= WIDTH, x, 0)
    return jnp.sign(jax.lax.stop_gradient(x)) + slope * (through - jax.lax.stop_gradient(through))


def rectified_order(share: float | Float[Array, ""], *, end: float = 3.0) -> Float[Array, ""]:
    r"""The order's ramp :math:`1+(1-\cos\tfrac{\pi r}{2})(o_{\rm end}-1)` over training.

    Args:
        share: r, of training that has passed, from 0 to 1.
        end: the last order, 3 by default, the authors'.

    Returns:
        The order, from 1 to ``end``.

    Example:
        >>> from nablax import estimate
        >>> [round(float(estimate.rectified_order(r)), 3) for r in (0.0, 0.5, 1.0)]
        [1.0, 1.586, 3.0]

    Cost: none.

    References:
        - Wu et al. (2023), https://arxiv.org/abs/2308.06689
    """
    return 1 + (1 - jnp.cos(0.5 * jnp.pi * jnp.asarray(share))) * (end - 1)


__all__ = ["rectified_order", "rectified_straight_through"]
