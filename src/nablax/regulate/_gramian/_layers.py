"""Per-example gradients of one parameter, or only their inner products, from a layer's input and its cotangent."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..._core import exact
from ._axes import Axis
from ._program import Node

Indices = Int[Array, " rows"] | None


@dataclasses.dataclass(frozen=True)
class Entry:
    """An operation that makes a batched value out of a shared one, with what went in and the losses' cotangent.

    Attributes:
        node: the operation.
        position: of the shared input.
        needs: batch axis of each input, or the mark of a shared one.
        axis: batch axis of the result.
        operands: the inputs' values.
        cotangent: derivative of loss i with respect to entry i of the result along ``axis``.
    """

    node: Node
    position: int
    needs: Sequence[Axis]
    axis: int
    operands: Sequence[Array]
    cotangent: Array

    def axis_of(self, position: int) -> int:
        """Batch axis of an input that is not shared."""
        axis = self.needs[position]
        assert isinstance(axis, int)
        return axis

    def pick(self, rows: Indices) -> tuple[list[Array], Array]:
        """Operands and cotangent of some examples."""
        if rows is None:
            return list(self.operands), self.cotangent
        picked = [
            jnp.take(value, rows, axis=need) if isinstance(need, int) else value
            for value, need in zip(self.operands, self.needs, strict=True)
        ]
        return picked, jnp.take(self.cotangent, rows, axis=self.axis)


@dataclasses.dataclass(frozen=True)
class Lift:
    """A shared value whose rows the losses read one each."""

    shape: tuple[int, ...]
    axis: int
    cotangent: Array


@dataclasses.dataclass(frozen=True)
class Dense:
    r"""A layer as products over positions: :math:`J_i = \sum_s d_{is} a_{is}^{\top}`, group by group."""

    inputs: Float[Array, "rows groups ins positions"]
    cotangents: Float[Array, "rows groups outs positions"]


def layout(entry: Entry) -> tuple | None:
    """How a matrix product or a convolution reads its shared operand: equal layouts may be summed as positions."""
    if entry.node.name == "dot_general":
        contract, batch = entry.node.eqn.params["dimension_numbers"]
        return ("dot", tuple(batch[entry.position]), tuple(contract[entry.position]))
    if entry.node.name == "conv_general_dilated" and entry.position == 1:
        parameters = entry.node.eqn.params
        return ("conv", tuple(parameters["dimension_numbers"].rhs_spec), parameters["feature_group_count"])
    return None


def sizes(entry: Entry) -> tuple[int, int, int, int]:
    """Positions, groups, inputs and outputs of a matrix product or a convolution, without computing anything."""
    weight, rows = entry.operands[entry.position].shape, entry.cotangent.shape[entry.axis]
    form = layout(entry)
    assert form is not None
    if form[0] == "dot":
        groups = math.prod(weight[a] for a in form[1])
        ins = math.prod(weight[a] for a in form[2])
    else:
        groups, ins = form[2], math.prod(weight[a] for a in form[1][1:])
    outs = math.prod(weight) // (groups * ins)
    return entry.cotangent.size // (rows * groups * outs), groups, ins, outs


def dense(entry: Entry, rows: Indices) -> Dense:
    """Write a matrix product or a convolution as products over positions."""
    return (_dense_dot if entry.node.name == "dot_general" else _dense_convolution)(entry, rows)


def _dense_dot(entry: Entry, rows: Indices) -> Dense:
    (operands, cotangent), mine, other = entry.pick(rows), entry.position, 1 - entry.position
    contract, batch = entry.node.eqn.params["dimension_numbers"]
    value, shape = operands[other], operands[mine].shape
    here = entry.axis_of(other)
    free = [a for a in range(value.ndim) if a not in (*contract[other], *batch[other])]
    positions = [a for a in free if a != here]
    _, groups, ins, outs = sizes(entry)
    inputs = value.transpose(here, *batch[other], *contract[other], *positions)
    inputs = inputs.reshape(inputs.shape[0], groups, ins, -1)
    # The result has the shared axes first, then what is free of the left operand, then of the right.
    count, mine_free = len(batch[0]), len(shape) - len(contract[mine]) - len(batch[mine])
    theirs = count + (mine_free if mine == 0 else 0)
    ours = count + (len(free) if mine == 1 else 0)
    order = [theirs + free.index(here), *range(count), *range(ours, ours + mine_free)]
    order += [theirs + free.index(a) for a in positions]
    return Dense(inputs, cotangent.transpose(order).reshape(inputs.shape[0], groups, outs, -1))


def _dense_convolution(entry: Entry, rows: Indices) -> Dense:
    (image, weight), cotangent = entry.pick(rows)
    p = entry.node.eqn.params
    spec = p["dimension_numbers"]
    image, cotangent = image.transpose(spec.lhs_spec), cotangent.transpose(spec.out_spec)
    kernel = [weight.shape[a] for a in spec.rhs_spec[2:]]
    edges = [(lo, hi, step - 1) for (lo, hi), step in zip(p["padding"], p["lhs_dilation"], strict=True)]
    image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), (0, 0, 0), *edges])
    # One strided slice for each element of the kernel: every patch that it meets.
    patches = []
    for place in range(math.prod(kernel)):
        offsets: list[int] = []
        rest = place
        for length, step in zip(reversed(kernel), reversed(p["rhs_dilation"]), strict=True):
            offsets.insert(0, rest % length * step)
            rest //= length
        ends = [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(offsets, cotangent.shape[2:], p["window_strides"], strict=True)
        ]
        patches.append(lax.slice(image, (0, 0, *offsets), (*image.shape[:2], *ends), (1, 1, *p["window_strides"])))
    count, groups = image.shape[0], p["feature_group_count"]
    stacked = jnp.stack(patches, axis=2).reshape(count, groups, -1, math.prod(cotangent.shape[2:]))
    outs = cotangent.reshape(count, groups, -1, stacked.shape[-1])
    return Dense(stacked, outs)


def gradients(entry: Entry | Lift, rows: Indices) -> Float[Array, "rows ..."]:
    """Gradient of each example's loss with respect to the shared input of one operation."""
    if isinstance(entry, Lift):
        moved = jnp.moveaxis(entry.cotangent, entry.axis, 0)
        places = jnp.arange(moved.shape[0]) if rows is None else rows
        full = jnp.zeros((len(places), *moved.shape), moved.dtype)
        full = full.at[jnp.arange(len(places)), places].set(moved[places])
        return jnp.moveaxis(full, 1, 1 + entry.axis)
    form = layout(entry)
    if form is None:
        return _any_gradients(entry, rows)
    parts, shape = dense(entry, rows), entry.operands[entry.position].shape
    outer = jnp.einsum("ngos,ngcs->ngoc", parts.cotangents, parts.inputs)
    if form[0] == "dot":
        free = [a for a in range(len(shape)) if a not in (*form[1], *form[2])]
        order = [*form[1], *free, *form[2]]
    else:
        order = list(form[1])
    outer = outer.reshape(-1, *(shape[a] for a in order))
    return outer.transpose(0, *(1 + order.index(a) for a in range(len(shape))))


