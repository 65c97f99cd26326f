"""Where each example lives inside a traced batch of losses, and where a parameter first meets it.

A batch of losses is traced once. From the losses backwards every intermediate value gets either a *batch axis*, along
which loss i reads entry i and nothing else, or the mark `SHARED`: any loss may read all of it. Parameters are shared.
An *entry* is an operation that makes a batched value out of a shared one that depends on the parameters: a matrix
product, a convolution, a look-up, a bias. An operation that is not understood makes its results shared, which costs
time and is never wrong.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jaxtyping import Array

SHARED = "shared"
Axis = int | str
# A value: its number in the program, or a constant written into the operation.
Atom = int | Literal

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
_INLINED = {"checkpoint", "closed_call", "core_call", "jit", "pjit", "remat", "remat2"}
# Operations with a rule for the gradient of a shared operand.
ENTRIES = {"dot_general", "conv_general_dilated", "gather", "broadcast_in_dim"} | ELEMENTWISE


# Elements of a window up to which maxima are written out.
_LARGEST_POOL = 16


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a program; ``inputs`` and ``outputs`` are numbers of values."""

    eqn: JaxprEqn
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name

    def bind(self, values: Sequence[Array], **changed: Any) -> list[Array]:
        """Do the operation, with some of its static parameters changed."""
        small = self.name == "reduce_window_max" and math.prod(self.eqn.params["window_dimensions"]) <= _LARGEST_POOL
        if small and jnp.issubdtype(values[0].dtype, jnp.floating):
            return [_pool(values[0], **self.eqn.params)]
        found = self.eqn.primitive.get_bind_params(self.eqn.params)
        # Older versions of JAX give the custom rules apart.
        functions, parameters = found if isinstance(found, tuple) else ((), found)
        result = self.eqn.primitive.bind(*functions, *values, **(parameters | changed))
        return list(result) if self.eqn.primitive.multiple_results else [result]


def _pool(
    image: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Array:
    """Maxima over windows by comparisons, the first of equals as ever; on CPUs the reverse is much quicker."""
    edges = [(low, high, step - 1) for (low, high), step in zip(padding, base_dilation, strict=True)]
    # The barriers keep the comparisons, and their reverse, from being done again in every use of the result.
    image = lax.pad(lax.optimization_barrier(image), jnp.array(-jnp.inf, image.dtype), edges)
    reach = [(length - 1) * step for length, step in zip(window_dimensions, window_dilation, strict=True)]
    best = None
    for place in itertools.product(*map(range, window_dimensions)):
        start = [offset * step for offset, step in zip(place, window_dilation, strict=True)]
        end = [length - far + begin for length, far, begin in zip(image.shape, reach, start, strict=True)]
        part = lax.slice(image, start, end, window_strides)
        best = part if best is None else jnp.where((part > best) | jnp.isnan(part), part, best)
    assert best is not None
    return lax.optimization_barrier(best)


@dataclasses.dataclass
class Program:
    """A traced function without inner calls: values have numbers, ``avals`` their shapes."""

    nodes: list[Node]
    inputs: list[int]
    outputs: list[Atom]
    constants: dict[int, Array]
    avals: dict[int, Any]

    def shape(self, atom: Atom) -> tuple[int, ...]:
        """Shape of a value."""
        return jnp.shape(atom.val) if isinstance(atom, Literal) else tuple(self.avals[atom].shape)

    def dependents(self, sources: Sequence[int]) -> set[int]:
        """Values that a derivative with respect to some others passes through."""
        found = set(sources)
        for node in self.nodes:
            if node.name != "stop_gradient" and any(atom in found for atom in node.inputs if isinstance(atom, int)):
                found.update(o for o in node.outputs if jnp.issubdtype(self.avals[o].dtype, jnp.inexact))
        return found


def flatten(closed: ClosedJaxpr) -> Program:
    """Write the calls inside a traced function out; custom derivatives stay whole, so that they are kept."""
    numbers = itertools.count()
    program = Program([], [], [], {}, {})

    def name(aval: Any) -> int:
        number = next(numbers)
        program.avals[number] = aval
        return number

    def visit(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Atom]) -> list[Atom]:
        atoms: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, value in zip(jaxpr.constvars, constants, strict=True):
            atoms[variable] = number = name(variable.aval)
            program.constants[number] = value

        def read(atom: Any) -> Atom:
            return atom if isinstance(atom, Literal) else atoms[atom]

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            if eqn.primitive.name in _INLINED and inner is not None:
                results = visit(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
                atoms.update(zip(eqn.outvars, results, strict=True))
            else:
                outputs = tuple(name(variable.aval) for variable in eqn.outvars)
                atoms.update(zip(eqn.outvars, outputs, strict=True))
                program.nodes.append(Node(eqn, tuple(operands), outputs))
        return [read(atom) for atom in jaxpr.outvars]

    program.inputs = [name(variable.aval) for variable in closed.jaxpr.invars]
    program.outputs = visit(closed.jaxpr, closed.consts, program.inputs)
    return program


@dataclasses.dataclass
class Plan:
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
) -> Plan:
    """Carry the batch axis from the results back to the sources, which are shared if they are parameters."""
    dependent = program.dependents(sources)
    plan = Plan({source: {SHARED} for source in sources if shared}, {}, [])
    for output, axis in axes.items():
        plan.demands.setdefault(output, set()).add(axis)
    for place in reversed(range(len(program.nodes))):
        node = program.nodes[place]
        live = [o for o in node.outputs if o in dependent and plan.demands.get(o)]
        if not live:
            continue
        wanted: list[Any] = [next(iter(plan.demands[o])) if o in live else None for o in node.outputs]
        single = all(len(plan.demands[o]) == 1 for o in live) and SHARED not in wanted
        needs = _needs(program, node, wanted, size) if single else None
        held = {k: atom for k, atom in enumerate(node.inputs) if isinstance(atom, int) and atom in dependent}
        whole = [] if needs is None else [k for k in held if needs[k] == SHARED]
        if needs is None or (whole and (node.name not in ENTRIES or len(node.outputs) > 1)):
            for output in live:
                plan.demands[output].add(SHARED)
            needs = [SHARED] * len(node.inputs)
        else:
            plan.needs[place] = needs
            plan.entries += [(place, k, wanted[0]) for k in whole]
        for k, atom in held.items():
            plan.demands.setdefault(atom, set()).add(needs[k])
    return plan


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
        plan = propagate(inner, inner.inputs, ends, size, shared=False)
        if plan.entries or any(len(found) > 1 or SHARED in found for found in plan.demands.values()):
            return None
        return [next(iter(plan.demands.get(atom, {SHARED}))) for atom in inner.inputs]
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
