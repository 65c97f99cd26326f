"""The Laplacian of a scalar function, in forward mode."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import check_floats, fault
from ._linear import chunked_map


def laplacian(function: Callable[..., Float[Array, ""]]) -> Callable[..., Float[Array, ""]]:
    r"""Take the Laplacian of a scalar function of any pytree.

    .. math:: \Delta f = \sum_i \partial^2 f / \partial y_i^2
              = \sum_i \left.\tfrac{d^2}{ds^2}\right|_{s=0} f(y + s\,e_i)

    Args:
        function: ``function(y, *args) -> scalar``.

    Returns:
        ``operator(y, *args) -> scalar``, in units of the function over units of ``y`` squared.

    Raises:
        ValueError: the function's value is not a scalar; ``y`` is not floating-point.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import laplacian
        >>> float(laplacian(lambda y: jnp.sum(y**2))(jnp.ones(3)))
        6.0

    Cost:
        D second directional derivatives, each a JVP of a JVP (about four forward passes), 64 at a time, so
        memory does not grow with D. No activations are stored.

    References:
        - Griewank and Walther, "Evaluating Derivatives", 2008, https://doi.org/10.1137/1.9780898717761
          (second directional derivatives by forward over forward)
    """

    def operator(y: PyTree, *args: PyTree) -> Float[Array, ""]:
        check_floats(jax.tree.map(jnp.asarray, y), what="a point", fix="Convert y to a float dtype.")
        shape = jax.eval_shape(function, y, *args)
        if getattr(shape, "shape", None) != ():
            raise fault(
                expected="a function with a scalar value",
                got=str(shape),
                fix="Take one component, or squeeze a trailing axis of one.",
            )
        flat, unravel = ravel_pytree(y)

        def second_derivative(index: Array) -> Float[Array, ""]:
            direction = unravel(jax.nn.one_hot(index, flat.size, dtype=flat.dtype))

            def slope(z: PyTree) -> Float[Array, ""]:
                return jax.jvp(lambda x: function(x, *args), (z,), (direction,))[1]

            return jax.jvp(slope, (y,), (direction,))[1]

        return jnp.sum(chunked_map(second_derivative, jnp.arange(flat.size)))

    return operator
