"""What a function works out and holds: operations read off its trace, loops as often as they turn, and bytes."""

import math
from collections.abc import Callable
from typing import Any

# What moves numbers about or makes constants works nothing out.
_FREE = frozenset(
    [
        "broadcast_in_dim",
        "reshape",
        "transpose",
        "squeeze",
        "slice",
        "dynamic_slice",
        "dynamic_update_slice",
        "concatenate",
        "pad",
        "iota",
        "copy",
        "copy_p",
        "convert_element_type",
        "bitcast_convert_type",
        "stop_gradient",
        "gather",
        "random_wrap",
        "random_unwrap",
        "random_bits",
        "random_split",
        "random_fold_in",
        "rev",
        "split",
    ]
)


def operations(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one call; of a product of matrices, two for each number that enters a sum."""
    import jax

    return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise ValueError("How often a while loop turns cannot be read off.")
        if name == "cond":
            total += max(_of(branch.jaxpr) for branch in params["branches"])
            continue
        inner = [params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params]
        if inner:
            total += (params["length"] if name == "scan" else 1) * _of(getattr(inner[0], "jaxpr", inner[0]))
            continue
        size = max(math.prod(variable.aval.shape) for variable in equation.outvars)
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            total += 2 * size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif name.startswith(("reduce_", "cum", "arg", "sort")):
            total += max(math.prod(variable.aval.shape) for variable in equation.invars)
        elif name not in _FREE:
            total += size
    return total


def memory(function: Callable[..., Any], *args: Any) -> int:
    """Bytes that one compiled call takes beside its arguments and its answer."""
    import jax

    used = jax.jit(function).lower(*args).compile().memory_analysis()
    return used.temp_size_in_bytes
