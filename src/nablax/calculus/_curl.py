"""The curl of a field in the plane and in space."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import Field, fault
from ._linear import linearise


def curl(field: Field) -> Callable[..., PyTree]:
    r"""Take the curl of a field of two or three coordinates.

    .. math:: \operatorname{curl} v = \partial_1 v_2 - \partial_2 v_1
              \quad\text{or}\quad
              (\partial_2 v_3 - \partial_3 v_2,\; \partial_3 v_1 - \partial_1 v_3,\; \partial_1 v_2 - \partial_2 v_1)

    It is zero for a gradient, and twice the angular velocity for a rigid rotation, positive anticlockwise.

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree of two or three numbers).

    Returns:
        ``operator(t, y, args=None)``: a scalar for two coordinates, shaped like ``y`` for three; units of the
        field over units of ``y``.

    Raises:
        ValueError: ``y`` has neither two nor three coordinates, the field's value is not shaped like it, or
            it is not floating-point.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import curl
        >>> rotation = lambda t, y, args: jnp.array([-y[1], y[0]])
        >>> float(curl(rotation)(0.0, jnp.ones(2)))
        2.0

    Cost:
        One forward pass and two or three JVPs; no VJP.

    References:
        - Arfken, Weber and Harris, "Mathematical Methods for Physicists", 2013,
          https://doi.org/10.1016/C2009-0-30629-7
    """

    def operator(t: Float[Array, ""], y: PyTree, args: PyTree = None) -> PyTree:
        flat, unravel = ravel_pytree(y)
        if flat.size not in (2, 3):
            raise fault(
                expected="two or three coordinates",
                got=str(flat.size),
                fix="In other dimensions ask for the antisymmetric part of the Jacobian: calculus.antisymmetry.",
            )
        _, push = linearise(field, t, y, args)
        # Row i holds the derivatives along coordinate i.
        slopes = jax.vmap(lambda direction: ravel_pytree(push(unravel(direction)))[0])(
            jnp.eye(flat.size, dtype=flat.dtype)
        )
        twist = slopes - slopes.T
        if flat.size == 2:
            return twist[0, 1]
        return unravel(jnp.stack([twist[1, 2], twist[2, 0], twist[0, 1]]))

    return operator
