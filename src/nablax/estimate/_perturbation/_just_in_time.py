"""Parameters that are made where a function first uses them, and not before."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array, Int, PyTree

Make = Callable[[int, Int[Array, ""]], Array]


def just_in_time(function: Callable[[PyTree], PyTree], make: Make, like: PyTree) -> PyTree:
    """Call a function of a tree whose leaves are made one by one, each after what precedes its first use.

    A compiler is free to make all leaves first, and XLA for CPUs does. Here the function is traced, and each leaf is
    made to depend on the last result before it: at any time there are only those that have been used and will be again.
    Leaves that a loop, a branch or a function with its own derivative takes are made before it.

    Args:
        function: of one tree of arrays.
        make: ``make(number, zero) -> leaf``; ``zero`` is a 0 that is known only once its turn has come.
        like: a tree of the leaves' shapes and dtypes.

    Returns:
        The function's value.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(like)
    leaves = [_Later(make, number) for number in range(len(jax.tree.leaves(like)))]
    outputs, _ = _run(program, leaves, None)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


class _Later:
    """A leaf that is made when it is first asked for."""

    def __init__(self, make: Make, number: int):
        self._make, self._number = make, number
        self._made: Array | None = None

    def after(self, latest: Array | None) -> Array:
        if self._made is None:
            self._made = self._make(self._number, zero_after(latest))
        return self._made


def zero_after(latest: Array | None) -> Int[Array, ""]:
    """Zero, by a number that no compiler knows to be zero: whether an entry is NaN and finite at once."""
    if latest is None or not latest.size:
        return jnp.uint32(0)
    entry = latest[(0,) * latest.ndim]
    return (jnp.isnan(entry) & jnp.isfinite(entry)).astype(jnp.uint32)


def _run(program: ClosedJaxpr, inputs: Sequence[Any], latest: Array | None) -> tuple[list[Any], Array | None]:
    """Outputs of a traced program, and the last floating result of it."""
    held: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts))
    held |= dict(zip(program.jaxpr.invars, inputs))

    def named(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else held[variable]

    def value(variable: Any) -> Any:
        found = named(variable)
        return found.after(latest) if isinstance(found, _Later) else found

    for equation in program.jaxpr.eqns:
        if equation.primitive.name == "jit":
            inner = [named(variable) for variable in equation.invars]
            results, latest = _run(equation.params["jaxpr"], inner, latest)
        else:
            parameters = equation.primitive.get_bind_params(equation.params)
            found = equation.primitive.bind(*map(value, equation.invars), **parameters)
            results = found if equation.primitive.multiple_results else [found]
        held |= dict(zip(equation.outvars, results))
        floating = [x for x in results if not isinstance(x, _Later) and jnp.issubdtype(x.dtype, jnp.floating)]
        latest = floating[-1] if floating else latest
    return [value(variable) for variable in program.jaxpr.outvars], latest
