"""A function traced once and written out without inner calls, its values by number."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jaxtyping import Array

# A value: its number in the program, or a constant written into the operation.
Atom = int | Literal

_INLINED = {"checkpoint", "closed_call", "core_call", "jit", "pjit", "remat", "remat2"}
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
