"""A model as a list of blocks, and a value whose gradient takes another way: what feedback rules are made of."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..._core import Key, fault

LINEAR = (eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)
# Layers whose weights no error passes back through as through a matrix.
_OTHERS = (eqx.nn.LayerNorm, eqx.nn.GroupNorm, eqx.nn.RMSNorm, eqx.nn.PReLU, eqx.nn.Embedding)
Block = Callable[[Array, Key | None], Array]


def is_linear(node: Any) -> bool:
    """Whether a node of a model is a layer with a weight that errors pass back through."""
    return isinstance(node, LINEAR)


def linear_layers(model: PyTree) -> list[Any]:
    """The dense and convolutional layers of a model, in the order of its leaves.

    Raises:
        ValueError: there is none, or weights with two axes or more stand outside of such layers, through which errors
            would pass back unseen.
    """

    def stops(node: Any) -> bool:
        return is_linear(node) or isinstance(node, _OTHERS)

    found = []
    for path, node in jax.tree_util.tree_leaves_with_path(model, is_leaf=stops):
        if is_linear(node):
            found.append(node)
        elif not stops(node) and eqx.is_inexact_array(node) and node.ndim > 1:
            raise fault(
                expected="weights in layers of equinox.nn: Linear, Conv or ConvTranspose",
                got=f"an array {node.dtype}{list(node.shape)} at model{jax.tree_util.keystr(path)}",
                fix="Build this part of the model from such layers.",
            )
    if not found:
        raise fault(
            expected="a model with layers of equinox.nn: Linear, Conv or ConvTranspose",
            got=f"a {type(model).__name__} without any",
            fix="Pass an equinox.nn.MLP or an equinox.nn.Sequential, for one.",
        )
    return found


def blocks(model: Any) -> list[Block]:
    """A sequence as blocks ``block(h, key) -> h``: a dense or convolutional layer each, with what follows it.

    Raises:
        ValueError: the model is no `equinox.nn.Sequential` or `equinox.nn.MLP`, or holds a layer that has a state or
            weights of another kind; the first one is named.
    """
    if isinstance(model, eqx.nn.MLP) and not model.scan:
        return [functools.partial(_dense_block, model, number) for number in range(len(model.layers))]
    if not isinstance(model, eqx.nn.Sequential):
        scans = isinstance(model, eqx.nn.MLP)
        raise fault(
            expected="an equinox.nn.Sequential or an equinox.nn.MLP whose layers are apart",
            got="an MLP that scans over its layers" if scans else f"a {type(model).__name__}",
            fix="Make it with scan=False." if scans else "Put the layers in an equinox.nn.Sequential.",
        )
    layers = _flat(model)
    for number, layer in enumerate(layers):
        if isinstance(layer, eqx.nn.StatefulLayer) and layer.is_stateful():
            raise fault(
                expected="layers without a state",
                got=f"{type(layer).__name__}, layer {number}",
                fix="Take equinox.nn.LayerNorm or GroupNorm, for one.",
            )
        if not is_linear(layer) and not isinstance(layer, _OTHERS):
            _refuse_weights(layer, number)
    starts = [number for number, layer in enumerate(layers) if is_linear(layer)]
    if not starts:
        linear_layers(model)  # says so
    # What stands before the first of them belongs to it.
    bounds = [0, *starts[1:], len(layers)]
    total = len(layers)
    return [functools.partial(_sequence_block, layers, total, a, b) for a, b in zip(bounds, bounds[1:])]


def _refuse_weights(layer: Any, number: int) -> None:
    for leaf in jax.tree.leaves(layer):
        if eqx.is_inexact_array(leaf) and leaf.ndim > 1:
            raise fault(
                expected="layers Linear, Conv and ConvTranspose, norms, pools, dropouts and activations",
                got=f"{type(layer).__name__}, layer {number}, with weights {leaf.dtype}{list(leaf.shape)}",
                fix="Take it apart into such layers.",
            )


def _flat(model: eqx.nn.Sequential) -> list[Any]:
    nested = [_flat(layer) if isinstance(layer, eqx.nn.Sequential) else [layer] for layer in model.layers]
    return [layer for part in nested for layer in part]


def _dense_block(model: eqx.nn.MLP, number: int, h: Array, key: Key | None) -> Array:
    h = model.layers[number](h)
    if number + 1 < len(model.layers):
        phi = jax.tree.map(lambda leaf: leaf[number] if eqx.is_array(leaf) else leaf, model.activation)
    else:
        phi = model.final_activation
    # An activation with parameters has one of its own for each unit.
    return phi(h) if h.ndim == 0 else eqx.filter_vmap(lambda phi, unit: phi(unit))(phi, h)


def _sequence_block(layers: list[Any], total: int, first: int, end: int, h: Array, key: Key | None) -> Array:
    keys = [None] * total if key is None else list(jax.random.split(key, total))
    for layer, one in zip(layers[first:end], keys[first:end]):
        h = layer(h, key=one)
    return h


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def returning(way: Callable[..., Array], value: Array, operands: PyTree) -> Array:
    """The value as it is; its gradient reaches the operands as if it had been ``way(*operands)``, and itself too."""
    return value


def _forward(way: Callable[..., Array], value: Array, operands: PyTree) -> tuple[Array, PyTree]:
    return value, operands


def _backward(way: Callable[..., Array], operands: PyTree, gradient: Array) -> tuple[Array, PyTree]:
    return gradient, jax.vjp(lambda operands: way(*operands), operands)[1](gradient)[0]


returning.defvjp(_forward, _backward)
