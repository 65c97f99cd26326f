"""Reverse derivatives of circuits of bits, over the field of two elements."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._core import check_callable, check_shape, fault
from ._lens import Lens


def boolean_lens(function: Callable[[Bool[Array, " inputs"]], Bool[Array, " outputs"]]) -> Lens:
    r"""The lens of a boolean circuit: forwards itself, backwards :math:`J(x)^{\top}y'` modulo 2.

    Each function of bits is one polynomial over the two-element field in which no variable stands twice in a product,
    and its partial derivative is a difference:

    .. math:: \partial_if(x) = f(x_{i\to1}) \oplus f(x_{i\to0})

    that is, whether bit i matters at x. To put a change of the outputs back is to ask which input bits flip an odd
    number of those outputs.

    Args:
        function: of a vector of bits, by `jax.numpy`: ``x[0] & x[1]``, ``x[0] ^ x[1]``.

    Returns:
        The lens; on linear circuits (of ``^`` alone) the composite of lenses is the lens of the composite. With ``&``
        the chain rule holds for polynomials but not for bits, where one flip may change two bits of the middle.

    Raises:
        ValueError: it is no function; when called: no vector of booleans.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> conjunction = estimate.boolean_lens(lambda x: (x[0] & x[1])[None])
        >>> conjunction.put(jnp.array([True, False]), jnp.array([True])).tolist()  # only the second bit matters
        [False, True]

    Cost: to put, two evaluations for each input bit, side by side.

    References:
        - Wilson and Zanasi, "Reverse Derivative Ascent: A Categorical Approach to Learning Boolean Circuits", 2020,
          https://arxiv.org/abs/2101.10488
    """
    check_callable(function, what="function", fix="Pass a function of a vector of bits.")

    def get(x: Bool[Array, " inputs"]) -> Bool[Array, " outputs"]:
        return function(_bits(x))

    def put(x: Bool[Array, " inputs"], change: Bool[Array, " outputs"]) -> Bool[Array, " inputs"]:
        x = _bits(x)

        def matters(place: Array) -> Array:
            return function(x.at[place].set(True)) ^ function(x.at[place].set(False))

        jacobian = jax.vmap(matters)(jnp.arange(len(x)))
        return jnp.sum(jacobian & change[None], axis=1) % 2 == 1

    return Lens(get, put)


def _bits(x: Array) -> Array:
    x = check_shape(x, (None,), what="bits", fix="Pass a vector of booleans.")
    if x.dtype != jnp.bool_:
        raise fault(expected="a vector of booleans", got=f"one of {x.dtype}", fix="Compare it with zero: x != 0.")
    return x


__all__ = ["boolean_lens"]
