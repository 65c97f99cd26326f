"""Lenses: a map and what it sends back, composed as maps are."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._core import check_callable, check_instance


class Lens(eqx.Module):
    r"""A map forwards, and a map backwards that may look at the input.

    .. math:: \mathrm{get}: A\to B,\qquad \mathrm{put}: A\times B'\to A'

    ``f >> g`` is first f, then g:

    .. math:: \mathrm{put}(a, c') = \mathrm{put}_f(a, \mathrm{put}_g(\mathrm{get}_f a, c'))

    which is the chain rule when ``put`` is a product with the transposed Jacobian. ``f @ g`` is both side by side, on
    pairs. A parametrised lens is one on pairs ``(parameters, input)``.

    Args:
        get: ``get(a) -> b``.
        put: ``put(a, change_of_b) -> change_of_a``.

    Raises:
        ValueError: one of them is no function.

    Example:
        >>> from nablax.estimate import Lens
        >>> double = Lens(lambda a: 2 * a, lambda a, b: 2 * b)
        >>> square = Lens(lambda a: a * a, lambda a, b: 2 * a * b)
        >>> (double >> square).get(3.0), (double >> square).put(3.0, 1.0)  # 4a², 8a
        (36.0, 24.0)

    Cost: of ``f >> g``, to put: one get of f, which `jax.jit` shares with the get before it.

    References:
        - Cruttwell, Gavranović, Ghani, Wilson and Zanasi, "Categorical Foundations of Gradient-Based Learning", 2021,
          https://arxiv.org/abs/2103.01931
    """

    get: Callable[[PyTree], PyTree]
    put: Callable[[PyTree, PyTree], PyTree]

    def __check_init__(self) -> None:
        check_callable(self.get, what="get", fix="Pass get(a) -> b.")
        check_callable(self.put, what="put", fix="Pass put(a, change_of_b) -> change_of_a.")

    def __rshift__(self, after: "Lens") -> "Lens":
        """This lens, then the other."""
        check_instance(
            after, Lens, what="what follows a lens", fix="Compose lenses with lenses; see estimate.reverse_lens."
        )
        return Lens(lambda a: after.get(self.get(a)), lambda a, change: self.put(a, after.put(self.get(a), change)))

    def __matmul__(self, beside: "Lens") -> "Lens":
        """This lens on the first of a pair, the other on the second."""
        check_instance(beside, Lens, what="what stands beside a lens", fix="Put lenses beside lenses.")
        return Lens(
            lambda pair: (self.get(pair[0]), beside.get(pair[1])),
            lambda pair, change: (self.put(pair[0], change[0]), beside.put(pair[1], change[1])),
        )


def identity_lens() -> Lens:
    """The lens that changes nothing, in either direction.

    Returns:
        The neutral element of ``>>``.

    Example:
        >>> from nablax import estimate
        >>> estimate.identity_lens().put(1.0, 5.0)
        5.0

    Cost: none.
    """
    return Lens(lambda a: a, lambda a, change: change)


def reverse_lens(function: Callable[[PyTree], PyTree]) -> Lens:
    r"""The lens of a differentiable map: forwards itself, backwards :math:`J(a)^{\top}b'`.

    Args:
        function: of one tree of floats.

    Returns:
        The lens; ``reverse_lens(f) >> reverse_lens(g)`` is that of their composition.

    Raises:
        ValueError: it is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> lens = estimate.reverse_lens(jnp.sin) >> estimate.reverse_lens(jnp.exp)
        >>> round(float(lens.put(jnp.array(0.0), jnp.array(1.0))), 4)  # cos 0 · exp(sin 0)
        1.0

    Cost: to put, one forward and one backward pass.

    References:
        - Cruttwell et al. (2021), https://arxiv.org/abs/2103.01931
    """
    check_callable(function, what="function", fix="Pass a function of one tree of arrays.")

    def put(a: PyTree, change: PyTree) -> Any:
        return jax.vjp(function, a)[1](change)[0]

    return Lens(function, put)


__all__ = ["Lens", "identity_lens", "reverse_lens"]
