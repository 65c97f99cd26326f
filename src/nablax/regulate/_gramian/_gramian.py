"""Inner products of all pairs of losses' gradients, without the gradients where their layers allow it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array, Float, Int, PyTree

from ..._core import canonical_convolutions, fault
from ._axes import Propagation, propagate
from ._layers import (
    Entry,
    Indices,
    Lift,
    gradients,
    inner_products,
    layout,
    products,
    single,
    sizes,
)
from ._program import Node, Program, flatten

# Operations that only rearrange a parameter: inner products of gradients stay what they are.
_REARRANGES = {"transpose", "reshape", "squeeze", "copy", "broadcast_in_dim", "convert_element_type"}


def gramian(
    losses: Callable[..., Float[Array, " n"]], params: PyTree, *args: Any, memory: int = 2**28
) -> Float[Array, "n n"]:
    r"""Gramian of the Jacobian of several losses, :math:`JJ^{\top}`, the Jacobian not formed where it need not be.

    .. math::
        G_{ij} = \langle\nabla\ell_i,\nabla\ell_j\rangle
        = \sum_{\text{dense layers}}\Big(\sum_{s,t}\langle a_{is},a_{jt}\rangle\langle d_{is},d_{jt}\rangle\Big)
        + \sum_{\text{others}}\langle J_i, J_j\rangle

    The losses are traced once. Where loss i is seen to use entry i of an intermediate value and no other (as with
    ``jax.vmap`` over examples), one backward pass gives every layer's cotangent d for all losses at once. Matrix
    products, convolutions and look-ups then need only d and the layer's input a: inner products over pairs of
    positions s, t, or gradients of that one parameter where these are the cheaper. Biases, scales and other
    elementwise uses give small gradients directly. A parameter that is used several times gets its cross terms: uses
    of one kind are further positions, uses of different kinds are added as gradients.

    Whatever is not understood (loops such as ``jax.lax.scan``, custom reverse rules, losses that mix examples) is
    differentiated once per loss, through everything that leads to it. The answer is exact either way; only time and
    memory differ. Compile it: ``jax.jit(lambda params, *args: gramian(losses, params, *args))``.

    Args:
        losses: ``losses(params, *args) -> [n]``, for instance ``jax.vmap(loss, in_axes=(None, 0, 0))``.
        params: floating-point arrays in any tree; other leaves are left alone.
        *args: passed on.
        memory: bytes that per-loss gradients and products of positions may take at a time, 2²⁸ by default. A smaller
            bound costs time, not accuracy. At least one loss's gradient and the activations are always held.

    Returns:
        Symmetric, positive semidefinite to rounding, in the losses' dtype, single precision at least.

    Raises:
        ValueError: ``losses`` does not return one real vector; no floating-point parameter; a complex parameter.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.regulate import gramian
        >>> losses = jax.vmap(lambda w, x: jnp.sum(jnp.square(w @ x)) / 2, in_axes=(None, 0))
        >>> gramian(losses, jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])).tolist()
        [[1.0, 1.0], [1.0, 4.0]]

    Cost:
        One forward pass and one VJP of all losses, and for a dense layer with S positions, m inputs and k outputs the
        cheaper of n²S²(m + k) and n(n + S)mk operations. What is not understood costs n VJPs.

    References:
        - Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
          https://arxiv.org/abs/2406.16232 (section 6: descent by the Gramian alone)
        - Goodfellow, "Efficient Per-Example Gradient Computations", 2015, https://arxiv.org/abs/1510.01799 (norms
          from a layer's input and cotangent; pairs, positions, sharing and the trace's analysis are derived here)
    """
    # Of an array without entries there is no gradient, and no size to divide by.
    trained, fixed = eqx.partition(params, lambda leaf: eqx.is_inexact_array(leaf) and leaf.size > 0)
    leaves, tree = jax.tree.flatten(trained)
    if not leaves or any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise fault(
            expected="real floating-point parameters",
            got="none" if not leaves else "a complex one",
            fix="Split complex parameters into real and imaginary parts.",
        )

    def flat(*leaves: Array) -> Array:
        return losses(eqx.combine(jax.tree.unflatten(tree, leaves), fixed), *args)

    closed = jax.make_jaxpr(flat)(*leaves)
    shape = [(aval.shape, aval.dtype) for aval in closed.out_avals]
    if len(shape) != 1 or len(shape[0][0]) != 1 or not jnp.issubdtype(shape[0][1], jnp.floating):
        raise fault(
            expected="one real vector of losses",
            got=", ".join(f"{dtype}{list(dims)}" for dims, dtype in shape) or "nothing",
            fix="Return losses(params, *args) with shape [n]: jax.vmap the loss of one example.",
        )
    ((count,), dtype) = shape[0]
    program = flatten(closed)
    (output,) = program.outputs
    result = jnp.zeros((count, count), jnp.promote_types(dtype, jnp.float32))
    if isinstance(output, Literal) or output not in program.dependents(program.inputs):
        return result
    propagation = propagate(program, program.inputs, {output: 0}, count)
    uses = _uses(program, propagation, leaves, output)
    for sources, shared in _components(program, uses):
        result = result + _gram(program, leaves, sources, shared, uses, count, memory).astype(result.dtype)
    return result


def _run(program: Program, leaves: list[Array]) -> dict[Any, Array]:
    return {**program.constants, **dict(zip(program.inputs, leaves, strict=True))}


def _do(node: Node, values: dict[Any, Array], needs: Any = None) -> list[Array]:
    """Do one operation; inputs that it takes row by row come with their lift, where there is one."""

    def read(k: int, atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        return values.get((atom, needs[k]), values[atom]) if needs else values[atom]

    return node.bind([read(k, atom) for k, atom in enumerate(node.inputs)])


def _uses(
    program: Program, propagation: Propagation, leaves: list[Array], output: int
) -> dict[int, list[Entry | Lift]]:
    """Every place where a shared value becomes batched, by the shared value, after one forward and backward pass."""
    lifts = propagation.lifts()
    tapped = {program.nodes[place].outputs[0] for place, _, _ in propagation.entries}
    # Zeros added where derivatives are wanted: to results of entries (no axis), and to what is read row by row.
    keys = [*lifts, *((atom, -1) for atom in tapped)]
    taps = {key: jnp.zeros(program.shape(key[0]), program.avals[key[0]].dtype) for key in keys}
    asked = {place for place, _, _ in propagation.entries}

    def total(taps: dict[tuple[int, int], Array]) -> tuple[Array, dict[int, list[Array]]]:
        values, operands = _run(program, leaves), {}

        def lift(atom: int) -> None:
            values.update({key: values[atom] + taps[key] for key in lifts if key[0] == atom})

        for atom in program.inputs:
            lift(atom)
        for place, node in enumerate(program.nodes):
            needs = propagation.needs.get(place)
            results = _do(node, values, needs)
            for atom, value in zip(node.outputs, results, strict=True):
                values[atom] = value + taps[atom, -1] if atom in tapped else value
                lift(atom)
            if place in asked:
                assert needs is not None
                operands[place] = [
                    jnp.asarray(atom.val) if isinstance(atom, Literal) else values.get((atom, need), values[atom])
                    for atom, need in zip(node.inputs, needs, strict=True)
                ]
        # The losses themselves are read row by row when nothing before them could be.
        return jnp.sum(values.get((output, 0), values[output])), operands

    # The barrier keeps the backward pass from being done again for every parameter.
    cotangents, operands = jax.lax.optimization_barrier(jax.grad(total, has_aux=True)(taps))
    uses: dict[int, list[Entry | Lift]] = {}
    for atom, axis in lifts:
        uses.setdefault(atom, []).append(Lift(program.shape(atom), axis, cotangents[atom, axis]))
    for place, position, axis in propagation.entries:
        node = program.nodes[place]
        held = node.inputs[position]
        assert isinstance(held, int)
        entry = Entry(node, position, propagation.needs[place], axis, operands[place], cotangents[node.outputs[0], -1])
        uses.setdefault(held, []).append(entry)
    return uses


def _components(program: Program, uses: dict[int, list]) -> list[tuple[list[int], list[int]]]:
    """Parameters and the shared values made of them, in sets that have nothing to do with one another."""
    reach = {source: program.dependents([source]) for source in program.inputs}
    parts: list[tuple[set[int], set[int]]] = []
    for source in program.inputs:
        sources, shared = {source}, {atom for atom in uses if atom in reach[source]}
        if not shared:
            continue
        apart = []
        for others, theirs in parts:
            if theirs & shared:
                sources, shared = sources | others, shared | theirs
            else:
                apart.append((others, theirs))
        parts = [*apart, (sources, shared)]
    return [(sorted(sources), sorted(shared)) for sources, shared in parts]


def _gram(
    program: Program,
    leaves: list[Array],
    sources: list[int],
    shared: list[int],
    uses: dict[int, list[Entry | Lift]],
    count: int,
    memory: int,
) -> Array:
    nodes = _leading_to(program, shared)
    alone = len(sources) == len(shared) == 1 and all(_rearranges(program, node) for node in nodes)
    bytes_each = jnp.result_type(*leaves).itemsize
    if alone and (direct := inner_products(uses[shared[0]])) is not None:
        function, numbers = direct
        rows = max(1, memory // (numbers * bytes_each))
        if rows >= count:
            return function(None)
        return jax.lax.map(canonical_convolutions(function), _blocks(count, rows)).reshape(-1, count)[:count]

    def shared_values(*parameters: Array) -> list[Array]:
        values = _run(program, leaves) | dict(zip(sources, parameters, strict=True))
        for node in nodes:
            values.update(zip(node.outputs, _do(node, values), strict=True))
        return [values[atom] for atom in shared]

    pull: Callable[..., Any] | None = None
    if not alone:
        places = [program.inputs.index(source) for source in sources]
        pull = jax.vjp(shared_values, *(leaves[place] for place in places))[1]

    def jacobian(rows: Indices) -> Float[Array, "rows parameters"]:
        parts = [functools.reduce(jnp.add, [gradients(use, rows) for use in uses[atom]]) for atom in shared]
        if pull is not None:
            seeds = [part.astype(program.avals[atom].dtype) for part, atom in zip(parts, shared, strict=True)]
            parts = list(jax.vmap(pull)(seeds))
        return jnp.concatenate([single(part.reshape(part.shape[0], -1)) for part in parts], axis=1)

    numbers = sum(math.prod(program.shape(atom)) for atom in (*sources, *shared))
    numbers += sum(_operand_numbers(use) for atom in shared for use in uses[atom])
    rows = max(1, memory // (2 * numbers * bytes_each))
    if rows >= count:
        full = jacobian(None)
        return products(full, full)
    blocks = _blocks(count, rows)

    @canonical_convolutions
    def against_all(mine: Array) -> Array:
        left = jacobian(mine)
        return jax.lax.map(lambda theirs: products(jacobian(theirs), left), blocks).reshape(-1, rows)[:count].T

    return jax.lax.map(against_all, blocks).reshape(-1, count)[:count]


def _leading_to(program: Program, shared: list[int]) -> list[Node]:
    wanted, nodes = set(shared), []
    for node in reversed(program.nodes):
        if wanted.intersection(node.outputs):
            nodes.append(node)
            wanted.update(atom for atom in node.inputs if isinstance(atom, int))
    return nodes[::-1]


def _rearranges(program: Program, node: Node) -> bool:
    size = math.prod(program.shape(node.outputs[0]))
    return node.name in _REARRANGES and math.prod(program.shape(node.inputs[0])) == size


def _operand_numbers(use: Entry | Lift) -> int:
    """Numbers that the gradient of one loss needs beside itself."""
    if isinstance(use, Lift) or layout(use) is None:
        return math.prod(use.cotangent.shape) // use.cotangent.shape[use.axis]
    positions, groups, ins, outs = sizes(use)
    return positions * groups * (ins + outs)


def _blocks(count: int, rows: int) -> Int[Array, "blocks rows"]:
    """Row numbers in blocks of equal length; the last one repeats the last row, and is cut by the caller."""
    length = -(-count // rows) * rows
    return jnp.minimum(jnp.arange(length), count - 1).reshape(-1, rows)
