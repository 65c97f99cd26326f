"""Spikes: a step forwards, a bump backwards."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_floats, check_rate, fault

Surrogate = Literal["sigmoid", "fast sigmoid", "arctangent", "triangle"]


def _bump(x: Array, kind: str, slope: float) -> Array:
    size = slope * jnp.abs(x)
    if kind == "sigmoid":
        return slope * jax.nn.sigmoid(size) * jax.nn.sigmoid(-size)
    if kind == "fast sigmoid":
        return 1 / jnp.square(1 + size)
    if kind == "arctangent":
        return 0.5 * slope / (1 + jnp.square(0.5 * jnp.pi * size))
    return slope * jnp.maximum(1 - size, 0)


def spike(x: Float[Array, "..."], *, surrogate: Surrogate = "arctangent", slope: float = 2.0) -> Float[Array, "..."]:
    r"""Heaviside's step of a membrane's excess, with a bump for its derivative.

    .. math:: h = 1[x>0],\qquad \frac{\partial h}{\partial x} := b(x)

    with, for slope s, :math:`b = s\,\sigma(sx)\,\sigma(-sx)` (sigmoid), :math:`(1+s|x|)^{-2}` (fast sigmoid),
    :math:`\tfrac s2\big/\big(1+(\tfrac{\pi}{2}sx)^2\big)` (arctangent), or :math:`s\max(0,1-s|x|)` (triangle). All but
    the fast sigmoid, whose integral is 2/s, integrate to 1, as the step's derivative does.

    Args:
        x: membrane potential less threshold, any shape.
        surrogate: the bump.
        slope: s > 0, in units of one over x. Default 2, which with the arctangent is the usual choice.

    Returns:
        Zeros and ones in the shape and dtype of ``x``; the derivative is finite for every float.

    Raises:
        ValueError: ``x`` is no array of floats, or an argument makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> jax.value_and_grad(lambda x: estimate.spike(x, slope=2.0))(jnp.array(0.0))[1].tolist()
        1.0

    Cost: a few operations an entry.

    References:
        - Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural Networks", 2019,
          https://arxiv.org/abs/1901.09948 (the forms as in snnTorch)
    """
    check_floats(x, what="x", fix="Pass an array of floats.")
    if surrogate not in ("sigmoid", "fast sigmoid", "arctangent", "triangle"):
        raise fault(
            expected="a surrogate among sigmoid, fast sigmoid, arctangent, triangle",
            got=repr(surrogate),
            fix="Choose one of these names.",
        )
    check_rate(slope, what="slope")
    held = jax.lax.stop_gradient(x)
    through = jnp.where(jnp.isfinite(held), x, 0)
    bump = _bump(held, surrogate, slope).astype(x.dtype)
    return (held > 0).astype(x.dtype) + bump * (through - jax.lax.stop_gradient(through))


__all__ = ["Surrogate", "spike"]
