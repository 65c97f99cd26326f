"""Forward products where forward mode is not defined: functions whose derivative is a rule of reverse mode alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import PyTree

from ._programs import holds

# What JAX writes in place of a derivative that it does not have; compiling it is an error.
_ABSENT = "custom_lin"


def forward(function: Callable[[PyTree], PyTree], at: PyTree, direction: PyTree) -> tuple[PyTree, PyTree] | None:
    """Value and derivative along a direction by forward mode, traced once.

    Args:
        function: of one tree of arrays.
        at: where.
        direction: shaped like ``at``.

    Returns:
        Both, or None where the function holds a `jax.custom_vjp`, which has no forward mode.
    """
    try:
        program, shapes = jax.make_jaxpr(lambda x, v: jax.jvp(function, (x,), (v,)), return_shape=True)(at, direction)
    except (TypeError, NotImplementedError) as error:
        if "custom_vjp" in str(error) or _ABSENT in str(error):
            return None
        raise
    # While a program is traced the derivative is only written down: that it is absent would be said on compiling.
    if holds(program.jaxpr, _ABSENT):
        return None
    flat = jaxpr_as_fun(program)(*jax.tree.leaves((at, direction)))
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)


def push_forward(function: Callable[[PyTree], PyTree], at: PyTree, direction: PyTree) -> tuple[PyTree, PyTree]:
    r"""The value of a function and its derivative along a direction, by reverse mode where forward mode is not defined.

    .. math:: J v = \left(\tfrac{\partial}{\partial w} J^{\top} w\right)^{\top} v

    The pull-back is linear in its covector, so that its own pull-back is the push-forward; a rule of `jax.custom_vjp`
    is used as it stands.

    Args:
        function: of one tree of arrays.
        at: where.
        direction: shaped like ``at``.

    Returns:
        Value, and derivative along ``direction``, shaped like it.

    Cost:
        One JVP; in reverse mode one VJP and one product with its transpose, about five forward passes.

    References:
        - Townsend, "A new trick for calculating Jacobian vector products", 2017,
          https://j-towns.github.io/2017/06/12/A-new-trick.html
    """
    pushed = forward(function, at, direction)
    if pushed is not None:
        return pushed
    value, pull = jax.vjp(function, at)
    _, push = jax.vjp(lambda covector: pull(covector)[0], jax.tree.map(jnp.zeros_like, value))
    return value, push(direction)[0]
