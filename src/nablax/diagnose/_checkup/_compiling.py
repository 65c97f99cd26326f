"""A program that is compiled for longer than it runs: XLA spends less on it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

P = ParamSpec("P")
T = TypeVar("T")

# On CPUs: the older way of turning what is fused into machine code, and one piece of it at a time. A check-up compiles
# in two thirds of the time so, and runs as fast.
_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def quick_jit(function: Callable[P, T]) -> Callable[P, T]:
    """``eqx.filter_jit`` for what is called from outside of any program, and not often; within one it is no other."""
    plain: Any = eqx.filter_jit

    @functools.cache
    def quick() -> Any:
        return plain(function, compiler_options=_options())

    inner = plain(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # Options are a whole program's: JAX refuses them for a part of one.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))
        result: T = (inner if traced else quick())(*args, **kwargs)
        return result

    return call


@functools.cache
def _options() -> Mapping[str, Any] | None:
    """What XLA is told; nothing where there is no CPU, or its version has no such options, which are no promise."""
    # Asked at the call: at import it would start JAX's backends.
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _OPTIONS


__all__ = ["quick_jit"]
