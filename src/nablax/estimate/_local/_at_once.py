"""A layer with a loss of its own: its gradient is taken on the spot, and nothing is kept for later."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ..._core import check_callable, check_shape, divide, fault, norm

Layers = Sequence[Callable[..., Float[Array, "rows dim"]]]


def at_once(
    goal: Callable[..., tuple[Float[Array, ""], PyTree]], layer: Any, *operands: PyTree
) -> tuple[Float[Array, ""], PyTree]:
    """A layer's own loss and its output, of which a gradient taken later reaches this layer alone.

    That gradient is worked out with the value, so that between the two no activation is held, a gradient only.

    Args:
        goal: ``goal(layer, *operands) -> (value, output)``.
        layer: what is trained.
        operands: what is not, arrays: no gradient reaches them. What ``goal`` uses besides is no array of a trace.

    Returns:
        Value and output; no gradient passes through the output.
    """
    trained, others = eqx.partition(layer, eqx.is_inexact_array)
    held, rest = eqx.partition(others, eqx.is_array)

    def local(trained: PyTree, held: PyTree, operands: PyTree) -> tuple[Float[Array, ""], PyTree]:
        return goal(eqx.combine(trained, held, rest), *operands)

    value, output = _immediate(local, trained, *jax.lax.stop_gradient((held, operands)))
    return value, jax.lax.stop_gradient(output)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _immediate(
    local: Callable[..., tuple], trained: PyTree, held: PyTree, operands: PyTree
) -> tuple[Float[Array, ""], PyTree]:
    return local(trained, held, operands)


def _forward(local: Callable[..., tuple], trained: PyTree, held: PyTree, operands: PyTree) -> tuple[tuple, PyTree]:
    return jax.value_and_grad(local, has_aux=True)(trained, held, operands)


def _backward(local: Callable[..., tuple], grads: PyTree, cotangents: tuple) -> tuple[PyTree, None, None]:
    scale, _ = cotangents
    return jax.tree.map(lambda g: scale.astype(g.dtype) * g, grads), None, None


_immediate.defvjp(_forward, _backward)


def check_layers(layers: Layers, x: Array, *, trained: bool = True) -> None:
    """Refuse what is no list of layers, each with weights where they are to be trained, or inputs that are no rows.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(layers, list | tuple) or not layers:
        raise fault(expected="a list or tuple of layers", got=f"a {type(layers).__name__}", fix="Pass [layer, ...].")
    for number, layer in enumerate(layers):
        check_callable(layer, what=f"layer {number}", fix="Pass layer(h, *context) -> h.")
        if trained and not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(layer)):
            raise fault(
                expected=f"layer {number}, a tree with weights of its own",
                got=f"a {type(layer).__name__} without any",
                fix="Make it an equinox.Module, or jax.tree_util.Partial(function, weights).",
            )
    check_shape(x, (None, None), what="inputs", fix="Give a row for each example or node.")


def direction(h: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
    """Rows of length one, so that a layer does not see how long those of the layer below are."""
    return divide(h, norm(h, axis=1, keepdims=True))
