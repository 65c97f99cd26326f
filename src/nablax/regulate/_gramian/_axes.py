"""Where each example lives inside a traced batch of losses, and where a parameter first meets it.

A batch of losses is traced once. From the losses backwards every intermediate value gets either a *batch axis*, along
which loss i reads entry i and nothing else, or the mark `SHARED`: any loss may read all of it. Parameters are shared.
An *entry* is an operation that makes a batched value out of a shared one that depends on the parameters: a matrix
product, a convolution, a look-up, a bias. An operation that is not understood makes its results shared, which costs
time and is never wrong.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ._program import Node, Program, flatten

SHARED = "shared"
Axis = int | str

_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow real
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
_REDUCTIONS = {"argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"}
_ALONG_ONE = {"cumlogsumexp": "axis", "cummax": "axis", "cummin": "axis", "cumprod": "axis", "cumsum": "axis"}
_ALONG_ONE |= {"concatenate": "dimension", "sort": "dimension", "split": "axis"}
_WINDOWS = {"reduce_window_max", "reduce_window_min", "reduce_window_sum"}
# Operations with a rule for the gradient of a shared operand.
ENTRIES = {"dot_general", "conv_general_dilated", "gather", "broadcast_in_dim"} | ELEMENTWISE


@dataclasses.dataclass
class Propagation:
    """What `propagate` finds.

    Attributes:
        demands: of each value that depends on the parameters, the batch axes that its readers want, or `SHARED`.
        needs: of each understood operation, by its place, the batch axis of each input, or `SHARED`.
        entries: (place of the operation, position of the shared input, batch axis of the result).
    """

    demands: dict[int, set[Axis]]
    needs: dict[int, list[Axis]]
    entries: list[tuple[int, int, int]]

    def lifts(self) -> list[tuple[int, int]]:
        """Shared values that some reader takes row by row, with the axis of the rows."""
        return [
            (atom, axis)
            for atom, wanted in self.demands.items()
            if SHARED in wanted
            for axis in wanted
            if isinstance(axis, int)
        ]


def propagate(
    program: Program, sources: Sequence[int], axes: dict[int, int], size: int, *, shared: bool = True
) -> Propagation:
    """Carry the batch axis from the results back to the sources, which are shared if they are parameters."""
    dependent = program.dependents(sources)
    propagation = Propagation({source: {SHARED} for source in sources if shared}, {}, [])
    for output, axis in axes.items():
        propagation.demands.setdefault(output, set()).add(axis)
    for place in reversed(range(len(program.nodes))):
        node = program.nodes[place]
        live = [o for o in node.outputs if o in dependent and propagation.demands.get(o)]
        if not live:
            continue
        wanted: list[Any] = [next(iter(propagation.demands[o])) if o in live else None for o in node.outputs]
        single = all(len(propagation.demands[o]) == 1 for o in live) and SHARED not in wanted
        needs = _needs(program, node, wanted, size) if single else None
        held = {k: atom for k, atom in enumerate(node.inputs) if isinstance(atom, int) and atom in dependent}
        whole = [] if needs is None else [k for k in held if needs[k] == SHARED]
        if needs is None or (whole and (node.name not in ENTRIES or len(node.outputs) > 1)):
            for output in live:
                propagation.demands[output].add(SHARED)
            needs = [SHARED] * len(node.inputs)
        else:
            propagation.needs[place] = needs
            propagation.entries += [(place, k, wanted[0]) for k in whole]
        for k, atom in held.items():
            propagation.demands.setdefault(atom, set()).add(needs[k])
    return propagation


def _needs(program: Program, node: Node, wanted: list[Any], size: int) -> list[Axis] | None:
    """Batch axis of each input, given that of each result (None: not read); None when it cannot be told."""
    axes = {axis for axis in wanted if axis is not None}
    parameters, shapes = node.eqn.params, [program.shape(atom) for atom in node.inputs]
    if node.name == "custom_jvp_call":
        inner = flatten(parameters["call_jaxpr"])
        ends = {
            atom: axis
            for atom, axis in zip(inner.outputs, wanted, strict=True)
            if axis is not None and isinstance(atom, int)
        }
        propagation = propagate(inner, inner.inputs, ends, size, shared=False)
        if propagation.entries or any(len(found) > 1 or SHARED in found for found in propagation.demands.values()):
            return None
        return [next(iter(propagation.demands.get(atom, {SHARED}))) for atom in inner.inputs]
    if len(axes) != 1:
        return None
    (axis,) = axes
    if node.name in ELEMENTWISE:
        return [axis if len(shape) > axis and shape[axis] == size else SHARED for shape in shapes]
    if node.name in _REDUCTIONS:
        return [[a for a in range(len(shapes[0])) if a not in parameters["axes"]][axis]]
    if node.name in _ALONG_ONE:
        return None if parameters[_ALONG_ONE[node.name]] == axis else [axis] * len(shapes)
    if node.name in _WINDOWS:
        spread = parameters["window_dimensions"][axis] * parameters["window_strides"][axis]
        return [axis] if spread == 1 and parameters["padding"][axis] == (0, 0) else None
    return _STRUCTURE[node.name](parameters, shapes, axis, size) if node.name in _STRUCTURE else None


def _transpose(p: dict, shapes: list, axis: int, size: int) -> list[Axis]:
    return [int(p["permutation"][axis])]


def _squeeze(p: dict, shapes: list, axis: int, size: int) -> list[Axis]:
    return [[a for a in range(len(shapes[0])) if a not in p["dimensions"]][axis]]


def _reshape(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    before = math.prod(p["new_sizes"][:axis])
    if p["dimensions"] is not None:
        return None
    for a, length in enumerate(shapes[0]):
        if length == size and math.prod(shapes[0][:a]) == before:
            return [a]
    return None


def _broadcast(p: dict, shapes: list, axis: int, size: int) -> list[Axis]:
    dims = [int(d) for d in p["broadcast_dimensions"]]
    here = dims.index(axis) if axis in dims else None
    return [SHARED if here is None or shapes[0][here] != size else here]


def _slice(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    steps = p["strides"] or (1,) * len(shapes[0])
    whole = p["start_indices"][axis] == 0 and p["limit_indices"][axis] == shapes[0][axis] and steps[axis] == 1
    return [axis] if whole else None


def _pad(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    return [axis, SHARED] if p["padding_config"][axis] == (0, 0, 0) else None


def _reverse(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    return None if axis in p["dimensions"] else [axis]


def _dot(p: dict, shapes: list, axis: int, size: int) -> list[Axis]:
    (contract, batch) = p["dimension_numbers"]
    free = [[a for a in range(len(shapes[k])) if a not in contract[k] and a not in batch[k]] for k in (0, 1)]
    count = len(batch[0])
    if axis < count:
        return [int(batch[0][axis]), int(batch[1][axis])]
    if axis < count + len(free[0]):
        return [free[0][axis - count], SHARED]
    return [SHARED, free[1][axis - count - len(free[0])]]


def _convolution(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    spec = p["dimension_numbers"]
    return [spec.lhs_spec[0], SHARED] if axis == spec.out_spec[0] and p["batch_group_count"] == 1 else None


def _gather(p: dict, shapes: list, axis: int, size: int) -> list[Axis] | None:
    numbers = p["dimension_numbers"]
    offset = [int(a) for a in numbers.offset_dims]
    kept = [
        a for a in range(len(shapes[0])) if a not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    ]
    if axis in offset:
        source = kept[offset.index(axis)]
        return [source, SHARED] if p["slice_sizes"][source] == size and source not in numbers.start_index_map else None
    place = [a for a in range(axis + 1) if a not in offset].index(axis)
    if place in numbers.start_indices_batching_dims:
        return [int(numbers.operand_batching_dims[numbers.start_indices_batching_dims.index(place)]), place]
    return [SHARED, place]


_STRUCTURE = {
    "transpose": _transpose,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "pad": _pad,
    "rev": _reverse,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "gather": _gather,
}