def _any_gradients(entry: Entry, rows: Indices) -> Float[Array, "rows ..."]:
    """By differentiating the operation itself, an example at a time, the batch axis kept with length one."""
    operands, cotangent = entry.pick(rows)
    changed = {}
    if entry.node.name == "broadcast_in_dim":
        shape = list(entry.node.eqn.params["shape"])
        shape[entry.axis] = 1
        changed["shape"] = tuple(shape)
    batched = [k for k, need in enumerate(entry.needs) if isinstance(need, int)]

    def one(parts: list[Array], seed: Array) -> Array:
        values = list(operands)
        for k, part in zip(batched, parts, strict=True):
            values[k] = jnp.expand_dims(part, entry.axis_of(k))

        def operation(shared: Array) -> Array:
            values[entry.position] = shared
            return entry.node.bind(values, **changed)[0]

        return jax.vjp(operation, operands[entry.position])[1](jnp.expand_dims(seed, entry.axis))[0]

    axes = [entry.needs[k] for k in batched]
    return jax.vmap(one, in_axes=(axes, entry.axis))([operands[k] for k in batched], cotangent)


def single(values: Array) -> Array:
    """Single precision at least: inner products are not summed in less."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


@exact
def products(left: Float[Array, "m dim"], right: Float[Array, "n dim"]) -> Float[Array, "m n"]:
    """Inner products of rows."""
    return left @ right.T


def looked_up(entry: Entry) -> tuple[Int[Array, "rows positions"], Float[Array, "rows positions dim"]] | None:
    """Row numbers and cotangents of a look-up of whole rows; None for another kind of gather."""
    p, (table, places) = entry.node.eqn.params, entry.operands
    numbers, safe = p["dimension_numbers"], ("CLIP", "PROMISE_IN_BOUNDS")
    partial = [a for a in range(table.ndim) if p["slice_sizes"][a] != table.shape[a]]
    if entry.position or p["mode"].name not in safe or numbers.operand_batching_dims or len(partial) != 1:
        return None
    if p["slice_sizes"][partial[0]] != 1 or partial[0] not in numbers.start_index_map:
        return None
    here = entry.axis_of(1)
    row = jnp.moveaxis(places, here, 0)[..., numbers.start_index_map.index(partial[0])]
    row = jnp.clip(row, 0, table.shape[partial[0]] - 1)
    order = [entry.axis, *(a for a in range(entry.cotangent.ndim) if a not in (entry.axis, *numbers.offset_dims))]
    moved = entry.cotangent.transpose(*order, *numbers.offset_dims)
    return row.reshape(row.shape[0], -1), moved.reshape(row.shape[0], math.prod(row.shape[1:]), -1)


def inner_products(entries: Sequence[Entry | Lift]) -> tuple[Callable[[Indices], Array], int] | None:
    """Inner products of the examples' gradients without the gradients, where that is the cheaper way.

    Args:
        entries: all uses of one parameter.

    Returns:
        A function from row numbers to those rows of the Gramian, and how many numbers it keeps for each row; None
        where the gradients themselves are cheaper or the uses are of different kinds.
    """
    uses = [entry for entry in entries if isinstance(entry, Entry)]
    if len(uses) < len(entries):
        return None
    count = uses[0].cotangent.shape[uses[0].axis]
    if all(use.node.name == "gather" for use in uses):
        looks = [look for look in map(looked_up, uses) if look is not None]
        positions = sum(row.shape[1] for row, _ in looks)
        if len(looks) < len(uses) or positions**2 >= uses[0].operands[0].size:
            return None
        row = jnp.concatenate([row for row, _ in looks], axis=1)
        seeds = single(jnp.concatenate([seed for _, seed in looks], axis=1))

        @exact
        def same_rows(rows: Indices) -> Array:
            mine, seed = (row, seeds) if rows is None else (row[rows], seeds[rows])
            pairs = jnp.einsum("isd,jtd->isjt", seed, seeds)
            return jnp.sum(jnp.where(mine[:, :, None, None] == row[None, None], pairs, 0), axis=(1, 3))

        return same_rows, count * positions**2

    forms = {layout(use) for use in uses}
    if len(forms) > 1 or None in forms:
        return None
    positions = sum(sizes(use)[0] for use in uses)
    _, groups, ins, outs = sizes(uses[0])
    # Products of positions on one side; products of gradients, and making them, on the other.
    if count * positions**2 * (ins + outs) > ins * outs * (count + positions):
        return None
    parts = [dense(use, None) for use in uses]
    inputs = single(jnp.concatenate([part.inputs for part in parts], axis=3))
    cotangents = single(jnp.concatenate([part.cotangents for part in parts], axis=3))

    @exact
    def products_of_positions(rows: Indices) -> Array:
        mine = (inputs, cotangents) if rows is None else (inputs[rows], cotangents[rows])
        if positions == groups == 1:
            return (mine[0][:, 0, :, 0] @ inputs[:, 0, :, 0].T) * (mine[1][:, 0, :, 0] @ cotangents[:, 0, :, 0].T)
        left = jnp.einsum("igcs,jgct->gisjt", mine[0], inputs)
        right = jnp.einsum("igos,jgot->gisjt", mine[1], cotangents)
        return jnp.einsum("gisjt,gisjt->ij", left, right)

    return products_of_positions, 2 * count * positions**2 * groups
