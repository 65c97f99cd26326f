"""``eqx.filter_jit`` whose guards are looked at after the program has run, so that no host callback is part of it."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, get_opaque_trace_state, jaxprs_in_params
from jaxtyping import Array, Bool, PyTree

from ._programs import holds

_outside: list[Any] = []
# Where no transformation is under way; looked at from another thread, for this file may be imported amid one.
_looker = threading.Thread(target=lambda: _outside.append(get_opaque_trace_state()))
_looker.start()
_looker.join()
_OUTSIDE = _outside[0]
_CALL = "pure_callback"

P = ParamSpec("P")
T = TypeVar("T")


def guarded_jit(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function without the branches that call the host; where one was due, call it again with them.

    ``eqx.error_if`` is a branch that calls the host to raise. A program that holds such a branch is never kept in JAX's
    compilation cache. Here the program leaves the branch out and returns whether it was due, which is nearly never;
    then its result is thrown away and the function runs as it was written, which raises with its own words. A branch
    that calls the host to compute something is treated alike: slower, and right. What stands in a place from which its
    condition cannot be handed out (the loop of a solver, a branch of a branch) stays in the program. Since the program
    goes on behind a guard that was due, its loops must end whatever the numbers are, as by a bound on their steps.

    Under ``jit``, ``vmap`` or ``grad`` it is ``eqx.filter_jit(function)``.

    Args:
        function: takes and returns any pytrees; arrays are traced, all else is static.

    Returns:
        The compiled function.
    """
    plain: Any = eqx.filter_jit(function)

    def without_guards(args: tuple, kwargs: dict[str, Any]) -> tuple[T, Bool[Array, ""]]:
        # By hand, for `filter_make_jaxpr` would also take shapes that stand for arrays as inputs.
        arrays, others = eqx.partition((args, kwargs), eqx.is_array)

        def of_arrays(arrays: PyTree) -> T:
            args, kwargs = eqx.combine(arrays, others)
            return function(*args, **kwargs)

        jaxpr, struct, static = eqx.filter_make_jaxpr(of_arrays)(arrays)
        due: list[Array] = []
        leaves = jax.tree.leaves(arrays)
        values = _evaluate(jaxpr.jaxpr, jaxpr.consts, leaves, due)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(struct), values), static), _any(due)

    without_guards.__name__ = function.__name__  # profiles and cached programs bear it
    quiet = eqx.filter_jit(without_guards)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if get_opaque_trace_state() != _OUTSIDE:
            return plain(*args, **kwargs)
        result, due = quiet(args, kwargs)
        return plain(*args, **kwargs) if due else result

    return call


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], due: list[Array]) -> list[Any]:
    """Evaluate without the branches that call the host; append to ``due`` whether one was to be taken."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(variables: Sequence[Any]) -> list[Any]:
        return [v.val if isinstance(v, Literal) else values[v] for v in variables]

    for equation in jaxpr.eqns:
        with equation.ctx.manager:
            outputs = _apply(equation, read(equation.invars), due)
        values.update(zip(equation.outvars, outputs))
    return read(jaxpr.outvars)


def _apply(equation: JaxprEqn, inputs: list[Any], due: list[Array]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if any(holds(inner, _CALL) for inner in jaxprs_in_params(params)):
        if name in ("jit", "custom_jvp_call"):
            inner = params["jaxpr" if name == "jit" else "call_jaxpr"]
            return _evaluate(inner.jaxpr, inner.consts, inputs, due)
        if name == "scan":
            return _scan(params, inputs, due)
        if name == "cond":
            silent = [place for place, branch in enumerate(params["branches"]) if not holds(branch.jaxpr, _CALL)]
            others = [branch for place, branch in enumerate(params["branches"]) if place not in silent]
            if len(silent) == 1 and all(_calls_at_once(branch.jaxpr) for branch in others):
                due.append(inputs[0] != silent[0])
                branch = params["branches"][silent[0]]
                return _evaluate(branch.jaxpr, branch.consts, inputs[1:], due)
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return outputs if equation.primitive.multiple_results else [outputs]


def _scan(params: dict[str, Any], inputs: list[Any], due: list[Array]) -> list[Any]:
    body, constants, carried = params["jaxpr"], params["num_consts"], params["num_carry"]
    first, start, rest = inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :]

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], tuple[list[Any], Array]]:
        here: list[Array] = []
        outputs = _evaluate(body.jaxpr, body.consts, [*first, *carry, *x], here)
        return outputs[:carried], (outputs[carried:], _any(here))

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    end, (outputs, met) = jax.lax.scan(step, start, rest, **options)
    due.append(jnp.any(met))
    return [*end, *outputs]


def _any(due: list[Array]) -> Array:
    return functools.reduce(jnp.logical_or, due, jnp.asarray(False))


def _calls_at_once(jaxpr: Jaxpr) -> bool:
    return any(equation.primitive.name == _CALL for equation in jaxpr.eqns)


__all__ = ["guarded_jit"]
